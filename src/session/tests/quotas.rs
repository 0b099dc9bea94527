//! Calls that count towards quotas: turns, counts and claims.

use super::host::{Domain, Host, uuid, volume};
use super::*;
use crate::policy::{self, access::Table};
use crate::protocol::object::Object;
use crate::session::access::quota::amount::{Amount, Claim, Thing};
use crate::session::access::quota::{Claims, TurnId};

const RULES: &str = "
  - { who: acme, allow: ['*'], on: { domain: { name: 'acme-*' }, storage_vol: { pool: 'acme*' } } }
";

const EVERYTHING: &str = "
  - { who: acme, allow: ['*'] }
";

/// Rules under this quota, and what more `access` says.
fn table(quota: &str, more: &str, rules: &str) -> Option<Arc<Table>> {
    let text = format!(
        "version: 1
listeners: {{ main: {{ unix: /run/sock }} }}
upstreams: {{ one: {{ unix: /run/one }} }}
identities: {{ acme: {{ unix: {{ user: ann }} }}, lab: {{ unix: {{ user: ann }} }} }}
routes: [{{ uri: '*', clients: [acme, lab], upstream: one }}]
access:
  quotas: [ {{ who: acme, {quota} }} ]
{more}  rules:{rules}"
    );
    let loaded = policy::load("f", &text, &|_| None);
    let policy = loaded.unwrap_or_else(|report| panic!("{report:?}")).policy;
    let client = ClientFacts {
        unix: Some("user=ann".parse().unwrap()),
        ..ClientFacts::default()
    };
    Some(policy.access(&client))
}

fn under(quota: &str) -> Rig {
    let mut rig = Rig::start();
    rig.router.access = table(quota, "", RULES);
    rig.open();
    rig
}

fn call(procedure: Procedure, serial: u32, write: impl FnOnce(&mut Writer<'_>)) -> Msg {
    Msg::new(Header::remote_call(procedure, Serial(serial)), write)
}

fn xml(name: &str, number: Option<u8>, vcpus: u64, mib: u64) -> String {
    let uuid = number.map(|number| format!("<uuid>{}</uuid>", uuid(number)));
    format!(
        "<domain><name>{name}</name>{}<vcpu>{vcpus}</vcpu>\
         <memory unit='MiB'>{mib}</memory></domain>",
        uuid.unwrap_or_default()
    )
}

fn define(serial: u32, xml: &str) -> Msg {
    call(remote::DOMAIN_DEFINE_XML, serial, |writer| {
        _ = writer.string(xml)
    })
}

fn start(serial: u32, domain: &Domain) -> Msg {
    call(remote::DOMAIN_CREATE, serial, |writer| {
        domain.object().encode(writer)
    })
}

fn grow(serial: u32, procedure: Procedure, domain: &Domain, to: u64) -> Msg {
    call(procedure, serial, |writer| {
        domain.object().encode(writer);
        match procedure {
            remote::DOMAIN_SET_VCPUS => _ = writer.u32(u32::try_from(to).unwrap()),
            remote::DOMAIN_SET_VCPUS_FLAGS => {
                writer.u32(u32::try_from(to).unwrap()).u32(2 | 4);
            }
            remote::DOMAIN_SET_MEMORY_FLAGS => _ = writer.u64(to).u32(2 | 4),
            _ => _ = writer.u64(to),
        }
    })
}

fn domain_claim(number: u8, running: u64, vcpus: u64) -> Claims {
    let mut claims = Claims::default();
    claims.add(Claim {
        thing: Thing::Domain {
            uuid: Some(uuid(number)),
            name: None,
        },
        amount: Amount {
            domains: 1,
            running,
            vcpus,
            ..Amount::default()
        },
    });
    claims
}

/// What became of a call.
#[derive(Debug, PartialEq)]
enum End {
    Relayed(Msg),
    Refused(String),
}

impl Rig {
    /// The session waits for a turn.
    #[track_caller]
    fn awaits_turn(&mut self) -> TurnId {
        match self.asked.pop_front() {
            Some(Action::Acquire {
                turn, identities, ..
            }) => {
                assert_eq!(identities, ["acme".into()]);
                turn
            }
            other => panic!("no turn is asked for: {other:?}"),
        }
    }

    #[track_caller]
    fn gets_turn(&mut self, turn: TurnId, others: Claims) {
        let others = vec![("acme".into(), others)];
        self.session
            .handle_acquired(turn, others, &self.router, self.now);
        self.pump();
    }

    /// The session tells others of a claim.
    #[track_caller]
    fn claims(&mut self, turn: TurnId) -> Vec<(Arc<str>, Claims)> {
        match self.asked.pop_front() {
            Some(Action::Claim { turn: its, claimed }) if its == turn => claimed,
            other => panic!("nothing is claimed: {other:?}"),
        }
    }

    #[track_caller]
    fn releases(&mut self, turn: TurnId, is_known: bool) {
        self.asked
            .retain(|action| !matches!(action, Action::Audit(_)));
        let release = Action::Release { turn, is_known };
        assert_eq!(self.asked.pop_front(), Some(release));
        assert_eq!(self.asked, []);
    }

    /// The client makes a call before this host, which comes to wait for its turn.
    #[track_caller]
    fn comes_to_count(&mut self, host: &mut Host, call: &Msg) -> TurnId {
        self.client_sends(call);
        assert_eq!(host.serve(self), []);
        self.awaits_turn()
    }

    /// The client makes a call before this host, and what others claim.
    #[track_caller]
    fn tries(&mut self, host: &mut Host, call: &Msg, others: Claims) -> End {
        let turn = self.comes_to_count(host, call);
        self.gets_turn(turn, others);
        let mut relayed = host.serve(self);
        let end = match relayed.pop() {
            Some(msg) => {
                assert_eq!(msg.header, call.header);
                let claimed = self.claims(turn);
                assert!(
                    claimed
                        .iter()
                        .all(|(who, claims)| &**who == "acme" && !claims.is_empty())
                );
                self.daemon_sends(&msg.error("no more than a test"));
                self.client_gets_fault(call);
                End::Relayed(msg)
            }
            None => {
                let (code, text) = self.client_gets_fault(call);
                assert_eq!(code, 88, "{text}");
                let text = text.strip_prefix("access denied: ").unwrap();
                End::Refused(text.split(" (refusal").next().unwrap().to_owned())
            }
        };
        assert_eq!(relayed, []);
        self.releases(turn, true);
        end
    }

    #[track_caller]
    fn passes(&mut self, host: &mut Host, call: &Msg) {
        let end = self.tries(host, call, Claims::default());
        assert_eq!(end, End::Relayed(call.clone()));
    }

    #[track_caller]
    fn exceeds(&mut self, host: &mut Host, call: &Msg, text: &str) {
        let end = self.tries(host, call, Claims::default());
        assert_eq!(end, End::Refused(text.to_owned()));
    }
}

/// Two domains of acme's, one of which runs, and one of another's.
fn host() -> Host {
    Host {
        domains: vec![
            Domain::on("acme-1", 1),
            Domain::off("acme-2", 2),
            Domain::on("globex-1", 9),
        ],
        pools: vec![
            ("acme", 1, vec![("a", 100), ("acme-1", 50)]),
            ("acme-more", 2, vec![("b", 7)]),
            ("globex", 9, vec![("g", 1000)]),
        ],
        ..Host::default()
    }
}

#[test]
fn a_domain_more_than_the_limit_is_refused_and_one_less_is_not() {
    let mut rig = under("domains: 3");
    let mut host = host();
    rig.passes(&mut host, &define(1, &xml("acme-3", None, 1, 64)));
    host.domains.push(Domain::off("acme-3", 3));
    let more = define(2, &xml("acme-4", None, 1, 64));
    let text = "quota of acme: domains: limit 3, in use 3, this call adds 1";
    rig.exceeds(&mut host, &more, text);
    // It says nothing of sizes, so they are not asked for.
    assert_eq!(host.times(remote::DOMAIN_GET_XML_DESC), 0);
    // One that is there already is none more, whether it runs or not.
    rig.passes(&mut host, &define(3, &xml("acme-1", Some(1), 99, 64)));
    rig.passes(&mut host, &define(4, &xml("acme-2", Some(2), 99, 64)));
    host.domains.retain(|domain| domain.name != "acme-2");
    let more = define(5, &xml("acme-4", None, 1, 64));
    rig.passes(&mut host, &more);
    rig.still_serves();
}

#[test]
fn what_runs_counts_when_it_is_started_or_made_running() {
    let mut rig = under("running: 2");
    let mut host = host();
    let (first, second) = (host.domains[0].clone(), host.domains[1].clone());
    rig.passes(&mut host, &start(1, &second));
    let create = |serial| {
        call(remote::DOMAIN_CREATE_XML, serial, |writer| {
            writer.string(&xml("acme-7", None, 1, 64)).u32(0);
        })
    };
    rig.passes(&mut host, &create(2));
    host.domains.push(Domain::on("acme-3", 3));
    let text = "quota of acme: running domains: limit 2, in use 2, this call adds 1";
    rig.exceeds(&mut host, &start(3, &second), text);
    rig.exceeds(&mut host, &create(4), text);
    // It runs already.
    rig.passes(&mut host, &start(5, &first));
    // To define one starts none.
    rig.passes(&mut host, &define(6, &xml("acme-7", None, 1, 64)));
}

#[test]
fn cpus_and_memory_count_as_they_run_and_as_they_are_defined() {
    let mut rig = under("vcpus: 8, memory: 1GiB");
    let mut host = host();
    // Runs with more CPUs, and is defined with more memory: 4 and 256 MiB.
    host.domains[0].running = Some((4, 64));
    host.domains[0].defined = (1, 256);
    // With the other 5 and 320.
    rig.passes(&mut host, &define(1, &xml("acme-3", None, 3, 704)));
    let text = "quota of acme: virtual CPUs: limit 8, in use 5, this call adds 4";
    rig.exceeds(&mut host, &define(2, &xml("acme-3", None, 4, 64)), text);
    let text = "quota of acme: memory: limit 1 GiB, in use 320 MiB, this call adds 705 MiB";
    rig.exceeds(&mut host, &define(3, &xml("acme-3", None, 3, 705)), text);
    // A definition in place of another counts the difference, but what runs stays.
    rig.passes(&mut host, &define(4, &xml("acme-1", Some(1), 7, 960)));
    let text = "quota of acme: virtual CPUs: limit 8, in use 5, this call adds 4";
    rig.exceeds(&mut host, &define(5, &xml("acme-1", Some(1), 8, 1)), text);
    rig.passes(&mut host, &define(6, &xml("acme-1", Some(1), 1, 1)));
}

#[test]
fn what_is_over_its_limit_may_stay_and_shrink() {
    let mut rig = under("vcpus: 2, domains: 1");
    let mut host = host();
    host.domains[1].defined = (8, 64);
    rig.passes(&mut host, &define(1, &xml("acme-2", Some(2), 8, 64)));
    rig.passes(&mut host, &define(2, &xml("acme-2", Some(2), 4, 64)));
    let text = "quota of acme: virtual CPUs: limit 2, in use 9, this call adds 1";
    rig.exceeds(&mut host, &define(3, &xml("acme-2", Some(2), 9, 64)), text);
    let text = "quota of acme: domains: limit 1, in use 2, this call adds 1";
    rig.exceeds(&mut host, &define(4, &xml("acme-3", None, 0, 64)), text);
}

#[test]
fn more_cpus_and_memory_count_whatever_the_call() {
    use remote::{
        DOMAIN_SET_MAX_MEMORY, DOMAIN_SET_MEMORY, DOMAIN_SET_MEMORY_FLAGS, DOMAIN_SET_VCPUS,
        DOMAIN_SET_VCPUS_FLAGS,
    };
    let mut rig = under("vcpus: 4, memory: 200MiB");
    let mut host = host();
    let domain = host.domains[0].clone();
    let mut serial = 1;
    let mut next = || {
        serial += 1;
        serial
    };
    for procedure in [DOMAIN_SET_VCPUS, DOMAIN_SET_VCPUS_FLAGS] {
        rig.passes(&mut host, &grow(next(), procedure, &domain, 3));
        let text = "quota of acme: virtual CPUs: limit 4, in use 2, this call adds 3";
        rig.exceeds(&mut host, &grow(next(), procedure, &domain, 4), text);
    }
    for procedure in [
        DOMAIN_SET_MEMORY,
        DOMAIN_SET_MEMORY_FLAGS,
        DOMAIN_SET_MAX_MEMORY,
    ] {
        rig.passes(&mut host, &grow(next(), procedure, &domain, 136 << 10));
        let text = "quota of acme: memory: limit 200 MiB, in use 128 MiB, this call adds 73 MiB";
        rig.exceeds(
            &mut host,
            &grow(next(), procedure, &domain, 137 << 10),
            text,
        );
    }
    for flags in [None, Some(3)] {
        let procedure = match flags {
            None => remote::DOMAIN_ATTACH_DEVICE,
            Some(_) => remote::DOMAIN_ATTACH_DEVICE_FLAGS,
        };
        let attach = |serial, mib: u64| {
            call(procedure, serial, |writer| {
                domain.object().encode(writer);
                writer.string(&format!(
                    "<memory><target><size unit='MiB'>{mib}</size></target></memory>"
                ));
                if let Some(flags) = flags {
                    writer.u32(flags);
                }
            })
        };
        rig.passes(&mut host, &attach(next(), 72));
        let text = "quota of acme: memory: limit 200 MiB, in use 128 MiB, this call adds 73 MiB";
        rig.exceeds(&mut host, &attach(next(), 73), text);
    }
}

#[test]
fn what_does_not_count_waits_for_no_turn() {
    let mut rig = under("vcpus: 0, memory: 1B");
    let mut host = host();
    let domain = host.domains[0].object();
    let device = |writer: &mut Writer<'_>| {
        domain.encode(writer);
        writer.string("<interface><mac address='52:54:00:00:00:01'/></interface>");
    };
    let suspend = |writer: &mut Writer<'_>| domain.encode(writer);
    let calls = [
        call(remote::DOMAIN_ATTACH_DEVICE, 1, device),
        call(remote::DOMAIN_SUSPEND, 2, suspend),
        call(remote::DOMAIN_DESTROY, 3, suspend),
        call(remote::DOMAIN_UNDEFINE, 4, suspend),
    ];
    for call in calls {
        rig.client_sends(&call);
        assert_eq!(host.serve(&mut rig), [call]);
        assert_eq!(rig.asked, []);
    }
    assert_eq!(host.times(remote::CONNECT_LIST_ALL_DOMAINS), 0);
}

#[test]
fn a_domain_that_goes_on_from_its_image_counts_with_what_is_in_it() {
    let mut rig = under("vcpus: 4");
    let mut host = host();
    let second = host.domains[1].clone();
    host.domains[1].saved = Some((3, 64));
    rig.passes(&mut host, &start(1, &second));
    host.domains[1].saved = Some((4, 64));
    let text = "quota of acme: virtual CPUs: limit 4, in use 2, this call adds 3";
    rig.exceeds(&mut host, &start(2, &second), text);
    // VIR_DOMAIN_START_FORCE_BOOT
    let boot = call(remote::DOMAIN_CREATE_WITH_FLAGS, 3, |writer| {
        host.domains[1].object().encode(writer);
        writer.u32(16);
    });
    rig.passes(&mut host, &boot);
    host.broken.push(remote::DOMAIN_MANAGED_SAVE_GET_XML_DESC);
    let text =
        "quota of acme cannot be counted: the daemon does not tell what is in the saved image";
    rig.exceeds(&mut host, &start(4, &second), text);
}

#[test]
fn a_domain_is_restored_with_what_the_file_says() {
    let mut rig = under("running: 2, vcpus: 4");
    let mut host = host();
    let restore = |serial| {
        call(remote::DOMAIN_RESTORE_FLAGS, serial, |writer| {
            writer.string("/saved").optional_string(None).u32(0);
        })
    };
    host.image = xml("acme-2", Some(2), 3, 64);
    // It goes on with what was counted.
    let end = rig.tries(&mut host, &restore(1), Claims::default());
    assert!(matches!(end, End::Relayed(_)), "{end:?}");
    host.image = xml("acme-2", Some(2), 4, 64);
    let text = "quota of acme: virtual CPUs: limit 4, in use 2, this call adds 3";
    rig.exceeds(&mut host, &restore(2), text);
    // Another document in place of the file's does not hide what is in that.
    let with_xml = call(remote::DOMAIN_RESTORE_FLAGS, 3, |writer| {
        writer.string("/saved");
        writer
            .optional_string(Some(&xml("acme-2", Some(2), 1, 1)))
            .u32(0);
    });
    rig.exceeds(&mut host, &with_xml, text);
    host.domains.push(Domain::on("acme-3", 3));
    host.image = xml("acme-2", Some(2), 1, 64);
    let text = "quota of acme: running domains: limit 2, in use 2, this call adds 1";
    rig.exceeds(&mut host, &restore(4), text);
}

#[test]
fn a_file_that_the_daemon_does_not_tell_of_is_not_restored() {
    let mut rig = Rig::start();
    rig.router.access = table("running: 9", "", EVERYTHING);
    rig.open();
    let mut host = host();
    host.broken.push(remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC);
    let restore = call(remote::DOMAIN_RESTORE, 1, |writer| {
        _ = writer.string("/saved")
    });
    rig.client_sends(&restore);
    // The daemon is asked to restore a file that does not exist.
    let relayed = host.serve(&mut rig);
    assert_eq!(relayed.len(), 1);
    assert_eq!(relayed[0].header, restore.header);
    assert_ne!(relayed[0].payload, restore.payload);
}

#[test]
fn a_snapshot_that_runs_again_counts_as_running() {
    let mut rig = under("running: 1, vcpus: 4");
    let mut host = host();
    let domain = host.domains[1].clone();
    let revert = |serial, flags| {
        call(remote::DOMAIN_REVERT_TO_SNAPSHOT, serial, |writer| {
            writer.string("s1");
            domain.object().encode(writer);
            writer.u32(flags);
        })
    };
    let snapshot = |state: &str, vcpus| {
        let domain = xml("acme-2", Some(2), vcpus, 64);
        format!("<domainsnapshot><state>{state}</state>{domain}</domainsnapshot>")
    };
    host.snapshot = snapshot("shutoff", 3);
    rig.passes(&mut host, &revert(1, 0));
    let running = "quota of acme: running domains: limit 1, in use 1, this call adds 1";
    rig.exceeds(&mut host, &revert(2, 1), running);
    rig.exceeds(&mut host, &revert(3, 2), running);
    host.snapshot = snapshot("shutoff", 4);
    let text = "quota of acme: virtual CPUs: limit 4, in use 2, this call adds 3";
    rig.exceeds(&mut host, &revert(4, 0), text);
    host.snapshot = snapshot("running", 1);
    rig.exceeds(&mut host, &revert(5, 0), running);
    host.broken.push(remote::DOMAIN_SNAPSHOT_GET_XML_DESC);
    let text = "quota of acme cannot be counted: the daemon does not tell what is in the snapshot";
    rig.exceeds(&mut host, &revert(6, 0), text);
}

#[test]
fn a_domain_that_comes_by_migration_counts_as_running() {
    let mut rig = under("running: 2, memory: 1GiB");
    let mut host = host();
    let prepare = |serial, mib| {
        call(remote::DOMAIN_MIGRATE_PREPARE3, serial, |writer| {
            writer.opaque(b"").optional_string(Some("tcp://a")).u64(0);
            writer.optional_string(Some("acme-8")).u64(0);
            writer.string(&xml("other", Some(8), 1, mib));
        })
    };
    rig.passes(&mut host, &prepare(1, 64));
    let text = "quota of acme: memory: limit 1 GiB, in use 128 MiB, this call adds 1 GiB";
    rig.exceeds(&mut host, &prepare(2, 1024), text);
    host.domains.push(Domain::on("acme-8", 8));
    // It is there when it is finished, and more comes in its cookie only if there is room.
    let finish = |serial, mib| {
        let domain = xml("acme-8", Some(8), 1, mib);
        let cookie = format!("<qemu-migration>{domain}</qemu-migration>\0");
        call(remote::DOMAIN_MIGRATE_FINISH3, serial, |writer| {
            writer.string("acme-8").opaque(cookie.as_bytes());
            writer
                .optional_string(None)
                .optional_string(None)
                .u64(0)
                .i32(0);
        })
    };
    rig.passes(&mut host, &finish(3, 64));
    let text = "quota of acme: memory: limit 1 GiB, in use 192 MiB, this call adds 960 MiB";
    rig.exceeds(&mut host, &finish(4, 1024), text);
    // The first form says nothing of the domain.
    let old = call(remote::DOMAIN_MIGRATE_PREPARE, 5, |writer| {
        writer.optional_string(None).u64(0);
        writer.optional_string(Some("acme-8")).u64(0);
    });
    let text = "quota of acme cannot be counted: it does not say what the domain is";
    rig.exceeds(&mut host, &old, text);
}

#[test]
fn a_new_name_that_counts_is_counted() {
    let mut rig = Rig::start();
    let lab = "  - { who: lab, allow: ['*'], on: { domain: { name: 'lab-*' } } }\n";
    rig.router.access = table("vcpus: 4", "", &format!("{RULES}{lab}"));
    rig.open();
    let mut host = host();
    host.domains.push(Domain {
        defined: (3, 64),
        ..Domain::off("lab-1", 5)
    });
    let rename = |serial| {
        call(remote::DOMAIN_RENAME, serial, |writer| {
            host_domain("lab-1", 5).encode(writer);
            writer.optional_string(Some("acme-5")).u32(0);
        })
    };
    let text = "quota of acme: virtual CPUs: limit 4, in use 2, this call adds 3";
    rig.exceeds(&mut host, &rename(1), text);
    host.domains[3].defined = (2, 64);
    rig.passes(&mut host, &rename(2));
    host.domains[3].running = Some((2, 64));
    rig.router.generation += 1;
    rig.router.access = table("running: 1", "", &format!("{RULES}{lab}"));
    let text = "quota of acme: running domains: limit 1, in use 1, this call adds 1";
    rig.exceeds(&mut host, &rename(3), text);
}

fn host_domain(name: &'static str, number: u8) -> Object<'static> {
    Domain::off(name, number).object()
}

#[test]
fn volumes_count_by_their_capacity_in_the_pools_of_a_name() {
    let mut rig = under("volumes: { acme: 200B, 'acme*': 210B }");
    let mut host = host();
    let create = |serial, capacity: &str| {
        call(remote::STORAGE_VOL_CREATE_XML, serial, |writer| {
            Object::StoragePool {
                name: "acme",
                uuid: uuid(1),
            }
            .encode(writer);
            writer
                .string(&format!("<volume><name>n</name>{capacity}</volume>"))
                .u32(0);
        })
    };
    rig.passes(&mut host, &create(1, "<capacity>50</capacity>"));
    let text = "quota of acme: volumes in pool acme: limit 200 bytes, in use 150 bytes, \
                this call adds 51 bytes";
    rig.exceeds(&mut host, &create(2, "<capacity>51</capacity>"), text);
    let both = "<capacity>1</capacity><allocation>51</allocation>";
    rig.exceeds(&mut host, &create(3, both), text);
    let text = "quota of acme cannot be counted: the volume's XML says no capacity";
    rig.exceeds(&mut host, &create(4, ""), text);
    host.pools[1].2.push(("c", 10));
    let text = "quota of acme: volumes in pool acme*: limit 210 bytes, in use 167 bytes, \
                this call adds 44 bytes";
    rig.exceeds(&mut host, &create(5, "<capacity>44</capacity>"), text);
    host.broken.push(remote::STORAGE_POOL_LIST_ALL_VOLUMES);
    let text = "quota of acme cannot be counted: the daemon does not tell the volumes of pool acme";
    rig.exceeds(&mut host, &create(6, "<capacity>1</capacity>"), text);
}

#[test]
fn the_pool_that_counts_is_that_of_the_uuid() {
    let mut rig = under("volumes: { acme: 200B }");
    let mut host = host();
    // A driver that goes by names must not find another pool than the one that was counted.
    let create = call(remote::STORAGE_VOL_CREATE_XML, 1, |writer| {
        Object::StoragePool {
            name: "acme-more",
            uuid: uuid(1),
        }
        .encode(writer);
        writer
            .string("<volume><name>n</name><capacity>50</capacity></volume>")
            .u32(0);
    });
    let End::Relayed(relayed) = rig.tries(&mut host, &create, Claims::default()) else {
        panic!("refused");
    };
    assert_eq!(Reader::new(&relayed.payload).string(99), Ok("acme"));
}

#[test]
fn a_copy_is_as_big_as_what_is_copied() {
    let mut rig = under("volumes: { acme: 200B }");
    let mut host = host();
    let copy = |serial, source: Object<'static>, capacity: &str| {
        call(remote::STORAGE_VOL_CREATE_XML_FROM, serial, |writer| {
            Object::StoragePool {
                name: "acme",
                uuid: uuid(1),
            }
            .encode(writer);
            writer.string(&format!("<volume><name>n</name>{capacity}</volume>"));
            source.encode(writer);
            writer.u32(0);
        })
    };
    rig.passes(&mut host, &copy(1, volume("acme", "acme-1"), ""));
    let text = "quota of acme: volumes in pool acme: limit 200 bytes, in use 150 bytes, \
                this call adds 100 bytes";
    rig.exceeds(
        &mut host,
        &copy(2, volume("acme", "a"), "<capacity>1</capacity>"),
        text,
    );
    let bigger = copy(3, volume("acme-more", "b"), "<capacity>51</capacity>");
    let text = "quota of acme: volumes in pool acme: limit 200 bytes, in use 150 bytes, \
                this call adds 51 bytes";
    rig.exceeds(&mut host, &bigger, text);
    let text = "quota of acme cannot be counted: what is copied is not there";
    rig.exceeds(&mut host, &copy(4, volume("acme", "gone"), ""), text);
}

#[test]
fn volumes_that_grow_count_and_those_that_shrink_do_not() {
    let mut rig = under("volumes: { acme: 200B }");
    let mut host = host();
    let resize = |serial, capacity, flags| {
        call(remote::STORAGE_VOL_RESIZE, serial, |writer| {
            volume("acme", "a").encode(writer);
            writer.u64(capacity).u32(flags);
        })
    };
    let text = "quota of acme: volumes in pool acme: limit 200 bytes, in use 150 bytes, \
                this call adds 51 bytes";
    rig.passes(&mut host, &resize(1, 150, 0));
    rig.exceeds(&mut host, &resize(2, 151, 0), text);
    // VIR_STORAGE_VOL_RESIZE_DELTA, and with _SHRINK.
    rig.passes(&mut host, &resize(3, 50, 2));
    rig.exceeds(&mut host, &resize(4, 51, 2), text);
    let smaller = resize(5, 51, 2 | 4);
    rig.client_sends(&smaller);
    assert_eq!(host.serve(&mut rig), [smaller]);
    assert_eq!(rig.asked, []);
}

#[test]
fn a_volume_counts_that_grows_as_the_disk_of_a_domain() {
    let mut rig = under("volumes: { acme: 2KiB }");
    let mut host = host();
    let resize = |serial, domain: &Domain, disk: &str, size, flags| {
        call(remote::DOMAIN_BLOCK_RESIZE, serial, |writer| {
            domain.object().encode(writer);
            writer.string(disk).u64(size).u32(flags);
        })
    };
    let [one, two, ..] = &host.domains[..] else {
        panic!("too few domains");
    };
    let (one, two) = (one.clone(), two.clone());
    // 100 of another volume, and 50 of this one's that go.
    let text = "quota of acme: volumes in pool acme: limit 2 KiB, in use 150 bytes, \
                this call adds 1998 bytes";
    for disk in ["vda", "/pool/acme-1"] {
        rig.passes(&mut host, &resize(1, &one, disk, 1948, 1));
        rig.passes(&mut host, &resize(2, &one, disk, 1, 0));
        rig.exceeds(&mut host, &resize(3, &one, disk, 2, 0), text);
    }
    // On no volume, or there is no such disk.
    for disk in ["vda", "vdz"] {
        let call = resize(4, &two, disk, 99, 0);
        let turn = rig.comes_to_count(&mut host, &call);
        rig.gets_turn(turn, Claims::default());
        assert_eq!(host.serve(&mut rig), std::slice::from_ref(&call));
        rig.releases(turn, true);
        rig.delivers(&call.reply(|_| ()));
    }
}

#[test]
fn an_upload_stays_within_the_volume() {
    let mut rig = under("volumes: { acme: 1KiB }");
    let mut host = host();
    let upload = |serial, offset, length| {
        call(remote::STORAGE_VOL_UPLOAD, serial, |writer| {
            volume("acme", "a").encode(writer);
            writer.u64(offset).u64(length).u32(0);
        })
    };
    let good = upload(1, 40, 60);
    rig.client_sends(&good);
    assert_eq!(host.serve(&mut rig), [good]);
    // Of no given length: to the end.
    rig.client_sends(&upload(2, 40, 0));
    assert_eq!(host.serve(&mut rig), [upload(2, 40, 60)]);
    for bad in [upload(3, 40, 61), upload(3, 100, 0), upload(3, u64::MAX, 2)] {
        rig.client_sends(&bad);
        host.serve(&mut rig);
        let (code, text) = rig.client_gets_fault(&bad);
        assert_eq!(code, 88);
        assert!(text.contains("capacity of 100 bytes"), "{text}");
    }
    rig.asked
        .retain(|action| !matches!(action, Action::Audit(_)));
    assert_eq!(rig.asked, []);
}

#[test]
fn what_others_claim_counts_once() {
    let mut rig = under("running: 2, domains: 3");
    let mut host = host();
    let second = host.domains[1].clone();
    // Another starts the very same.
    let end = rig.tries(&mut host, &start(1, &second), domain_claim(2, 1, 0));
    assert_eq!(end, End::Relayed(start(1, &second)));
    // Another starts a third, which is not there yet.
    let end = rig.tries(&mut host, &start(2, &second), domain_claim(3, 1, 0));
    let text = "quota of acme: running domains: limit 2, in use 2, this call adds 1";
    assert_eq!(end, End::Refused(text.to_owned()));
    let more = define(3, &xml("acme-4", None, 1, 1));
    let end = rig.tries(&mut host, &more, domain_claim(3, 1, 0));
    let text = "quota of acme: domains: limit 3, in use 3, this call adds 1";
    assert_eq!(end, End::Refused(text.to_owned()));
    // It is there by now.
    host.domains.push(Domain::off("acme-3", 3));
    let again = define(4, &xml("acme-3", Some(3), 1, 1));
    let end = rig.tries(&mut host, &again, domain_claim(3, 0, 0));
    assert_eq!(end, End::Relayed(again));
}

#[test]
fn what_a_call_makes_is_claimed_until_it_is_answered() {
    let mut rig = under("domains: 9, vcpus: 9, memory: 1GiB");
    let mut host = host();
    let call = define(1, &xml("acme-4", None, 2, 3));
    let turn = rig.comes_to_count(&mut host, &call);
    rig.gets_turn(turn, Claims::default());
    assert_eq!(host.serve(&mut rig), std::slice::from_ref(&call));
    let mut expected = Claims::default();
    expected.add(Claim {
        thing: Thing::Domain {
            uuid: None,
            name: Some("acme-4".into()),
        },
        amount: Amount {
            domains: 1,
            vcpus: 2,
            memory: 3 << 20,
            ..Amount::default()
        },
    });
    assert_eq!(rig.claims(turn), [("acme".into(), expected)]);
    assert_eq!(rig.asked, []);
    rig.delivers(&call.reply(|writer| host_domain("acme-4", 4).encode(writer)));
    rig.releases(turn, true);
}

#[test]
fn what_was_told_before_the_turn_is_asked_anew() {
    let mut rig = under("domains: 2");
    let mut host = host();
    host.domains.pop();
    host.domains.pop();
    let call = define(1, &xml("acme-4", Some(4), 1, 1));
    let turn = rig.comes_to_count(&mut host, &call);
    // Another was quicker.
    host.domains.push(Domain::off("acme-2", 2));
    rig.gets_turn(turn, Claims::default());
    host.serve(&mut rig);
    let (code, _) = rig.client_gets_fault(&call);
    assert_eq!(code, 88);
    rig.releases(turn, true);
}

/// A call waits for its turn, with room for it.
#[track_caller]
fn waiting() -> (Rig, Host, Msg, TurnId) {
    let (mut rig, mut host) = (under("domains: 9"), host());
    let call = define(1, &xml("acme-4", None, 1, 1));
    let turn = rig.comes_to_count(&mut host, &call);
    (rig, host, call, turn)
}

#[test]
fn a_turn_that_does_not_come_ends_in_an_error() {
    let (mut rig, mut host, call, turn) = waiting();
    rig.session.handle_timeout(rig.now + 29 * SECOND);
    rig.pump();
    assert_eq!(rig.asked, []);
    rig.inbox.clear();
    rig.session.handle_timeout(rig.now + 31 * SECOND);
    rig.pump();
    let (code, text) = rig.client_gets_fault(&call);
    assert_eq!(code, 68);
    assert!(text.contains("same quota"), "{text}");
    rig.releases(turn, true);
    // It comes too late.
    rig.gets_turn(turn, Claims::default());
    assert_eq!(host.serve(&mut rig), []);
    rig.releases(turn, true);
}

#[test]
fn a_daemon_that_does_not_answer_keeps_no_turn() {
    let (mut rig, _, call, turn) = waiting();
    rig.gets_turn(turn, Claims::default());
    rig.session.handle_timeout(rig.now + 31 * SECOND);
    rig.pump();
    let (code, _) = rig.client_gets_fault(&call);
    assert_eq!(code, 68);
    rig.releases(turn, true);
}

#[test]
fn a_daemon_that_dies_gives_back_turns_and_leaves_claims() {
    let mut rig = under("domains: 9");
    let mut host = host();
    let calls: Vec<Msg> = (1..=3)
        .map(|serial| define(serial, &xml(&format!("acme-4{serial}"), None, 1, 1)))
        .collect();
    let mut turns = Vec::new();
    for call in &calls {
        turns.push(rig.comes_to_count(&mut host, call));
    }
    rig.gets_turn(turns[0], Claims::default());
    assert_eq!(host.serve(&mut rig), [calls[0].clone()]);
    rig.claims(turns[0]);
    rig.gets_turn(turns[1], Claims::default());
    rig.daemon_dies();
    let mut answered: Vec<_> = rig.inbox.drain(..).map(|msg| msg.header.serial.0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
    // The first may have been carried out; the second had its turn, the third waited.
    let released: Vec<_> = rig.asked.drain(..).collect();
    for (turn, is_known) in [(turns[0], false), (turns[1], true), (turns[2], true)] {
        assert!(
            released.contains(&Action::Release { turn, is_known }),
            "{released:?}"
        );
    }
    assert_eq!(released.len(), 3);
}

#[test]
fn a_policy_that_changes_meanwhile_counts_from_then_on() {
    let (mut rig, mut host, call, turn) = waiting();
    rig.router.generation += 1;
    rig.router.access = table("domains: 2", "", RULES);
    rig.gets_turn(turn, Claims::default());
    host.serve(&mut rig);
    let (code, text) = rig.client_gets_fault(&call);
    assert_eq!(code, 88);
    assert!(text.contains("domains: limit 2, in use 2"), "{text}");
    rig.releases(turn, true);
}

#[test]
fn a_policy_without_the_quota_lets_the_call_go_on_at_once() {
    let (mut rig, mut host, call, turn) = waiting();
    rig.router.generation += 1;
    rig.router.access = table("volumes: { acme: 1B }", "", RULES);
    rig.gets_turn(turn, Claims::default());
    assert_eq!(host.serve(&mut rig), [call]);
    rig.releases(turn, true);
}

#[test]
fn in_shadow_what_is_beyond_a_quota_is_recorded_and_goes_on() {
    let mut rig = Rig::start();
    rig.router.access = table("domains: 2", "  mode: shadow\n", RULES);
    rig.open();
    let mut host = host();
    let call = define(1, &xml("acme-4", None, 1, 1));
    rig.client_sends(&call);
    assert_eq!(host.serve(&mut rig), [call]);
    let records: Vec<_> = rig.asked.drain(..).collect();
    let [Action::Audit(record)] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        record.verdict,
        crate::session::access::refusal::Verdict::Shadow
    );
    let text = "quota of acme: domains: limit 2, in use 2, this call adds 1";
    assert_eq!(record.reason, text);
}

#[test]
fn what_the_daemon_does_not_tell_is_not_counted_and_refused() {
    let mut rig = under("domains: 99");
    let mut host = host();
    host.broken.push(remote::CONNECT_LIST_ALL_DOMAINS);
    let call = define(1, &xml("acme-4", None, 1, 1));
    let text = "quota of acme cannot be counted: the daemon does not tell its domains";
    rig.exceeds(&mut host, &call, text);
    let mut rig = under("vcpus: 99");
    let mut host = self::host();
    host.broken.push(remote::DOMAIN_GET_XML_DESC);
    let end = rig.tries(&mut host, &call, Claims::default());
    let End::Refused(text) = end else {
        panic!("{end:?}");
    };
    // Of those that count; not of another's.
    assert!(
        text.contains("does not tell the size of domain acme-"),
        "{text}"
    );
}

#[test]
fn a_call_with_descriptors_waits_in_the_inbox() {
    let mut rig = under("running: 1");
    let mut host = host();
    let create = call(remote::DOMAIN_CREATE_WITH_FILES, 1, |writer| {
        host.domains[1].object().encode(writer);
        writer.u32(0);
    })
    .with_descriptors(1);
    let turn = rig.comes_to_count(&mut host, &create);
    assert_eq!(rig.sent.len(), 1);
    rig.gets_turn(turn, Claims::default());
    host.serve(&mut rig);
    let (code, text) = rig.client_gets_fault(&create);
    assert_eq!(code, 88);
    assert!(
        text.contains("running domains: limit 1, in use 1"),
        "{text}"
    );
    rig.releases(turn, true);
    assert_eq!(rig.sent.len(), 0);
    // And with room for it.
    host.domains[0].running = None;
    let create = create.with(|header| header.serial = Serial(2));
    let turn = rig.comes_to_count(&mut host, &create);
    rig.gets_turn(turn, Claims::default());
    assert_eq!(host.serve(&mut rig), [create]);
    rig.claims(turn);
}
