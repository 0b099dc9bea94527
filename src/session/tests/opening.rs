//! From the client's first frame to an open connection.

use super::*;
use crate::policy::model::{ClientSasl, Mechanism};

const SYSTEM_ERROR: i32 = 38;

#[test]
fn virsh_opens_a_connection_uses_it_and_closes_it() {
    let mut rig = Rig::start();
    let auth = call(remote::AUTH_LIST, 0);
    rig.client_sends(&auth);
    assert_eq!(rig.client_gets(), auth.reply(|w| _ = w.u32(1).i32(0)));
    let keepalive = feature(1, Feature::KEEPALIVE.0);
    rig.client_sends(&keepalive);
    assert_eq!(rig.client_gets(), keepalive.reply(|w| _ = w.i32(1)));

    let open = connect_open(2, Some("good:///"), 0);
    rig.client_sends(&open);
    assert_eq!(rig.dialled().name, "qemu");
    assert!(!rig.dialled().readonly);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    let upstream_open = rig.daemon_gets();
    assert_eq!(
        upstream_open.payload,
        connect_open(0, Some("qemu:///system"), 0).payload
    );
    rig.daemon_sends(&upstream_open.reply(|_| ()));
    rig.client_gets_nothing();
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert_eq!(rig.client_gets(), open.reply(|_| ()));

    for (serial, number) in [(3, 14), (4, 15)] {
        // The daemon was asked while it was opened.
        let asked = feature(serial, number);
        rig.client_sends(&asked);
        rig.daemon_gets_nothing();
        assert_eq!(rig.client_gets(), asked.reply(|w| _ = w.i32(1)));
    }
    let register = call(remote::CONNECT_REGISTER_CLOSE_CALLBACK, 5);
    rig.relays(&register);
    rig.delivers(&register.reply(|_| ()));
    let work = call(remote::CONNECT_LIST_ALL_DOMAINS, 6);
    rig.relays(&work);
    rig.delivers(&work.reply(|w| _ = w.u32(0).u32(0)));
    let unregister = call(remote::CONNECT_UNREGISTER_CLOSE_CALLBACK, 7);
    rig.relays(&unregister);
    rig.delivers(&unregister.reply(|_| ()));

    rig.answers(&call(remote::CONNECT_CLOSE, 8));
    assert_eq!(rig.ends, [End::Close]);
    assert!(!rig.dialled().open);
    rig.client_gets_nothing();
}

#[test]
fn the_identity_is_what_is_known_of_the_client() {
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    let identity = rig.daemon_gets();
    assert_eq!(identity.header.procedure, remote::CONNECT_SET_IDENTITY);
    let expected = Msg::new(identity.header, |w| {
        w.u32(6);
        w.string("user-name").u32(7).string("ann");
        w.string("unix-user-id").u32(4).u64(1000);
        w.string("group-name").u32(7).string("users");
        w.string("unix-group-id").u32(4).u64(100);
        w.string("process-id").u32(3).i64(7);
        w.string("process-time").u32(4).u64(99);
        w.u32(0);
    });
    assert_eq!(identity, expected);
}

/// Whoever sits on the wire could say that no SASL is needed.
#[test]
fn nothing_is_said_in_the_clear_to_a_daemon_that_sasl_was_to_protect() {
    for auth in [0, 2] {
        let mut options = Options::default();
        let upstream = &mut options.upstreams[0];
        upstream.addresses = vec![Address::Tcp {
            host: "hv2".to_owned(),
            port: 16509,
        }];
        upstream.sasl = Some(Arc::new(ClientSasl {
            mechanisms: vec![Mechanism::Gssapi],
            user: None,
            password_file: None,
        }));
        let mut rig = options.start();
        let open = connect_open(0, Some("good:///"), 0);
        rig.client_sends(&open);
        rig.daemon_accepts();
        rig.daemon_says_auth(auth);
        let (code, text) = rig.client_gets_fault(&open);
        assert_eq!(code, SYSTEM_ERROR);
        assert!(text.contains("the daemon asks for no SASL"), "{text}");
        assert!(!rig.dialled().open);
        rig.daemon_gets_nothing();
    }
}

#[test]
fn a_pid_whose_start_time_is_unknown_is_not_forwarded() {
    let mut options = Options::default();
    options.facts.unix.as_mut().unwrap().start_time = None;
    let mut rig = options.start();
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    let identity = rig.daemon_gets();
    assert_eq!(Reader::new(&identity.payload).u32(), Ok(4));
    let text = String::from_utf8_lossy(&identity.payload).into_owned();
    assert!(!text.contains("process"), "{text}");
}

#[test]
fn a_uri_without_a_route_is_refused_and_a_good_one_still_works() {
    let mut rig = Rig::start();
    let text = "no connection driver available for qemu+tcp://evil/system".to_owned();
    let open = connect_open(0, Some("qemu+tcp://evil/system"), 0);
    assert_eq!(rig.refuses(&open), (5, text));
    assert!(rig.dialled.is_empty());
    rig.open();
    rig.still_serves();
}

#[test]
fn a_uri_of_hostile_length_is_not_looked_up() {
    struct Never;
    impl Router for Never {
        fn route(&self, _: &ClientFacts, uri: &str) -> Routed {
            panic!("looked up {} bytes", uri.len())
        }

        fn may_forward(&self, _: &ClientFacts) -> bool {
            false
        }

        fn generation(&self) -> u64 {
            1
        }

        fn access(&self, _: &ClientFacts) -> Option<Arc<crate::policy::access::Table>> {
            None
        }
    }
    let mut rig = Rig::start();
    let open = connect_open(0, Some(&"x".repeat(60_000)), 0);
    let verdict = rig.session.handle_client(&open.frame(), &Never, rig.now);
    assert_eq!(verdict, Verdict::Consumed);
    rig.carry_out();
    let (code, text) = rig.client_gets_fault(&open);
    assert_eq!(code, 5);
    assert!(text.len() < 5_000);
}

#[test]
fn arguments_that_cannot_be_read_are_refused() {
    let mut rig = Rig::start();
    for payload in [
        &b""[..],
        b"\0\0\0\x01\0\0\0\x09ab",
        b"\0\0\0\x02\0\0\0\0",
        b"\0\0\0\x01\xff\xff\xff\xff",
    ] {
        let open = Msg {
            payload: payload.to_vec(),
            ..call(remote::CONNECT_OPEN, 1)
        };
        assert_eq!(
            rig.refuses(&open),
            (39, "Unable to decode message payload".into())
        );
    }
    rig.open();
}

#[test]
fn a_name_that_two_readers_would_read_differently_is_refused() {
    let mut rig = Rig::start();
    let open = connect_open(1, Some("good:///\0evil:///"), 0);
    assert_eq!(rig.refuses(&open).0, 39);
    assert!(rig.dialled.is_empty());
}

#[test]
fn no_name_and_an_empty_name_both_probe() {
    for name in [None, Some("")] {
        let mut rig = Rig::start();
        let open = connect_open(0, name, 0);
        rig.client_sends(&open);
        rig.daemon_opens();
        assert_eq!(rig.client_gets(), open.reply(|_| ()));
    }
}

fn probing() -> Rig {
    let upstreams = vec![upstream("xen"), upstream("qemu"), upstream("lxc")];
    Options {
        upstreams,
        ..Options::default()
    }
    .start()
}

#[test]
fn a_probe_passes_over_daemons_that_are_not_alive() {
    let mut rig = probing();
    let open = connect_open(0, Some(""), 0);
    rig.client_sends(&open);
    assert_eq!(rig.dialled().name, "xen");
    let dead = rig.daemon();
    let refused = Lost::Unreachable("Connection refused".into());
    rig.session.handle_upstream_lost(dead, &refused, rig.now);
    rig.pump();
    assert_eq!(rig.dialled().name, "qemu");
    assert!(!rig.dialled[&dead.0].open);
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.still_serves();
    assert_eq!(rig.dialled.len(), 2);
}

#[test]
fn a_probe_that_finds_nothing_says_why_the_last_one_failed() {
    let mut rig = probing();
    let open = connect_open(0, None, 0);
    rig.client_sends(&open);
    for name in ["xen", "qemu", "lxc"] {
        rig.client_gets_nothing();
        assert_eq!(rig.dialled().name, name);
        rig.daemon_dies();
    }
    let (code, text) = rig.client_gets_fault(&open);
    assert_eq!(code, SYSTEM_ERROR);
    assert!(text.contains("'lxc'"), "{text}");
    rig.client_gets_nothing();
}

#[test]
fn each_target_has_its_own_time_to_open() {
    let mut rig = probing();
    let open = connect_open(0, None, 0);
    rig.client_sends(&open);
    rig.wait(9 * SECOND);
    assert_eq!(rig.dialled().name, "xen");
    rig.wait(SECOND);
    assert_eq!(rig.dialled().name, "qemu");
    rig.daemon_accepts();
    rig.wait(9 * SECOND);
    rig.daemon_says_auth(0);
    rig.wait(SECOND);
    assert_eq!(rig.dialled().name, "lxc");
    rig.wait(10 * SECOND);
    let (code, text) = rig.client_gets_fault(&open);
    assert_eq!(code, 68);
    assert!(text.contains("lxc"), "{text}");
    assert!(rig.dialled.values().all(|dialled| !dialled.open));
    rig.open();
}

#[test]
fn what_a_target_says_after_it_was_given_up_concerns_nobody() {
    let mut rig = probing();
    let open = connect_open(0, None, 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    let late = rig.daemon();
    let auth = rig.daemon_gets();
    rig.wait(10 * SECOND);
    rig.upstream_sends(late, &auth.reply(|w| _ = w.u32(1).i32(0)));
    rig.upstream_sends(late, &a_ping());
    rig.session.handle_connected(late, true);
    rig.session
        .handle_upstream_lost(late, &Lost::Closed, rig.now);
    rig.pump();
    assert_eq!(rig.dialled().name, "qemu");
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.upstream_sends(late, &auth.reply(|w| _ = w.u32(1).i32(0)));
    rig.session
        .handle_upstream_lost(late, &Lost::Closed, rig.now);
    rig.pump();
    rig.still_serves();
}

#[test]
fn a_refused_open_reaches_the_client_in_the_daemons_own_bytes() {
    let mut rig = Rig::start();
    let open = connect_open(7, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    let refusal = rig.daemon_says_no(remote::CONNECT_OPEN, "internal error: driver is not active");
    let answer = rig.client_gets();
    assert_eq!(answer.header, open.header.answer(Status::ERROR));
    assert_eq!(answer.payload, refusal.payload);
    assert!(!rig.dialled().open);
    rig.open();
    rig.still_serves();
}

#[test]
fn a_refusal_that_cannot_be_read_is_not_passed_on() {
    let mut rig = Rig::start();
    let open = connect_open(7, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    let asked = rig.daemon_gets();
    rig.daemon_sends(&Msg::new(asked.header.answer(Status::ERROR), |w| {
        _ = w.u32(5)
    }));
    assert_eq!(rig.client_gets_fault(&open).0, SYSTEM_ERROR);
}

#[test]
fn a_refusal_of_any_length_costs_the_client_little() {
    let mut rig = Rig::start();
    let open = connect_open(7, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_no(remote::AUTH_LIST, &"x".repeat(1 << 20));
    let (code, text) = rig.client_gets_fault(&open);
    assert_eq!(code, SYSTEM_ERROR);
    assert!(text.len() < 2_000);
}

#[test]
fn a_read_only_listener_forces_a_read_only_connection() {
    for flags in [0, 1, 2] {
        let mut options = Options::default();
        options.facts.readonly = true;
        let mut rig = options.start();
        rig.client_sends(&connect_open(0, Some("good:///"), flags));
        assert!(rig.dialled().readonly);
        rig.daemon_accepts();
        rig.daemon_says_auth(0);
        rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
        let open = rig.daemon_gets();
        assert_eq!(ConnectOpen::decode(&open.payload).unwrap().flags, flags | 1);
    }
}

#[test]
fn a_client_that_asks_for_read_only_gets_it_on_any_listener() {
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(0, Some("good:///"), 1));
    assert!(rig.dialled().readonly);
}

#[test]
fn a_client_that_never_opens_is_cut_off() {
    let mut rig = Rig::start();
    rig.answers(&call(remote::AUTH_LIST, 0));
    rig.wait(59 * SECOND);
    assert_eq!(rig.ends, []);
    rig.wait(SECOND);
    assert_eq!(rig.ends, [End::Abort]);
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn a_client_that_goes_on_failing_to_open_is_closed() {
    let mut rig = Rig::start();
    for serial in 0..OPENS {
        assert_eq!(rig.ends, []);
        let (code, _) = rig.refuses(&connect_open(serial, Some("nowhere:///"), 0));
        assert_eq!(code, 5);
    }
    assert_eq!(rig.ends, [End::Close]);
    rig.client_sends(&connect_open(OPENS, Some("good:///"), 0));
    rig.client_gets_nothing();
}
