//! Calls of procedures and programs that there are not.

use super::super::host::{Host, SMALL, WAYS, usual_access};
use crate::support::table::program;
use crate::support::tenants::Driver;

const NUMBERS: [i32; 7] = [0, 454, 500, i32::MAX, i32::MIN, -1, -454];

#[test]
fn procedures_that_there_are_not_are_refused_and_cost_nothing() {
    let host = Host::with_access(Driver::Test, SMALL, |_| {
        usual_access() + "- who: operator\n  allow: \"*\"\n"
    });
    let programs = [program::REMOTE, program::QEMU, program::LXC, 0, u32::MAX];
    for way in WAYS {
        let [mut tenant, mut operator] =
            ["acme", "operator"].map(|identity| host.caller(identity, way));
        for program in programs {
            for number in NUMBERS {
                let refused = tenant.call_number(program, number, vec![0; 64]).error();
                // It is not asked of the daemon, which may know more than we do.
                assert_eq!(refused.code, 88, "{program:#x} {number}: {refused:?}");
                // Who may do everything hears what the daemon says.
                let relayed = operator.call_number(program, number, vec![0; 64]).error();
                let daemons = host
                    .root()
                    .call_number(program, number, vec![0; 64])
                    .error();
                assert_eq!(relayed, daemons, "{program:#x} {number}");
            }
            tenant.call("CONNECT_GET_HOSTNAME", &[]).unwrap();
        }
    }
}
