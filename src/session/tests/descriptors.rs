//! Descriptors pass where both sides carry them, and are refused elsewhere.

use super::*;

#[test]
fn descriptors_pass_both_ways() {
    let mut rig = Rig::opened();
    let give = call(remote::DOMAIN_OPEN_GRAPHICS, 1).with_descriptors(1);
    rig.relays(&give);
    rig.delivers(&give.reply(|_| ()));
    let take = call(remote::DOMAIN_OPEN_GRAPHICS_FD, 2);
    rig.relays(&take);
    rig.delivers(&take.reply(|_| ()).with_descriptors(1));
}

#[test]
fn a_call_with_descriptors_is_refused_where_a_side_cannot_carry_them() {
    let client_cannot = Options {
        descriptors: false,
        ..Options::default()
    }
    .open();
    for mut rig in [client_cannot, daemon_cannot()] {
        let give = call(remote::DOMAIN_OPEN_GRAPHICS, 1).with_descriptors(1);
        assert_eq!(rig.refuses(&give).0, 39);
        rig.daemon_gets_nothing();
        rig.still_serves();
    }
}

#[test]
fn a_reply_with_descriptors_that_cannot_be_delivered_becomes_an_error() {
    let client_cannot = Options {
        descriptors: false,
        ..Options::default()
    }
    .open();
    for mut rig in [client_cannot, daemon_cannot()] {
        let take = call(remote::DOMAIN_OPEN_GRAPHICS_FD, 2);
        rig.relays(&take);
        rig.daemon_sends(&take.reply(|_| ()).with_descriptors(1));
        assert_eq!(rig.client_gets_fault(&take).0, 39);
        rig.client_gets_nothing();
        rig.still_serves();
    }
}

#[test]
fn feature_8_is_denied_where_the_daemon_cannot_carry_descriptors() {
    let mut rig = daemon_cannot();
    let asked = feature(1, Feature::FD_PASSING.0);
    rig.client_sends(&asked);
    assert_eq!(rig.client_gets(), asked.reply(|w| _ = w.i32(0)));
    rig.daemon_gets_nothing();
}

/// An open connection to a daemon that is reached by something else than a UNIX socket.
fn daemon_cannot() -> Rig {
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    let id = rig.daemon();
    rig.session.handle_connected(id, false);
    rig.pump();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |w| _ = w.i32(1));
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    rig.client_gets();
    rig
}
