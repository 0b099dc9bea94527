//! Ends that are wanted: the client closes, half-closes, or the proxy drains.

use super::*;

const CLOSE: Procedure = remote::CONNECT_CLOSE;

#[test]
fn close_before_open_is_answered_and_ends_the_connection() {
    let mut rig = Rig::start();
    rig.answers(&call(CLOSE, 0));
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_close_of_another_version_closes_nothing() {
    let mut rig = Rig::opened();
    let odd = call(CLOSE, 1).with(|header| header.version = 2);
    assert_eq!(rig.refuses(&odd).0, 39);
    rig.still_serves();
}

#[test]
fn close_waits_for_the_calls_that_are_outstanding() {
    let mut rig = Rig::opened();
    let (one, two) = (
        call(remote::CONNECT_GET_VERSION, 1),
        call(remote::CONNECT_GET_HOSTNAME, 2),
    );
    rig.relays(&one);
    rig.relays(&two);
    rig.answers(&call(CLOSE, 3));
    assert_eq!(rig.ends, []);
    rig.delivers(&two.reply(|_| ()));
    let late = call(remote::CONNECT_GET_VERSION, 4);
    assert_eq!(rig.refuses(&late).0, 1);
    rig.daemon_gets_nothing();
    rig.delivers(&one.reply(|_| ()));
    assert_eq!(rig.ends, [End::Close]);
    rig.client_sends(&late);
    rig.client_gets_nothing();
}

#[test]
fn close_does_not_wait_for_calls_that_never_end() {
    let mut rig = Rig::opened();
    rig.relays(&call(remote::CONNECT_GET_VERSION, 1));
    rig.answers(&call(CLOSE, 2));
    for _ in 0..20 {
        rig.wait(3 * SECOND);
        rig.daemon_sends(&a_pong());
    }
    assert_eq!(rig.ends, [End::Close]);
    assert!(!rig.dialled().open);
}

#[test]
fn close_does_not_wait_for_streams() {
    let mut rig = Rig::opened();
    rig.opens_stream(1);
    rig.answers(&call(CLOSE, 2));
    assert_eq!(rig.ends, [End::Close]);
    assert!(!rig.dialled().open);
}

#[test]
fn close_sent_while_the_connection_opens_is_answered_in_turn() {
    let mut rig = Rig::start();
    let (open, close) = (connect_open(0, Some("good:///"), 0), call(CLOSE, 1));
    rig.client_sends(&open);
    rig.client_sends(&close);
    rig.client_gets_nothing();
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    assert_eq!(rig.client_gets(), close.reply(|_| ()));
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_half_closed_client_gets_the_answers_that_it_waits_for() {
    let mut rig = Rig::opened();
    let asked = call(remote::CONNECT_GET_VERSION, 1);
    rig.relays(&asked);
    rig.client_ends();
    assert_eq!(rig.ends, []);
    rig.delivers(&asked.reply(|_| ()));
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_client_that_is_gone_leaves_nothing_open() {
    let mut unopened = Rig::start();
    unopened.client_ends();
    assert_eq!(unopened.ends, [End::Close]);

    let mut idle = Rig::opened();
    idle.client_ends();
    assert_eq!(idle.ends, [End::Close]);
    assert!(!idle.dialled().open);

    // A console whose client was killed: the daemon would never end the stream by itself.
    let mut console = Rig::opened();
    console.opens_stream(1);
    console.client_ends();
    assert_eq!(console.ends, [End::Close]);
    assert!(!console.dialled().open);
}

#[test]
fn a_client_that_is_gone_while_its_connection_opens_leaves_nothing_open() {
    let mut opens = Rig::start();
    opens.client_sends(&connect_open(0, Some("good:///"), 0));
    opens.client_ends();
    opens.daemon_opens();
    opens.client_gets();
    assert_eq!(opens.ends, [End::Close]);
    assert!(!opens.dialled().open);

    let mut fails = Rig::start();
    fails.client_sends(&connect_open(0, Some("good:///"), 0));
    fails.client_ends();
    fails.wait(10 * SECOND);
    assert_eq!(fails.ends, [End::Close]);
    assert!(!fails.dialled().open);
}

#[test]
fn a_client_that_does_not_read_its_last_answers_is_cut_off() {
    let mut rig = Rig::opened();
    rig.client_ends();
    rig.wait(4 * SECOND);
    assert_eq!(rig.ends, [End::Close]);
    rig.wait(SECOND);
    assert_eq!(rig.ends, [End::Close, End::Abort]);
    assert_eq!(rig.session.poll_timeout(), None);
}

#[test]
fn draining_closes_idle_connections_at_once() {
    for mut rig in [Rig::start(), Rig::opened()] {
        rig.drain();
        assert_eq!(rig.ends, [End::Close]);
        rig.client_gets_nothing();
    }
}

#[test]
fn draining_lets_calls_and_streams_end_and_takes_no_new_ones() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    let asked = call(remote::CONNECT_GET_VERSION, 2);
    rig.relays(&asked);
    rig.drain();
    assert_eq!(rig.refuses(&call(remote::CONNECT_GET_VERSION, 3)).0, 39);
    rig.delivers(&asked.reply(|_| ()));
    rig.relays(&stream.stream(Status::CONTINUE, "x"));
    rig.relays(&stream.stream(Status::OK, ""));
    assert_eq!(rig.ends, []);
    rig.delivers(&stream.stream(Status::OK, ""));
    assert_eq!(rig.ends, [End::Close]);
    assert!(!rig.dialled().open);
}

#[test]
fn draining_lets_a_client_close_although_its_stream_is_open() {
    let mut rig = Rig::opened();
    rig.opens_stream(1);
    rig.drain();
    assert_eq!(rig.ends, []);
    rig.answers(&call(CLOSE, 2));
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn draining_while_a_connection_opens_answers_the_open_first() {
    let mut opens = Rig::start();
    let open = connect_open(0, Some("good:///"), 0);
    opens.client_sends(&open);
    opens.drain();
    assert_eq!(opens.ends, []);
    opens.daemon_opens();
    assert_eq!(opens.client_gets(), open.reply(|_| ()));
    assert_eq!(opens.ends, [End::Close]);

    let mut fails = Rig::start();
    fails.client_sends(&open);
    fails.drain();
    fails.daemon_dies();
    fails.client_gets_fault(&open);
    assert_eq!(fails.ends, [End::Close]);
}

#[test]
fn draining_twice_closes_once() {
    let mut rig = Rig::opened();
    rig.drain();
    rig.drain();
    rig.client_ends();
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn an_upstream_lost_while_draining_answers_what_is_outstanding() {
    let mut rig = Rig::opened();
    let asked = call(remote::CONNECT_GET_VERSION, 2);
    rig.relays(&asked);
    rig.drain();
    rig.daemon_dies();
    assert_eq!(rig.client_gets_fault(&asked).0, 38);
    assert_eq!(rig.ends, [End::Close]);
}
