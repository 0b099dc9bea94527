//! Daemons that come back under a client: what was on its way fails once, what comes while they are
//! away waits for a while, and all that the client had asked to be told of is asked for again.

use super::links::{NETWORKS, POOLS, VERSION_OF, with};
use super::*;
use crate::protocol::args::{self, ParamValue};

const SYSTEM_ERROR: i32 = 38;

fn back(name: &str) -> Upstream {
    Upstream {
        reconnect: true,
        ..upstream(name)
    }
}

fn coming_back() -> Rig {
    with(|options| {
        options.upstreams = vec![back("qemu")];
        options.drivers = vec![
            (Driver::Network, back("network"), false),
            (Driver::Storage, upstream("storage"), true),
        ];
    })
}

#[test]
fn calls_in_flight_fail_once_and_say_that_they_may_be_tried_again() {
    let mut rig = coming_back();
    let stream = call(remote::DOMAIN_OPEN_CONSOLE, 1);
    rig.at("qemu").serves(&stream);
    let calls: Vec<Msg> = (2..5).map(|serial| call(VERSION_OF, serial)).collect();
    calls.iter().for_each(|call| rig.at("qemu").relays(call));
    rig.at("qemu").dies();
    let abort = rig.client_gets();
    assert_eq!(abort.header, stream.stream(Status::ERROR, "").header);
    for call in &calls {
        let (code, text) = rig.client_gets_fault(call);
        assert_eq!(code, SYSTEM_ERROR);
        assert!(text.contains("connected to again"), "{text}");
    }
    rig.client_gets_nothing();
    rig.at("qemu").opens();
    rig.at("qemu").gets_nothing();
    rig.at("qemu").serves(&calls[0]);
    rig.at("qemu").serves(&stream);
    assert_eq!(rig.ends, []);
}

#[test]
fn a_client_survives_many_restarts() {
    let mut rig = coming_back();
    for serial in 0..20 {
        let call = call(VERSION_OF, 1 + serial);
        rig.at("qemu").relays(&call);
        rig.at("qemu").dies();
        rig.client_gets_fault(&call);
        rig.client_sends(&call);
        assert_eq!(rig.at("qemu").opens(), "qemu:///system");
        assert_eq!(rig.at("qemu").gets(), call);
        rig.at("qemu").delivers(&call.reply(|_| ()));
    }
    assert_eq!(rig.dials("qemu"), 21);
}

#[test]
fn a_daemon_that_dies_as_soon_as_it_is_open_is_dialled_less_and_less_often() {
    let mut rig = coming_back();
    rig.wait(SECOND);
    let begun = rig.now;
    let mut dials = 0;
    while rig.now < begun + 60 * SECOND {
        if rig.dials("qemu") > dials {
            dials = rig.dials("qemu");
            if dials > 1 {
                rig.at("qemu").opens();
            }
            rig.at("qemu").dies_at_once();
        }
        assert!(dials < 80, "dialled {dials} times in {:?}", rig.now - begun);
        rig.wait(SECOND / 100);
    }
    // It has come to its senses.
    while rig.dials("qemu") == dials {
        rig.wait(SECOND);
    }
    rig.at("qemu").opens();
    rig.wait(SECOND);
    rig.at("qemu").dies();
    assert_eq!(rig.dials("qemu"), dials + 2);
}

#[test]
fn a_call_waits_until_the_daemon_is_back() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let waiting = call(VERSION_OF, 1);
    rig.client_sends(&waiting);
    for _ in 0..3 {
        rig.at("qemu").is_missing();
        rig.client_gets_nothing();
        rig.wait(SECOND);
    }
    rig.at("qemu").opens();
    assert_eq!(rig.at("qemu").gets(), waiting);
    rig.at("qemu").delivers(&waiting.reply(|_| ()));
}

#[test]
fn a_call_waits_no_longer_than_an_open_may_take() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let waiting = call(VERSION_OF, 1);
    rig.client_sends(&waiting);
    let mut dials = 1;
    while rig.inbox.is_empty() {
        // It is dialled again, less and less often.
        assert!(rig.dials("qemu") > dials && dials < 20);
        dials = rig.dials("qemu");
        rig.at("qemu").is_missing();
        let next = rig.session.poll_timeout().unwrap();
        rig.wait(next - rig.now);
    }
    rig.client_gets_fault(&waiting);
    assert_eq!(rig.at("qemu").opens(), "qemu:///system");
    rig.at("qemu").gets_nothing();
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    rig.at("qemu").accepts(true);
    rig.wait(5 * SECOND);
    let waiting = call(VERSION_OF, 1);
    rig.client_sends(&waiting);
    rig.wait(5 * SECOND);
    rig.client_gets_fault(&waiting);
    assert_eq!(rig.ends, []);
}

/// The primary holds a registration, was lost, and was waited for in vain.
fn resting() -> Rig {
    let mut rig = coming_back();
    let register = call(remote::CONNECT_DOMAIN_EVENT_REGISTER, 1);
    rig.at("qemu").serves(&register);
    rig.at("qemu").dies();
    let waits = rig.now + 11 * SECOND;
    while rig.now < waits {
        if rig.at("qemu").is_open() {
            rig.at("qemu").is_missing();
        }
        rig.wait(SECOND);
    }
    rig.at("qemu").is_missing();
    rig
}

#[test]
fn a_daemon_that_rests_fails_calls_at_once() {
    let mut rig = resting();
    let dials = rig.dials("qemu");
    let (code, text) = rig.refuses(&call(VERSION_OF, 2));
    assert_eq!(code, SYSTEM_ERROR);
    assert!(text.contains("no such file"), "{text}");
    rig.refuses(&call(VERSION_OF, 3));
    assert_eq!(rig.dials("qemu"), dials);
    // What the client is to be told of is not forgotten.
    rig.wait(31 * SECOND);
    rig.at("qemu").opens();
    rig.at("qemu")
        .says_yes(remote::CONNECT_DOMAIN_EVENT_REGISTER, |_| ());
    let event = message(Program::REMOTE, remote::DOMAIN_EVENT_LIFECYCLE);
    rig.at("qemu").delivers(&event);
    rig.at("qemu").serves(&call(VERSION_OF, 4));
}

#[test]
fn a_daemon_that_rests_takes_nobodys_place() {
    let mut rig = resting();
    let pools = call(POOLS, 2);
    rig.client_sends(&pools);
    rig.at("storage").is_missing();
    rig.client_gets_fault(&pools);
    rig.client_gets_nothing();
}

#[test]
fn a_primary_that_is_away_takes_the_place_of_another_once_it_is_back() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let (version, pools) = (call(VERSION_OF, 1), call(POOLS, 2));
    rig.client_sends(&version);
    rig.client_sends(&pools);
    rig.at("storage").is_missing();
    rig.client_gets_nothing();
    rig.at("qemu").opens();
    assert_eq!(rig.at("qemu").gets(), version);
    assert_eq!(rig.at("qemu").gets(), pools);
    rig.at("qemu").delivers(&pools.reply(|_| ()));
}

#[test]
fn one_that_serves_a_driver_comes_back_too() {
    let mut rig = coming_back();
    rig.client_sends(&call(NETWORKS, 1));
    rig.at("network").opens();
    rig.at("network").dies();
    rig.client_gets_fault(&call(NETWORKS, 1));
    let waiting = call(NETWORKS, 2);
    rig.client_sends(&waiting);
    rig.at("qemu").serves(&call(VERSION_OF, 3));
    rig.at("network").opens();
    assert_eq!(rig.at("network").gets(), waiting);
}

#[test]
fn a_connection_that_ends_is_not_dialled_for() {
    let mut rig = coming_back();
    let waiting = call(VERSION_OF, 1);
    rig.at("qemu").relays(&waiting);
    rig.drain();
    rig.at("qemu").dies();
    rig.client_gets_fault(&waiting);
    assert_eq!(rig.ends, [End::Close]);
    assert_eq!(rig.dials("qemu"), 1);
}

#[test]
fn a_drain_lets_what_waits_for_a_daemon_end() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let waiting = call(VERSION_OF, 1);
    rig.client_sends(&waiting);
    rig.drain();
    rig.at("qemu").opens();
    assert_eq!(rig.at("qemu").gets(), waiting);
    rig.at("qemu").delivers(&waiting.reply(|_| ()));
    assert_eq!(rig.ends, [End::Close]);
}

/// Opens a daemon that is told of the client and then for whom it calls.
fn opens_told(rig: &mut Rig, name: &str, forwarded: &Msg) {
    let mut daemon = rig.at(name);
    daemon.accepts(true);
    daemon.says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(0));
    daemon.says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| _ = writer.i32(1));
    daemon.says_yes(remote::CONNECT_OPEN, |_| ());
    let own = daemon.says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert_ne!(own.payload, forwarded.payload);
    let told = daemon.says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert_eq!(told.payload, forwarded.payload);
}

fn forwarder() -> (Rig, Msg) {
    let rig = with(|options| {
        options.upstreams = vec![back("qemu")];
        options.forwarder = true;
    });
    let forwarded = Msg::new(
        Header::remote_call(remote::CONNECT_SET_IDENTITY, Serial(1)),
        |writer| args::encode_identity(&[("user-name", ParamValue::Text("carol".into()))], writer),
    );
    (rig, forwarded)
}

#[test]
fn every_daemon_is_told_for_whom_a_trusted_client_calls() {
    let (mut rig, forwarded) = forwarder();
    rig.at("qemu").serves(&forwarded);
    let networks = call(NETWORKS, 2);
    rig.client_sends(&networks);
    opens_told(&mut rig, "network", &forwarded);
    assert_eq!(rig.at("network").gets(), networks);
    rig.at("network").delivers(&networks.reply(|_| ()));
    rig.at("qemu").dies();
    opens_told(&mut rig, "qemu", &forwarded);
    rig.at("qemu").serves(&call(VERSION_OF, 3));
}

#[test]
fn no_call_is_made_before_it_is_known_for_whom() {
    let (mut rig, forwarded) = forwarder();
    rig.at("qemu").relays(&forwarded);
    let networks = call(NETWORKS, 2);
    rig.client_sends(&networks);
    assert_eq!(rig.dials("network"), 0);
    rig.at("qemu").delivers(&forwarded.reply(|_| ()));
    rig.carry_out();
    opens_told(&mut rig, "network", &forwarded);
    assert_eq!(rig.at("network").gets(), networks);
}

#[test]
fn a_refused_identity_is_told_to_nobody_else() {
    let (mut rig, forwarded) = forwarder();
    rig.at("qemu").relays(&forwarded);
    rig.at("qemu").delivers(&forwarded.error("no"));
    let networks = call(NETWORKS, 2);
    rig.client_sends(&networks);
    assert_eq!(rig.at("network").opens(), "network:///system");
    assert_eq!(rig.at("network").gets(), networks);
}

#[test]
fn for_whom_a_client_calls_is_not_changed_behind_an_open_daemon() {
    let (mut rig, forwarded) = forwarder();
    rig.client_sends(&call(NETWORKS, 5));
    rig.at("network").opens();
    rig.at("network").gets();
    rig.client_sends(&forwarded);
    assert!(
        rig.client_gets_fault(&forwarded)
            .1
            .contains("before its first call")
    );
    rig.at("qemu").gets_nothing();
}
