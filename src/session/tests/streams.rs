//! Streams: data both ways, holes, and every way to end.

use super::*;

const MORE: Status = Status::CONTINUE;

#[test]
fn data_and_holes_pass_both_ways_until_the_finish_is_confirmed() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    rig.relays(&stream.stream(MORE, "ls\n"));
    rig.delivers(&stream.stream(MORE, "a b\n"));
    rig.relays(&stream.hole());
    rig.delivers(&stream.hole());
    rig.delivers(&stream.stream(MORE, ""));
    rig.relays(&stream.stream(MORE, ""));
    rig.relays(&stream.stream(Status::OK, ""));
    rig.delivers(&stream.stream(MORE, "still on its way"));
    rig.delivers(&stream.stream(Status::OK, ""));
    ended(&mut rig, &stream);
}

/// Nothing of the stream passes any more, and its serial is free.
#[track_caller]
fn ended(rig: &mut Rig, stream: &Msg) {
    for late in [
        stream.stream(MORE, "late"),
        stream.hole(),
        stream.stream(Status::ERROR, ""),
    ] {
        rig.client_sends(&late);
        rig.daemon_gets_nothing();
        rig.daemon_sends(&late);
        rig.client_gets_nothing();
    }
    let serial = stream.header.serial.0;
    let next = call(remote::CONNECT_GET_VERSION, serial);
    rig.relays(&next);
    rig.delivers(&next.reply(|_| ()));
    rig.still_serves();
}

#[test]
fn a_stream_that_the_daemon_aborts_is_over() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    rig.delivers(&stream.stream(Status::ERROR, "error"));
    ended(&mut rig, &stream);
}

#[test]
fn a_stream_that_the_client_aborts_is_over_once_the_daemon_says_so() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    rig.relays(&stream.stream(Status::ERROR, ""));
    rig.delivers(&stream.stream(MORE, "crossing"));
    rig.delivers(&stream.stream(Status::ERROR, "stream aborted at client request"));
    ended(&mut rig, &stream);
}

#[test]
fn an_error_reply_in_the_place_of_a_hole_ends_the_stream() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    rig.relays(&stream.hole());
    rig.delivers(&stream.error("unable to seek"));
    ended(&mut rig, &stream);
}

#[test]
fn a_stream_call_that_is_refused_leaves_no_stream() {
    let mut rig = Rig::opened();
    let open = call(remote::DOMAIN_OPEN_CONSOLE, 1);
    rig.relays(&open);
    rig.delivers(&open.error("no console"));
    ended(&mut rig, &open);
}

#[test]
fn what_the_client_sends_before_its_stream_is_open_is_dropped() {
    let mut rig = Rig::opened();
    let open = call(remote::STORAGE_VOL_UPLOAD, 1);
    rig.relays(&open);
    rig.client_sends(&open.stream(MORE, "too early"));
    rig.daemon_gets_nothing();
    rig.delivers(&open.reply(|_| ()));
    rig.relays(&open.stream(MORE, "in time"));
}

/// libvirt's daemon starts a stream before it queues the reply to its call.
#[test]
fn what_the_daemon_sends_before_its_reply_is_not_lost() {
    let mut rig = Rig::opened();
    let open = call(remote::STORAGE_VOL_DOWNLOAD, 1);
    rig.relays(&open);
    rig.delivers(&open.stream(MORE, "first"));
    rig.delivers(&open.hole());
    rig.delivers(&open.reply(|_| ()));
    rig.delivers(&open.stream(MORE, "second"));
    rig.relays(&open.stream(Status::OK, ""));
    rig.delivers(&open.stream(Status::OK, ""));
    ended(&mut rig, &open);
}

#[test]
fn a_stream_that_ends_before_its_reply_is_not_opened_by_it() {
    let mut rig = Rig::opened();
    let open = call(remote::STORAGE_VOL_DOWNLOAD, 1);
    rig.relays(&open);
    rig.delivers(&open.stream(Status::ERROR, "cannot read"));
    rig.daemon_sends(&open.stream(MORE, "late"));
    rig.client_gets_nothing();
    rig.delivers(&open.reply(|_| ()));
    ended(&mut rig, &open);
}

#[test]
fn frames_of_a_stream_that_is_not_open_pass_to_nobody() {
    let mut rig = Rig::opened();
    let stream = rig.opens_stream(1);
    let foreign = [
        stream
            .stream(MORE, "x")
            .with(|header| header.serial = Serial(2)),
        stream
            .stream(MORE, "x")
            .with(|header| header.procedure = remote::STORAGE_VOL_UPLOAD),
        stream
            .stream(MORE, "x")
            .with(|header| header.program = Program::QEMU),
        stream.stream(MORE, "x").with(|header| header.version = 2),
    ];
    let plain = call(remote::CONNECT_GET_VERSION, 3);
    rig.relays(&plain);
    for frame in foreign.iter().chain([&plain.stream(MORE, "x")]) {
        rig.client_sends(frame);
        rig.daemon_gets_nothing();
        rig.daemon_sends(frame);
        rig.client_gets_nothing();
    }
    rig.relays(&stream.stream(MORE, "x"));
    rig.still_serves();
}

#[test]
fn several_streams_do_not_touch_each_other() {
    let mut rig = Rig::opened();
    let (one, two) = (rig.opens_stream(1), rig.opens_stream(2));
    rig.delivers(&one.stream(Status::ERROR, "error"));
    rig.relays(&two.stream(MORE, "x"));
    rig.delivers(&two.stream(MORE, "y"));
    ended(&mut rig, &one);
    rig.delivers(&two.stream(MORE, "z"));
}

#[test]
fn streams_are_bounded_those_on_their_way_included() {
    let mut rig = Rig::opened();
    let first = rig.opens_stream(0);
    for serial in 1..256 {
        rig.relays(&call(remote::DOMAIN_OPEN_CONSOLE, serial));
    }
    let over = call(remote::DOMAIN_OPEN_CONSOLE, 256);
    assert_eq!(rig.refuses(&over).0, 39);
    rig.daemon_gets_nothing();
    rig.still_serves();
    rig.delivers(&first.stream(Status::ERROR, "error"));
    rig.relays(&over);
}
