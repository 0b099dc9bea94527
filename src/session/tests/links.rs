//! Several daemons behind one client: each call goes to its own, which is opened when it is needed,
//! and none stands or falls with another.

use super::*;

pub(super) const NETWORKS: Procedure = remote::CONNECT_NUM_OF_NETWORKS;
pub(super) const POOLS: Procedure = remote::CONNECT_NUM_OF_STORAGE_POOLS;
pub(super) const VERSION_OF: Procedure = remote::CONNECT_GET_VERSION;

const SYSTEM_ERROR: i32 = 38;

/// A client whose networks, pools and secrets have daemons of their own.
pub(super) fn with(change: impl FnOnce(&mut Options)) -> Rig {
    let served = |driver: Driver| (driver, upstream(driver.scheme()), false);
    let mut options = Options {
        drivers: [Driver::Network, Driver::Storage, Driver::Secret]
            .map(served)
            .into(),
        ..Options::default()
    };
    change(&mut options);
    options.open()
}

fn several() -> Rig {
    with(|_| ())
}

fn fall_back(options: &mut Options) {
    for (_, _, fallback) in &mut options.drivers {
        *fallback = true;
    }
}

#[test]
fn a_call_of_each_driver_goes_to_its_daemon() {
    let mut rig = several();
    let calls = [
        ("network", NETWORKS),
        ("storage", POOLS),
        ("secret", remote::CONNECT_NUM_OF_SECRETS),
    ];
    for (serial, (name, procedure)) in (1..).zip(calls) {
        let call = call(procedure, serial);
        rig.client_sends(&call);
        assert_eq!(rig.at(name).opens(), format!("{name}:///system"));
        assert_eq!(rig.at(name).gets(), call);
        rig.at(name).delivers(&call.reply(|_| ()));
        rig.at(name).serves(&Msg::new(
            Header::remote_call(procedure, Serial(serial + 10)),
            |_| (),
        ));
    }
    let rest = [
        VERSION_OF,
        remote::NODE_NUM_OF_DEVICES,
        remote::CONNECT_NUM_OF_INTERFACES,
        remote::CONNECT_NUM_OF_NWFILTERS,
        Procedure(9999),
    ];
    for (serial, procedure) in (30..).zip(rest) {
        rig.at("qemu").serves(&call(procedure, serial));
    }
    assert_eq!(rig.dialled.len(), 4);
}

#[test]
fn a_long_refusal_is_not_repeated_for_every_call() {
    let mut rig = several();
    for serial in 1..100 {
        rig.client_sends(&call(NETWORKS, serial));
    }
    let mut network = rig.at("network");
    network.accepts(true);
    network.says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(0));
    network.says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| _ = writer.i32(1));
    network.says_no(remote::CONNECT_OPEN, &"no ".repeat(1 << 18));
    for serial in 1..100 {
        let (_, text) = rig.client_gets_fault(&call(NETWORKS, serial));
        assert!(
            text.contains("'network': no no no") && text.len() < 2048,
            "{text}"
        );
    }
}

#[test]
fn a_read_only_client_is_so_everywhere() {
    let mut rig = Options {
        drivers: vec![(Driver::Network, upstream("network"), false)],
        ..Options::default()
    }
    .start();
    rig.client_sends(&connect_open(0, Some("good:///"), 1));
    rig.daemon_opens();
    rig.client_gets();
    rig.client_sends(&call(NETWORKS, 1));
    let mut network = rig.at("network");
    assert!(network.is_readonly());
    network.accepts(true);
    network.says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(0));
    network.says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| _ = writer.i32(1));
    let open = network.says_yes(remote::CONNECT_OPEN, |_| ());
    assert_eq!(ConnectOpen::decode(&open.payload).unwrap().flags, 1);
    let identity = network.says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert!(String::from_utf8_lossy(&identity.payload).contains("ann"));
    assert_eq!(network.gets().header.procedure, NETWORKS);
}

#[test]
fn drivers_that_are_opened_alike_share_a_connection() {
    let mut rig = with(|options| {
        options.drivers = vec![
            (Driver::Network, upstream("many"), false),
            (Driver::Storage, upstream("many"), false),
        ];
    });
    let (network, pool) = (call(NETWORKS, 1), call(POOLS, 2));
    rig.client_sends(&network);
    assert_eq!(rig.at("many").opens(), "network:///system");
    rig.client_sends(&pool);
    // Their URIs differ.
    assert_eq!(rig.at("many").opens(), "storage:///system");
    assert_eq!(rig.dials("many"), 2);

    let mut rig = Options {
        drivers: vec![
            (Driver::Network, upstream("many"), false),
            (Driver::Storage, upstream("many"), false),
        ],
        ..Options::default()
    }
    .start();
    rig.open_all_as("test:///default");
    rig.client_sends(&network);
    assert_eq!(rig.at("many").opens(), "test:///default");
    rig.client_sends(&pool);
    assert_eq!(rig.dials("many"), 1);
    assert_eq!(rig.at("many").gets(), network);
    assert_eq!(rig.at("many").gets(), pool);
}

#[test]
fn calls_wait_in_order_while_their_daemon_opens_and_the_rest_goes_on() {
    let mut rig = several();
    let waiting: Vec<Msg> = (1..5).map(|serial| call(NETWORKS, serial)).collect();
    waiting.iter().for_each(|call| rig.client_sends(call));
    rig.at("qemu").serves(&call(VERSION_OF, 9));
    rig.client_gets_nothing();
    rig.at("network").opens();
    for call in &waiting {
        assert_eq!(rig.at("network").gets(), *call);
    }
    assert_eq!(rig.dials("network"), 1);
}

#[test]
fn a_waiting_call_keeps_its_serial() {
    let mut rig = several();
    rig.client_sends(&call(NETWORKS, 1));
    rig.client_sends(&call(VERSION_OF, 1));
    assert_eq!(rig.ends, [End::Abort]);
}

#[test]
fn no_more_than_a_mebibyte_waits_for_a_daemon() {
    let mut rig = several();
    let bulk = |serial| Msg {
        payload: vec![0; 300 << 10],
        ..call(NETWORKS, serial)
    };
    (1..=4).for_each(|serial| rig.client_sends(&bulk(serial)));
    assert_eq!(rig.sent.len(), 1);
    rig.at("network").opens();
    rig.pump();
    assert_eq!(rig.sent.len(), 0);
    for serial in 1..=4 {
        assert_eq!(rig.at("network").gets(), bulk(serial));
    }
}

#[test]
fn ends_of_registrations_count_as_what_waits() {
    let mut rig = several();
    let bulk = |serial| Msg {
        payload: vec![0; 300 << 10],
        ..call(remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY, serial)
    };
    (1..=4).for_each(|serial| rig.client_sends(&bulk(serial)));
    assert_eq!(rig.sent.len(), 1);
}

#[test]
fn a_daemon_that_refuses_to_open_is_quoted_and_asked_again() {
    let mut rig = several();
    let calls = [call(NETWORKS, 1), call(NETWORKS, 2)];
    calls.iter().for_each(|call| rig.client_sends(call));
    let mut network = rig.at("network");
    network.accepts(true);
    network.says_yes(remote::AUTH_LIST, |writer| _ = writer.u32(1).i32(0));
    network.says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| _ = writer.i32(1));
    let refusal = network.says_no(remote::CONNECT_OPEN, "no network driver here");
    assert!(!network.is_open());
    for call in &calls {
        let answer = rig.client_gets();
        assert_eq!(answer.header, call.header.answer(Status::ERROR));
        assert_eq!(answer.payload, refusal.payload);
    }
    rig.client_sends(&call(NETWORKS, 3));
    rig.at("network").opens();
    assert_eq!(rig.at("network").gets(), call(NETWORKS, 3));
}

#[test]
fn a_daemon_that_is_missing_or_hangs_fails_its_own_calls_alone() {
    type Breaks = fn(&mut Rig);
    let breaks: [(Breaks, i32); 4] = [
        (|rig| rig.at("network").is_missing(), SYSTEM_ERROR),
        (|rig| rig.wait(10 * SECOND), 68),
        (
            |rig| {
                rig.at("network").accepts(true);
                rig.at("network").dies();
            },
            SYSTEM_ERROR,
        ),
        (
            |rig| {
                rig.at("network").accepts(true);
                let asked = rig.at("network").gets();
                rig.at("network").says(&asked);
            },
            SYSTEM_ERROR,
        ),
    ];
    for (breaks, code) in breaks {
        let mut rig = several();
        let (broken, other) = (call(NETWORKS, 1), call(VERSION_OF, 2));
        rig.client_sends(&broken);
        rig.at("qemu").relays(&other);
        breaks(&mut rig);
        let (got, text) = rig.client_gets_fault(&broken);
        assert_eq!(got, code, "{text}");
        assert!(text.contains("network"), "{text}");
        assert!(!rig.at("network").is_open());
        rig.client_gets_nothing();
        rig.at("qemu").delivers(&other.reply(|_| ()));
        rig.client_sends(&call(NETWORKS, 3));
        rig.at("network").opens();
        assert_eq!(rig.at("network").gets(), call(NETWORKS, 3));
    }
}

/// Networks and pools are open, with a call to each daemon and a stream of two.
fn busy() -> (Rig, [Msg; 3], [Msg; 2]) {
    let mut rig = several();
    for (serial, name, procedure) in [(100, "network", NETWORKS), (101, "storage", POOLS)] {
        let first = call(procedure, serial);
        rig.client_sends(&first);
        rig.at(name).opens();
        assert_eq!(rig.at(name).gets(), first);
        rig.at(name).delivers(&first.reply(|_| ()));
    }
    let streams = [
        call(remote::DOMAIN_OPEN_CONSOLE, 1),
        call(remote::STORAGE_VOL_UPLOAD, 2),
    ];
    rig.at("qemu").serves(&streams[0]);
    rig.at("storage").serves(&streams[1]);
    let calls = [call(VERSION_OF, 3), call(NETWORKS, 4), call(POOLS, 5)];
    for (name, call) in ["qemu", "network", "storage"].iter().zip(&calls) {
        rig.at(name).relays(call);
    }
    (rig, calls, streams)
}

#[test]
fn a_daemon_that_dies_takes_its_calls_and_streams_and_no_others() {
    let (mut rig, [version, networks, pools], [console, upload]) = busy();
    rig.at("storage").dies();
    let abort = rig.client_gets();
    assert_eq!(abort.header, upload.stream(Status::ERROR, "").header);
    assert_eq!(rig.client_gets_fault(&pools).0, SYSTEM_ERROR);
    rig.client_gets_nothing();

    // What is sent for its stream finds nobody.
    rig.client_sends(&upload.stream(Status::CONTINUE, "late"));
    rig.at("qemu")
        .relays(&console.stream(Status::CONTINUE, "ls\n"));
    rig.at("qemu").delivers(&version.reply(|_| ()));
    rig.at("network").delivers(&networks.reply(|_| ()));
    rig.client_gets_nothing();

    rig.client_sends(&call(POOLS, 6));
    assert_eq!(rig.dials("storage"), 2);
    rig.at("storage").opens();
    assert_eq!(rig.at("storage").gets(), call(POOLS, 6));
}

#[test]
fn what_comes_late_from_a_lost_daemon_reaches_nobody() {
    let (mut rig, [_, _, pools], [_, upload]) = busy();
    let old = rig.at("storage").id();
    rig.at("storage").dies();
    rig.inbox.clear();
    rig.client_sends(&call(POOLS, 5));
    rig.at("storage").opens();
    rig.upstream_sends(old, &pools.reply(|_| ()));
    rig.upstream_sends(old, &upload.stream(Status::CONTINUE, "late"));
    rig.client_gets_nothing();
    let answer = pools.reply(|writer| _ = writer.u32(1));
    assert_eq!(rig.at("storage").gets(), pools);
    rig.at("storage").delivers(&answer);
}

#[test]
fn no_daemon_answers_for_another() {
    let (mut rig, [version, networks, pools], [console, upload]) = busy();
    rig.at("network")
        .says(&console.stream(Status::CONTINUE, "x"));
    rig.at("qemu").says(&upload.stream(Status::ERROR, "x"));
    rig.client_gets_nothing();
    // It answers what it was not asked, and is lost.
    rig.at("network").says(&pools.reply(|_| ()));
    assert_eq!(rig.client_gets_fault(&networks).0, SYSTEM_ERROR);
    rig.at("storage").delivers(&pools.reply(|_| ()));
    rig.at("storage")
        .delivers(&upload.stream(Status::CONTINUE, "x"));
    rig.at("qemu").delivers(&version.reply(|_| ()));
}

#[test]
fn the_primary_takes_all_with_it() {
    let (mut rig, calls, streams) = busy();
    rig.at("qemu").dies();
    assert_eq!(rig.inbox.len(), calls.len() + streams.len());
    assert_eq!(rig.ends, [End::Close]);
    for name in ["qemu", "network", "storage"] {
        assert!(!rig.at(name).is_open());
    }
}

#[test]
fn the_primary_takes_the_place_of_a_daemon_that_is_missing() {
    let mut rig = with(fall_back);
    let end = Msg::new(
        Header::remote_call(remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY, Serial(2)),
        |writer| _ = writer.i32(5),
    );
    let calls = [call(NETWORKS, 1), end, call(NETWORKS, 3)];
    calls.iter().for_each(|call| rig.client_sends(call));
    rig.at("network").is_missing();
    rig.client_gets_nothing();
    for call in &calls {
        assert_eq!(rig.at("qemu").gets(), *call);
        rig.at("qemu").delivers(&call.reply(|_| ()));
    }
    rig.at("qemu").serves(&call(NETWORKS, 4));
    rig.client_sends(&call(POOLS, 5));
    rig.at("storage").opens();
    assert_eq!(rig.at("storage").gets(), call(POOLS, 5));
    assert_eq!(rig.dials("network"), 1);
}

#[test]
fn nobody_takes_the_place_of_a_daemon_that_has_served() {
    let mut rig = with(fall_back);
    rig.client_sends(&call(NETWORKS, 1));
    rig.at("network").opens();
    rig.at("network").dies();
    rig.client_gets_fault(&call(NETWORKS, 1));
    rig.client_sends(&call(NETWORKS, 2));
    rig.at("network").is_missing();
    rig.client_gets_fault(&call(NETWORKS, 2));
    rig.at("qemu").gets_nothing();
}

#[test]
fn descriptors_pass_to_the_daemons_that_take_them() {
    let mut rig = with(|options| {
        options.drivers = vec![(Driver::Network, upstream("network"), false)];
    });
    let open = call(NETWORKS, 1);
    rig.client_sends(&open);
    rig.at("network").opens_carrying(false);
    rig.at("network").gets();
    let fault = rig.refuses(&call(NETWORKS, 2).with_descriptors(1));
    assert!(fault.1.contains("descriptor"), "{}", fault.1);
    rig.at("qemu")
        .relays(&call(VERSION_OF, 3).with_descriptors(1));
    // A reply of the other's that has some is answered by an error, and is not its end.
    rig.at("network")
        .says(&open.reply(|_| ()).with_descriptors(1));
    rig.client_gets_fault(&open);
    rig.at("network").serves(&call(NETWORKS, 4));
}

#[test]
fn a_registration_with_descriptors_goes_on_without_them() {
    let mut rig = Rig::opened();
    let register = Msg::new(
        Header::remote_call(remote::CONNECT_DOMAIN_EVENT_REGISTER_ANY, Serial(1)),
        |writer| _ = writer.i32(1),
    );
    rig.client_sends(&register.clone().with_descriptors(1));
    assert_eq!(rig.daemon_gets(), register);
}

#[test]
fn each_daemon_is_pinged_and_falls_silent_by_itself() {
    let mut rig = several();
    rig.client_sends(&call(NETWORKS, 1));
    rig.wait(4 * SECOND);
    rig.at("network").opens();
    rig.at("network").gets();
    rig.wait(SECOND);
    assert_eq!(rig.at("qemu").gets(), a_ping());
    rig.at("network").gets_nothing();
    for _ in 0..10 {
        rig.at("qemu").says(&a_pong());
        rig.wait(2 * SECOND);
    }
    rig.client_gets_fault(&call(NETWORKS, 1));
    assert!(!rig.at("network").is_open());
    rig.at("qemu").says(&a_ping());
    rig.still_open("qemu");
}

#[test]
fn a_drain_waits_for_every_daemon() {
    let (mut rig, calls, streams) = busy();
    rig.drain();
    assert_eq!(rig.ends, []);
    for ((name, call), _) in ["qemu", "network", "storage"].iter().zip(&calls).zip(0..) {
        rig.at(name).delivers(&call.reply(|_| ()));
    }
    for (name, stream) in ["qemu", "storage"].iter().zip(&streams) {
        assert_eq!(rig.ends, []);
        rig.at(name).delivers(&stream.stream(Status::ERROR, ""));
    }
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_drain_waits_for_a_call_whose_daemon_is_being_opened() {
    let mut rig = several();
    let waiting = call(NETWORKS, 1);
    rig.client_sends(&waiting);
    rig.drain();
    assert_eq!(rig.ends, []);
    rig.at("network").opens();
    assert_eq!(rig.at("network").gets(), waiting);
    rig.at("network").delivers(&waiting.reply(|_| ()));
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_client_that_leaves_gets_what_it_is_owed_by_all() {
    let (mut rig, calls, _) = busy();
    rig.client_ends();
    for (name, call) in ["qemu", "network"].iter().zip(&calls) {
        rig.at(name).delivers(&call.reply(|_| ()));
    }
    rig.at("storage").dies();
    assert_eq!(rig.ends, [End::Close]);
}

impl Rig {
    /// Every daemon is opened under this URI.
    fn open_all_as(&mut self, uri: &str) {
        self.router.share(uri);
        self.open();
    }

    #[track_caller]
    fn still_open(&mut self, name: &str) {
        assert!(self.at(name).is_open());
        assert_eq!(self.ends, []);
    }
}
