//! Calls that the proxy answers or refuses itself, in every phase and in every disguise.

use super::*;

const RPC: i32 = 39;
const INTERNAL: i32 = 1;
const ACCESS_DENIED: i32 = 88;

/// A session in each phase in which a client may call; the opening one holds what it does not
/// answer itself.
fn phases() -> [Rig; 3] {
    let mut opening = Rig::start();
    opening.client_sends(&connect_open(0, Some("good:///"), 0));
    opening.daemon_accepts();
    opening.daemon_gets();
    [Rig::start(), opening, Rig::opened()]
}

#[test]
fn authentication_has_nothing_to_ask() {
    for mut rig in phases() {
        let list = call(remote::AUTH_LIST, 50);
        rig.client_sends(&list);
        assert_eq!(rig.client_gets(), list.reply(|w| _ = w.u32(1).i32(0)));
        let steps = [
            remote::AUTH_POLKIT,
            remote::AUTH_SASL_INIT,
            remote::AUTH_SASL_START,
            remote::AUTH_SASL_STEP,
        ];
        for step in steps {
            assert_eq!(rig.refuses(&call(step, 51)).0, 45);
        }
    }
}

#[test]
fn no_client_names_its_own_identity() {
    let identity = call(remote::CONNECT_SET_IDENTITY, 50);
    let disguises = [
        (ACCESS_DENIED, identity.clone()),
        (ACCESS_DENIED, identity.clone().with_descriptors(0)),
        (ACCESS_DENIED, identity.clone().with_descriptors(2)),
        (RPC, identity.clone().with(|header| header.version = 0)),
        (RPC, identity.clone().with(|header| header.version = 2)),
        (
            RPC,
            identity
                .clone()
                .with(|header| header.status = Status::ERROR),
        ),
        (
            RPC,
            identity.clone().with(|header| header.status = Status(9)),
        ),
    ];
    for mut rig in phases() {
        for (code, disguise) in &disguises {
            assert_eq!(rig.refuses(disguise).0, *code, "{disguise:?}");
        }
        // What is no call does nothing at a daemon; it must not get there all the same.
        for kind in [1, 2, 3, 5, 6, 7, u32::MAX] {
            let odd = identity
                .clone()
                .with(|header| header.kind = MessageType(kind));
            rig.client_sends(&odd);
            rig.client_gets_nothing();
        }
        if !rig.dialled.is_empty() {
            rig.daemon_gets_nothing();
        }
        assert_eq!(rig.ends, []);
    }
}

#[test]
fn calls_before_open_are_refused_in_the_daemons_words() {
    let mut rig = Rig::start();
    let version = call(remote::CONNECT_GET_VERSION, 1);
    let not_open = (
        INTERNAL,
        "internal error: hypervisor connection not open".to_owned(),
    );
    assert_eq!(rig.refuses(&version), not_open);
    let qemu = version.clone().with(|header| {
        header.program = Program::QEMU;
        header.procedure = Procedure(1);
    });
    assert_eq!(rig.refuses(&qemu), not_open);
    assert_eq!(rig.refuses(&feature(1, 14)), not_open);
    assert_eq!(rig.refuses(&version.clone().with_descriptors(1)), not_open);
    for number in [9999, 0, -1, 454] {
        let unknown = call(Procedure(number), 1);
        let text = format!("unknown procedure: {number}");
        assert_eq!(rig.refuses(&unknown), (RPC, text));
    }
    let event = call(remote::DOMAIN_EVENT_LIFECYCLE, 1);
    assert_eq!(
        rig.refuses(&event).1,
        format!("unknown procedure: {}", event.header.procedure.0)
    );
    for program in [Program(305_419_896), Program::ADMIN, Program::KEEPALIVE] {
        let unknown = version.clone().with(|header| header.program = program);
        let text = format!("Cannot find program {} version 1", program.0);
        assert_eq!(rig.refuses(&unknown), (RPC, text));
    }
    let wrong = version.clone().with(|header| header.version = 2);
    assert_eq!(
        rig.refuses(&wrong),
        (RPC, "Cannot find program 536903814 version 2".into())
    );
    let odd = version.with(|header| header.status = Status(7));
    assert_eq!(
        rig.refuses(&odd),
        (RPC, "Unexpected message status 7".into())
    );
    rig.open();
}

#[test]
fn an_open_of_another_version_opens_nothing() {
    let mut rig = Rig::start();
    let open = connect_open(1, Some("good:///"), 0).with(|header| header.version = 2);
    assert_eq!(rig.refuses(&open).0, RPC);
    assert!(rig.dialled.is_empty());
}

#[test]
fn a_second_open_is_refused_and_the_first_lives_on() {
    let already = (
        INTERNAL,
        "internal error: connection already open".to_owned(),
    );
    let mut rig = Rig::opened();
    for uri in [Some("good:///"), Some("foo:///"), None] {
        assert_eq!(rig.refuses(&connect_open(1, uri, 0)), already);
    }
    let with_descriptors = connect_open(1, Some("good:///"), 0).with_descriptors(1);
    assert_eq!(rig.refuses(&with_descriptors), already);
    rig.still_serves();
    assert_eq!(rig.dialled.len(), 1);
}

#[test]
fn a_second_open_sent_while_the_first_is_under_way_waits_and_is_refused() {
    let mut rig = Rig::start();
    let (first, second) = (
        connect_open(0, Some("good:///"), 0),
        connect_open(1, Some("good:///"), 0),
    );
    rig.client_sends(&first);
    rig.client_sends(&second);
    rig.client_gets_nothing();
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), first.reply(|_| ()));
    assert_eq!(rig.client_gets_fault(&second).0, INTERNAL);
    assert_eq!(rig.dialled.len(), 1);
}

#[test]
fn a_second_open_sent_while_the_first_fails_is_tried_in_turn() {
    let mut rig = Rig::start();
    let (first, second) = (
        connect_open(0, Some("good:///"), 0),
        connect_open(1, Some("good:///"), 0),
    );
    rig.client_sends(&first);
    rig.client_sends(&second);
    rig.daemon_dies();
    rig.client_gets_fault(&first);
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), second.reply(|_| ()));
    rig.still_serves();
}

#[test]
fn features_of_the_proxys_own_are_answered_here_and_others_by_the_daemon() {
    let mut rig = Rig::opened();
    let keepalive = feature(1, Feature::KEEPALIVE.0);
    rig.client_sends(&keepalive);
    assert_eq!(rig.client_gets(), keepalive.reply(|w| _ = w.i32(1)));
    for number in [Feature::FD_PASSING.0, 13, 16, 1, -1] {
        let asked = feature(2, number);
        rig.relays(&asked);
        rig.delivers(&asked.reply(|w| _ = w.i32(1)));
    }
    let unreadable = call(remote::CONNECT_SUPPORTS_FEATURE, 3);
    assert_eq!(rig.refuses(&unreadable).0, RPC);
    let trailing = Msg::new(unreadable.header, |w| _ = w.i32(10).i32(10));
    assert_eq!(rig.refuses(&trailing).0, RPC);
}

#[test]
fn descriptor_passing_is_denied_where_a_side_cannot_carry_them() {
    let asked = feature(1, Feature::FD_PASSING.0);
    let no = asked.reply(|w| _ = w.i32(0));
    let without = || Options {
        descriptors: false,
        ..Options::default()
    };
    for mut rig in [without().start(), without().open()] {
        rig.client_sends(&asked);
        assert_eq!(rig.client_gets(), no);
    }
}

#[test]
fn frames_that_are_no_calls_are_ignored_as_the_daemon_ignores_them() {
    for mut rig in [Rig::start(), Rig::opened()] {
        for kind in [1, 2, 3, 5, 6, 7, u32::MAX] {
            for status in [0, 1, 2, 9] {
                let odd = call(remote::DOMAIN_OPEN_CONSOLE, 9).with(|header| {
                    header.kind = MessageType(kind);
                    header.status = Status(status);
                });
                rig.client_sends(&odd);
            }
        }
        rig.client_gets_nothing();
        assert_eq!(rig.ends, []);
        if !rig.dialled.is_empty() {
            rig.daemon_gets_nothing();
            rig.still_serves();
        }
    }
}

#[test]
fn unknown_numbers_pass_on_an_open_connection() {
    let mut rig = Rig::opened();
    for number in [9999, 0, -1, 456, i32::MIN] {
        let unknown = call(Procedure(number), 1);
        rig.relays(&unknown);
        rig.delivers(&unknown.error("unknown procedure"));
    }
    let program = call(Procedure(1), 2).with(|header| {
        header.program = Program(7);
        header.version = 3;
    });
    rig.relays(&program);
    rig.delivers(&program.error("Cannot find program"));
}

#[test]
fn short_frames_only_until_the_connection_is_open() {
    use crate::protocol::limits::{FRAME_MAX, FRAME_MAX_UNOPENED};
    let mut rig = Rig::start();
    assert_eq!(rig.session.client_frame_cap(), FRAME_MAX_UNOPENED);
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    assert_eq!(rig.session.client_frame_cap(), FRAME_MAX_UNOPENED);
    rig.daemon_opens();
    assert_eq!(rig.session.client_frame_cap(), FRAME_MAX);
}

#[test]
fn a_call_that_would_kill_the_daemon_does_not_reach_it() {
    let mut rig = Rig::opened();
    let perform = |serial, uri: Option<&str>| {
        let header = Header::remote_call(remote::DOMAIN_MIGRATE_PERFORM3, Serial(serial));
        Msg::new(header, |writer| {
            writer.string("a").raw(&[1; 16]);
            writer.i32(-1);
            writer.optional_string(None).u32(0).optional_string(None);
            writer.optional_string(uri).u32(0).u32(0);
            writer.optional_string(None).u32(0).u32(0);
        })
    };
    let (code, _) = rig.refuses(&perform(1, None));
    assert_eq!(code, 8);
    rig.daemon_gets_nothing();
    rig.relays(&perform(2, Some("tcp://host")));

    let perform = |serial, parameter: &str| {
        let procedure = remote::DOMAIN_MIGRATE_PERFORM3_PARAMS;
        Msg::new(Header::remote_call(procedure, Serial(serial)), |writer| {
            writer.string("a").raw(&[1; 16]);
            writer.i32(-1);
            writer.optional_string(None);
            writer.u32(1).string(parameter).u32(7).string("tcp://host");
            writer.u32(0).u32(0);
        })
    };
    let (code, _) = rig.refuses(&perform(3, "destination_name"));
    assert_eq!(code, 8);
    rig.relays(&perform(4, "migrate_uri"));
}
