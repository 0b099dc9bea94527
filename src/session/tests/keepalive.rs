//! Pings and silence, on both sides and in every phase.

use super::*;

/// A client that said that it answers pings.
fn knows_pings(rig: &mut Rig) {
    rig.answers(&feature(1_000, Feature::KEEPALIVE.0));
}

#[test]
fn pings_are_answered_on_both_sides_and_never_travel_through() {
    let mut unopened = Rig::start();
    unopened.client_sends(&a_ping());
    assert_eq!(unopened.client_gets(), a_pong());

    let mut opening = Rig::start();
    opening.client_sends(&connect_open(0, Some("good:///"), 0));
    opening.daemon_accepts();
    opening.daemon_gets();
    for mut rig in [opening, Rig::opened()] {
        rig.client_sends(&a_ping());
        assert_eq!(rig.client_gets(), a_pong());
        rig.daemon_gets_nothing();
        rig.daemon_sends(&a_ping());
        assert_eq!(rig.daemon_gets(), a_pong());
        rig.client_gets_nothing();
    }
}

#[test]
fn odd_keepalive_messages_are_ignored_on_both_sides() {
    let mut rig = Rig::opened();
    let odd = [
        a_pong(),
        a_ping().with(|header| header.version = 2),
        a_ping().with(|header| header.procedure = Procedure(3)),
    ];
    for message in &odd {
        rig.client_sends(message);
        rig.daemon_sends(message);
    }
    rig.client_gets_nothing();
    rig.daemon_gets_nothing();
    rig.still_serves();
}

#[test]
fn a_client_is_not_pinged_before_it_says_that_it_answers() {
    let mut rig = Rig::opened();
    for _ in 0..20 {
        rig.wait(4 * SECOND);
        rig.daemon_sends(&a_pong());
    }
    rig.client_gets_nothing();
    assert_eq!(rig.ends, []);
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let mut rig = Rig::opened();
    knows_pings(&mut rig);
    for _ in 0..2 {
        rig.wait(5 * SECOND);
        rig.daemon_sends(&a_pong());
        assert_eq!(rig.client_gets(), a_ping());
    }
    rig.wait(5 * SECOND);
    assert_eq!(rig.ends, [End::Abort]);
    assert!(!rig.dialled().open);
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn any_frame_shows_that_a_client_lives() {
    let mut rig = Rig::opened();
    knows_pings(&mut rig);
    let event = message(Program::REMOTE, Procedure(9));
    for frame in [&a_pong(), &a_ping(), &event].repeat(5) {
        rig.wait(4 * SECOND);
        rig.client_sends(frame);
        rig.daemon_sends(&a_pong());
    }
    assert!(rig.inbox.iter().all(|msg| *msg == a_pong()));
    assert_eq!(rig.ends, []);
}

#[test]
fn a_client_that_waits_for_its_open_is_still_watched() {
    let mut rig = Rig::start();
    knows_pings(&mut rig);
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    rig.wait(5 * SECOND);
    assert_eq!(rig.client_gets(), a_ping());
}

#[test]
fn asking_twice_does_not_start_the_clock_anew() {
    let mut rig = Rig::opened();
    knows_pings(&mut rig);
    rig.wait(5 * SECOND);
    assert_eq!(rig.client_gets(), a_ping());
    let deadline = rig.session.poll_timeout();
    rig.session.handle_timeout(rig.now);
    assert_eq!(rig.session.poll_timeout(), deadline);
    rig.carry_out();
    rig.client_gets_nothing();
}

#[test]
fn a_count_of_0_ends_the_connection_at_the_first_silence() {
    let keepalive = Keepalive {
        interval: Some(SECOND),
        count: 0,
    };
    let mut rig = Options {
        keepalive,
        ..Options::default()
    }
    .open();
    knows_pings(&mut rig);
    rig.wait(SECOND);
    assert_eq!(rig.ends, [End::Abort]);
    rig.client_gets_nothing();

    let upstreams = vec![Upstream {
        keepalive,
        ..upstream("qemu")
    }];
    let mut rig = Options {
        upstreams,
        ..Options::default()
    }
    .open();
    rig.wait(SECOND);
    assert_eq!(rig.ends, [End::Close]);
    rig.daemon_gets_nothing();
}

#[test]
fn no_interval_never_pings() {
    let never = Keepalive {
        interval: None,
        count: 5,
    };
    let upstreams = vec![Upstream {
        keepalive: never,
        ..upstream("qemu")
    }];
    let mut rig = Options {
        keepalive: never,
        upstreams,
        ..Options::default()
    }
    .start();
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    rig.daemon_says_yes(remote::CONNECT_SET_IDENTITY, |_| ());
    rig.client_gets();
    knows_pings(&mut rig);
    assert_eq!(rig.session.poll_timeout(), None);
    rig.wait(3600 * SECOND);
    rig.still_serves();
}

#[test]
fn a_peer_that_is_not_listened_to_is_not_taken_for_silent() {
    let mut rig = Rig::opened();
    knows_pings(&mut rig);
    let daemon = rig.daemon();
    for _ in 0..20 {
        rig.wait(4 * SECOND);
        rig.session.handle_heard(Peer::Client, rig.now);
        rig.session.handle_heard(Peer::Upstream(daemon), rig.now);
    }
    rig.client_gets_nothing();
    rig.daemon_gets_nothing();
    rig.still_serves();
    let stale = UpstreamId(daemon.0 + 1);
    for _ in 0..3 {
        rig.wait(5 * SECOND);
        rig.session.handle_heard(Peer::Upstream(stale), rig.now);
        rig.session.handle_heard(Peer::Client, rig.now);
    }
    assert_eq!(rig.ends, [End::Close]);
}
