//! Calls and replies on an open connection.

use super::*;

#[test]
fn replies_come_in_any_order_and_pass_untouched() {
    let mut rig = Rig::opened();
    let calls: Vec<Msg> = (1..=40)
        .map(|serial| call(remote::CONNECT_GET_VERSION, serial))
        .collect();
    for call in &calls {
        rig.relays(call);
    }
    for call in calls.iter().rev() {
        rig.delivers(&call.reply(|w| _ = w.u64(call.header.serial.0.into())));
    }
    rig.client_gets_nothing();
}

#[test]
fn an_error_reply_passes_in_the_daemons_own_bytes() {
    let mut rig = Rig::opened();
    let start = call(remote::DOMAIN_CREATE, 1);
    rig.relays(&start);
    rig.delivers(&start.error("Domain not found"));
    rig.still_serves();
}

#[test]
fn a_reply_of_a_status_that_nobody_knows_still_answers_its_call() {
    let mut rig = Rig::opened();
    let asked = call(remote::CONNECT_GET_VERSION, 1);
    rig.relays(&asked);
    rig.delivers(&asked.reply(|_| ()).with(|header| header.status = Status(9)));
    rig.still_serves();
}

#[test]
fn every_serial_is_the_clients_to_choose() {
    let mut rig = Rig::opened();
    for serial in [0, u32::MAX, u32::MAX - 1, u32::MAX - 4, 1 << 31] {
        let asked = call(remote::CONNECT_GET_VERSION, serial);
        rig.relays(&asked);
        rig.delivers(&asked.reply(|_| ()));
    }
    rig.still_serves();
}

#[test]
fn a_serial_used_twice_at_once_ends_the_connection() {
    let again = call(remote::CONNECT_GET_HOSTNAME, 1);
    let disguises = [
        again.clone(),
        again.clone().with(|header| header.status = Status::ERROR),
        again.clone().with(|header| header.version = 2),
        again.with_descriptors(1),
        call(remote::AUTH_LIST, 1),
        call(remote::CONNECT_CLOSE, 1),
    ];
    for again in &disguises {
        let mut rig = Rig::opened();
        rig.relays(&call(remote::CONNECT_GET_VERSION, 1));
        rig.client_sends(again);
        assert_eq!(rig.ends, [End::Abort]);
        assert!(!rig.dialled().open);
        rig.client_gets_nothing();
        rig.daemon_gets_nothing();
    }
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(1, Some("good:///"), 0));
    rig.client_sends(&call(remote::AUTH_LIST, 1));
    assert_eq!(rig.ends, [End::Abort]);
}

#[test]
fn the_serial_of_an_open_stream_is_in_use() {
    let mut rig = Rig::opened();
    rig.opens_stream(1);
    rig.client_sends(&call(remote::CONNECT_GET_HOSTNAME, 1));
    assert_eq!(rig.ends, [End::Abort]);
}

#[test]
fn a_serial_is_free_again_once_it_was_answered() {
    let mut rig = Rig::opened();
    for _ in 0..3 {
        let asked = call(remote::CONNECT_GET_VERSION, 1);
        rig.relays(&asked);
        rig.delivers(&asked.reply(|_| ()));
    }
}

#[test]
fn events_pass_untouched_and_belong_to_no_call() {
    let mut rig = Rig::opened();
    let event = Msg {
        payload: vec![1, 2, 3, 4],
        ..message(Program::REMOTE, remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE)
    };
    rig.delivers(&event);
    rig.delivers(&message(Program::QEMU, Procedure(6)));
    rig.delivers(&message(Program::REMOTE, Procedure(454)));
    rig.still_serves();
}

#[test]
fn a_daemon_is_never_kept_waiting_for_more_than_a_bounded_number_of_calls() {
    let mut rig = Rig::opened();
    let calls: Vec<Msg> = (1..=1030)
        .map(|serial| call(remote::CONNECT_GET_VERSION, serial))
        .collect();
    calls.iter().for_each(|call| rig.client_sends(call));
    assert_eq!(rig.dialled().inbox.len(), 1024);
    assert_eq!(rig.sent.len(), 6);
    rig.delivers(&calls[500].reply(|_| ()));
    assert_eq!(rig.dialled().inbox.len(), 1025);
    for call in calls
        .iter()
        .filter(|call| call.header.serial != Serial(501))
    {
        rig.delivers(&call.reply(|_| ()));
    }
    assert_eq!(rig.dialled().inbox.len(), 1030);
    assert_eq!(rig.sent.len(), 0);
    rig.client_gets_nothing();
}

#[test]
fn calls_sent_while_the_connection_opens_wait_and_keep_their_order() {
    let mut rig = Rig::start();
    rig.client_sends(&connect_open(0, Some("good:///"), 0));
    let early = [
        call(remote::CONNECT_GET_VERSION, 1),
        call(remote::CONNECT_GET_HOSTNAME, 2),
    ];
    early.iter().for_each(|call| rig.client_sends(call));
    rig.client_gets_nothing();
    rig.daemon_opens();
    rig.client_gets();
    assert_eq!(rig.daemon_gets(), early[0]);
    assert_eq!(rig.daemon_gets(), early[1]);
}

#[test]
fn calls_sent_behind_an_open_that_fails_are_refused() {
    let mut rig = Rig::start();
    let (open, early) = (
        connect_open(0, Some("good:///"), 0),
        call(remote::CONNECT_GET_VERSION, 1),
    );
    rig.client_sends(&open);
    rig.client_sends(&early);
    rig.daemon_dies();
    rig.client_gets_fault(&open);
    assert_eq!(rig.client_gets_fault(&early).0, 1);
}
