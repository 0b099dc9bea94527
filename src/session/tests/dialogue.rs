//! The dialogue with the daemon that is being opened, and every way to break it.

use super::*;

const SYSTEM_ERROR: i32 = 38;

/// The dialogue up to the identity, which the daemon refuses.
fn identity_refused(identity: ForwardIdentity) -> (Rig, Msg) {
    let upstreams = vec![Upstream {
        identity,
        ..upstream("qemu")
    }];
    let mut rig = Options {
        upstreams,
        ..Options::default()
    }
    .start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    if identity != ForwardIdentity::Never {
        rig.client_gets_nothing();
        rig.daemon_says_no(remote::CONNECT_SET_IDENTITY, "access denied");
    }
    (rig, open)
}

#[test]
fn a_daemon_that_refuses_a_required_identity_is_not_used() {
    let (mut rig, open) = identity_refused(ForwardIdentity::Require);
    let (code, text) = rig.client_gets_fault(&open);
    assert_eq!(code, SYSTEM_ERROR);
    assert!(text.contains("access denied"), "{text}");
    assert!(!rig.dialled().open);
    assert_eq!(rig.refuses(&call(remote::CONNECT_GET_VERSION, 1)).0, 1);
}

#[test]
fn a_daemon_may_refuse_an_identity_that_is_only_tried() {
    let (mut rig, open) = identity_refused(ForwardIdentity::Try);
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.still_serves();
}

#[test]
fn an_identity_that_is_never_forwarded_is_not_sent() {
    let (mut rig, open) = identity_refused(ForwardIdentity::Never);
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.daemon_gets_nothing();
    rig.still_serves();
}

#[test]
fn a_daemon_that_asks_for_polkit_is_given_it() {
    let mut rig = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(2);
    rig.daemon_says_yes(remote::AUTH_POLKIT, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
}

#[test]
fn a_daemon_whose_polkit_refuses_the_proxy_is_not_used() {
    let mut rig = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(2);
    rig.daemon_says_no(remote::AUTH_POLKIT, "authentication unavailable");
    assert!(
        rig.client_gets_fault(&open)
            .1
            .contains("authentication unavailable")
    );
}

#[test]
fn a_daemon_that_asks_for_sasl_is_not_used() {
    let mut rig = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(1);
    rig.daemon_gets_nothing();
    assert!(
        rig.client_gets_fault(&open)
            .1
            .contains("names no `sasl` for it")
    );
    assert!(!rig.dialled().open);
}

#[test]
fn a_daemon_that_knows_no_pings_is_used_without() {
    let mut rig = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_no(remote::CONNECT_SUPPORTS_FEATURE, "unknown feature");
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.wait(100 * SECOND);
    rig.daemon_gets_nothing();
    rig.still_serves();
}

#[test]
fn replies_of_the_dialogue_may_come_in_any_order() {
    let mut rig = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    let feature = rig.daemon_gets();
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    rig.client_gets_nothing();
    rig.daemon_sends(&feature.reply(|w| _ = w.i32(0)));
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    rig.still_serves();
}

/// Breaks the dialogue after `steps` good answers, and says what the client got for its open.
fn broken_after(steps: usize, breaks: impl Fn(&mut Rig)) -> (i32, String) {
    let mut rig = Rig::start();
    let open = connect_open(3, Some("good:///"), 0);
    rig.client_sends(&open);
    let good: [fn(&mut Rig); 5] = [
        Rig::daemon_accepts,
        |rig| rig.daemon_says_auth(0),
        |rig| rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1)),
        |rig| rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ()),
        |rig| rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ()),
    ];
    for step in &good[..steps] {
        step(&mut rig);
    }
    breaks(&mut rig);
    let fault = rig.client_gets_fault(&open);
    rig.client_gets_nothing();
    assert!(!rig.dialled().open);
    rig.open();
    rig.still_serves();
    fault
}

#[test]
fn a_daemon_that_dies_in_any_step_leaves_a_client_that_can_try_again() {
    for steps in 0..5 {
        let (code, text) = broken_after(steps, Rig::daemon_dies);
        assert_eq!(code, SYSTEM_ERROR);
        assert!(text.contains("closed the connection"), "{text}");
    }
}

#[test]
fn a_daemon_that_stalls_in_any_step_is_given_up_in_time() {
    for steps in 0..5 {
        assert_eq!(broken_after(steps, |rig| rig.wait(10 * SECOND)).0, 68);
    }
}

#[test]
fn a_uri_that_takes_a_daemon_long_to_open_does_not_make_it_unwell() {
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(1, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.wait(10 * SECOND);
    assert_eq!(rig.unwell, 1);

    rig.client_sends(&connect_open(2, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.wait(10 * SECOND);
    assert_eq!(rig.unwell, 1);
    assert_eq!(rig.dials("qemu"), 2);
}

#[test]
fn a_daemon_that_talks_nonsense_in_any_step_is_given_up() {
    let nonsense: [fn(Msg) -> Msg; 9] = [
        |asked| asked.clone(),
        |asked| asked.reply(|_| ()).with(|header| header.serial.0 ^= 1),
        |asked| {
            asked
                .reply(|_| ())
                .with(|header| header.procedure.0 += 1000)
        },
        |asked| asked.reply(|_| ()).with(|header| header.version = 2),
        |asked| {
            asked
                .reply(|_| ())
                .with(|header| header.program = Program::QEMU)
        },
        |asked| asked.reply(|_| ()).with(|header| header.status = Status(2)),
        |asked| {
            asked
                .reply(|_| ())
                .with(|header| header.kind = MessageType::STREAM)
        },
        |asked| asked.reply(|_| ()).with_descriptors(1),
        |asked| {
            let odd = asked.error("an error by its body alone");
            odd.with(|header| header.status = Status(2))
        },
    ];
    for steps in 1..5 {
        for make in nonsense {
            let (code, text) = broken_after(steps, |rig| {
                let asked = rig.daemon_gets();
                rig.daemon_sends(&make(asked));
            });
            assert_eq!(code, SYSTEM_ERROR);
            assert!(text.contains("broke the protocol"), "{text}");
        }
    }
}

#[test]
fn a_good_reply_with_an_unreadable_body_is_given_up() {
    for steps in [1, 2] {
        let (_, text) = broken_after(steps, |rig| {
            let asked = rig.daemon_gets();
            rig.daemon_sends(&asked.reply(|_| ()));
        });
        assert!(text.contains("broke the protocol"), "{text}");
    }
}

#[test]
fn a_feature_that_the_daemon_did_not_tell_of_is_asked_by_the_client() {
    for good in [true, false] {
        let mut rig = Options {
            answers_features: false,
            ..Options::default()
        }
        .start();
        let open = connect_open(0, Some("good:///"), 0);
        rig.client_sends(&open);
        rig.daemon_opens();
        for _ in 0..2 {
            let asked = rig.daemon_gets();
            assert_eq!(asked.header.procedure, remote::CONNECT_SUPPORTS_FEATURE);
            rig.client_gets_nothing();
            let answer = match good {
                true => asked.reply(|writer| _ = writer.i32(0)),
                false => asked.error("no"),
            };
            rig.daemon_sends(&answer);
        }
        assert_eq!(rig.client_gets(), open.reply(|_| ()));
        let asked = feature(1, 15);
        rig.client_sends(&asked);
        if good {
            assert_eq!(rig.client_gets(), asked.reply(|writer| _ = writer.i32(0)));
        } else {
            assert_eq!(rig.daemon_gets(), asked);
        }
    }
}
