//! An upstream that dies or lies: every call is answered once, every stream is aborted, and the
//! client hears of it.

use super::*;

const SYSTEM_ERROR: i32 = 38;

/// The client is told that its connection is gone: one fault for each of these calls, an abort for
/// each of these streams, nothing else, then the end.
#[track_caller]
fn lost(rig: &mut Rig, calls: &[&Msg], streams: &[&Msg]) {
    for _ in 0..calls.len() + streams.len() {
        let got = rig.client_gets();
        let is_for = |msg: &&&Msg| msg.header.serial == got.header.serial;
        if got.header.kind == MessageType::STREAM {
            let stream = streams
                .iter()
                .find(is_for)
                .expect("a stream of the client's");
            assert_eq!(got.header, stream.stream(Status::ERROR, "").header);
        } else {
            let call = calls.iter().find(is_for).expect("a call of the client's");
            assert_eq!(got.header, call.header.answer(Status::ERROR));
        }
        assert_eq!(got.fault().0, SYSTEM_ERROR);
    }
    over(rig);
}

#[track_caller]
fn over(rig: &mut Rig) {
    rig.client_gets_nothing();
    assert_eq!(rig.ends, [End::Close]);
    assert!(!rig.dialled().open);
    rig.client_sends(&call(remote::CONNECT_GET_VERSION, 900));
    rig.client_sends(&call(remote::AUTH_LIST, 901));
    rig.client_sends(&a_ping());
    rig.daemon_sends(&message(
        Program::REMOTE,
        remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
    ));
    rig.daemon_sends(&a_ping());
    rig.daemon_dies();
    rig.client_gets_nothing();
    rig.wait(5 * SECOND);
    assert_eq!(rig.ends, [End::Close, End::Abort]);
    assert_eq!(rig.session.poll_timeout(), None);
}

/// Three calls, one of them answered, and two streams, one of them on its way.
fn busy() -> (Rig, [Msg; 3], Msg) {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(10);
    let calls = [
        call(remote::CONNECT_GET_VERSION, 1),
        call(Procedure(9999), u32::MAX),
        call(remote::DOMAIN_OPEN_CONSOLE, 11),
    ];
    let answered = call(remote::CONNECT_GET_HOSTNAME, 3);
    calls
        .iter()
        .chain([&answered])
        .for_each(|call| rig.relays(call));
    rig.delivers(&answered.reply(|_| ()));
    (rig, calls, stream)
}

#[test]
fn a_daemon_that_dies_answers_every_call_once() {
    let (mut rig, calls, stream) = busy();
    rig.daemon_dies();
    lost(&mut rig, &calls.each_ref(), &[&stream]);
}

#[test]
fn an_idle_connection_only_ends() {
    let mut rig = Rig::opened();
    rig.daemon_dies();
    over(&mut rig);
}

/// What no honest daemon sends; `answered` was answered already, `open` is a call that waits.
fn lies(open: &Msg, answered: &Msg, stream: &Msg) -> Vec<Msg> {
    let reply = open.reply(|_| ());
    vec![
        answered.reply(|_| ()),
        stream.reply(|_| ()),
        stream.reply(|_| ()).with_descriptors(1),
        stream.error("x").with_descriptors(1),
        reply.clone().with(|header| header.serial = Serial(777)),
        reply
            .clone()
            .with(|header| header.procedure = remote::CONNECT_GET_HOSTNAME),
        reply.clone().with(|header| header.program = Program::QEMU),
        reply.clone().with(|header| header.version = 2),
        reply.clone().with(|header| header.kind = MessageType(7)),
        reply.with(|header| header.kind = MessageType(u32::MAX)),
        call(remote::CONNECT_GET_VERSION, 1),
        call(remote::CONNECT_GET_VERSION, 5).with_descriptors(1),
        call(remote::CONNECT_OPEN, 6),
    ]
}

#[test]
fn a_daemon_that_lies_is_lost() {
    let answered = call(remote::CONNECT_GET_HOSTNAME, 3);
    let (_, calls, stream) = busy();
    for lie in lies(&calls[0], &answered, &stream) {
        let (mut rig, calls, stream) = busy();
        rig.daemon_sends(&lie);
        lost(&mut rig, &calls.each_ref(), &[&stream]);
    }
}

#[test]
fn a_daemon_that_falls_silent_is_lost() {
    let (mut rig, calls, stream) = busy();
    rig.wait(5 * SECOND);
    assert_eq!(rig.daemon_gets(), a_ping());
    rig.wait(5 * SECOND);
    assert_eq!(rig.daemon_gets(), a_ping());
    rig.client_gets_nothing();
    rig.wait(4 * SECOND);
    rig.client_gets_nothing();
    rig.wait(SECOND);
    lost(&mut rig, &calls.each_ref(), &[&stream]);
}

fn close_event(rig: &mut Rig) -> Option<i32> {
    let event = rig.inbox.pop_back()?;
    let expected = message(Program::REMOTE, remote::CONNECT_EVENT_CONNECTION_CLOSED);
    assert_eq!(event.header, expected.header);
    Some(Reader::new(&event.payload).i32().unwrap())
}

fn registers(rig: &mut Rig, procedure: Procedure) {
    let register = call(procedure, 20);
    rig.relays(&register);
    rig.delivers(&register.reply(|_| ()));
}

#[test]
fn the_close_event_comes_where_it_was_asked_for() {
    let (mut rig, calls, stream) = busy();
    registers(&mut rig, remote::CONNECT_REGISTER_CLOSE_CALLBACK);
    rig.daemon_dies();
    assert_eq!(close_event(&mut rig), Some(1));
    lost(&mut rig, &calls.each_ref(), &[&stream]);
}

#[test]
fn the_close_event_says_that_a_daemon_fell_silent() {
    let mut rig = Rig::opened();
    registers(&mut rig, remote::CONNECT_REGISTER_CLOSE_CALLBACK);
    rig.wait(15 * SECOND);
    assert_eq!(close_event(&mut rig), Some(2));
    rig.client_gets_nothing();
}

#[test]
fn no_close_event_without_a_good_registration() {
    let mut refused = Rig::opened();
    let register = call(remote::CONNECT_REGISTER_CLOSE_CALLBACK, 20);
    refused.relays(&register);
    refused.delivers(&register.error("unsupported"));
    refused.daemon_dies();
    assert_eq!(close_event(&mut refused), None);

    let mut outstanding = Rig::opened();
    outstanding.relays(&register);
    outstanding.daemon_dies();
    outstanding.client_gets_fault(&register);
    assert_eq!(close_event(&mut outstanding), None);
}

#[test]
fn no_close_event_once_it_was_unregistered() {
    let mut rig = Rig::opened();
    registers(&mut rig, remote::CONNECT_REGISTER_CLOSE_CALLBACK);
    registers(&mut rig, remote::CONNECT_UNREGISTER_CLOSE_CALLBACK);
    rig.daemon_dies();
    assert_eq!(close_event(&mut rig), None);
    let mut again = Rig::opened();
    registers(&mut again, remote::CONNECT_REGISTER_CLOSE_CALLBACK);
    registers(&mut again, remote::CONNECT_UNREGISTER_CLOSE_CALLBACK);
    registers(&mut again, remote::CONNECT_REGISTER_CLOSE_CALLBACK);
    again.daemon_dies();
    assert_eq!(close_event(&mut again), Some(1));
}

#[test]
fn a_call_on_hold_when_the_daemon_dies_is_not_answered_twice() {
    let mut rig = Rig::opened();
    let calls: Vec<Msg> = (1..=1025)
        .map(|serial| call(remote::CONNECT_GET_VERSION, serial))
        .collect();
    calls.iter().for_each(|call| rig.client_sends(call));
    assert_eq!(rig.sent.len(), 1);
    rig.daemon_dies();
    assert_eq!(rig.inbox.len(), 1024);
    assert_eq!(rig.ends, [End::Close]);
    assert_eq!(rig.sent.len(), 0);
}
