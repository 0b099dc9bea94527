//! Under rules, with daemons that are lost and come back: nothing of before is trusted, and nothing
//! that is hidden shows.

use super::*;
use crate::session::tests::links::NETWORKS;

const REGISTER: Procedure = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;

fn back() -> Options {
    Options {
        upstreams: vec![Upstream {
            reconnect: true,
            ..upstream("qemu")
        }],
        drivers: vec![(Driver::Network, upstream("network"), false)],
        ..Options::default()
    }
}

/// The proxy knows the pair of `acme-1` and 1, and the daemon was restarted since; of the two
/// registrations it takes these again.
fn restarted(takes: [bool; 2]) -> Rig {
    let mut rig = opened_under(ACME, back());
    rig.learns_acme();
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    for (callback, takes) in (5..).zip(takes) {
        if takes {
            rig.at("qemu").says_yes(REGISTER, |w| _ = w.i32(callback));
        } else {
            rig.at("qemu").says_no(REGISTER, "too many callbacks");
        }
    }
    rig
}

fn suspend(serial: u32) -> Msg {
    on(remote::DOMAIN_SUSPEND, serial, domain("acme-1", 1))
}

#[test]
fn what_was_known_before_a_restart_is_asked_again() {
    let mut rig = restarted([true, true]);
    rig.client_sends(&suspend(3));
    // It has another name by now.
    rig.daemon_tells(domain("secret", 1));
    let sent = rig.daemon_gets();
    assert_ne!(sent.payload, suspend(3).payload);
    assert!(!String::from_utf8_lossy(&sent.payload).contains("secret"));
}

#[test]
fn what_is_learned_after_a_restart_holds_until_an_event() {
    let mut rig = restarted([true, true]);
    rig.client_sends(&suspend(3));
    rig.daemon_tells(domain("acme-1", 1));
    assert_eq!(rig.daemon_gets(), suspend(3));
    rig.relays(&suspend(4));
    rig.daemon_sends(&event(5, domain("acme-1", 1), 1));
    rig.client_gets_nothing();
    rig.client_sends(&suspend(5));
    assert_eq!(
        rig.daemon_gets().header.procedure,
        remote::DOMAIN_LOOKUP_BY_UUID
    );
}

#[test]
fn nothing_is_kept_of_a_daemon_that_does_not_tell_of_changes_any_more() {
    for takes in [[false, true], [true, false]] {
        let mut rig = restarted(takes);
        for serial in 3..6 {
            rig.client_sends(&suspend(serial));
            rig.daemon_tells(domain("acme-1", 1));
            assert_eq!(rig.daemon_gets(), suspend(serial));
        }
        rig.at("qemu").dies();
        rig.at("qemu").opens();
        for callback in [1, 2] {
            rig.at("qemu").says_yes(REGISTER, |w| _ = w.i32(callback));
        }
        rig.inbox.clear();
        rig.client_sends(&suspend(6));
        rig.daemon_tells(domain("acme-1", 1));
        assert_eq!(rig.daemon_gets(), suspend(6));
        rig.relays(&suspend(7));
    }
}

#[test]
fn a_call_that_waits_for_an_answer_fails_with_the_daemon_once() {
    let mut rig = opened_under(ACME, back());
    rig.client_sends(&suspend(1));
    assert_eq!(rig.at("qemu").gets().header.procedure, REGISTER);
    rig.at("qemu").dies();
    rig.client_gets_fault(&suspend(1));
    rig.client_gets_nothing();
    rig.at("qemu").opens();
    // Its registrations were not confirmed, and it is the daemon's first.
    rig.at("qemu").gets_nothing();
    rig.client_sends(&suspend(1));
    rig.daemon_promises_events();
    rig.daemon_tells(domain("acme-1", 1));
    assert_eq!(rig.daemon_gets(), suspend(1));
}

#[test]
fn a_call_that_waits_for_a_dead_daemon_is_decided_on_by_the_next() {
    let mut rig = restarted([true, true]);
    rig.at("qemu").dies();
    rig.client_sends(&suspend(3));
    rig.at("qemu").opens();
    rig.daemon_promises_events();
    rig.daemon_tells(domain("acme-1", 1));
    assert_eq!(rig.daemon_gets(), suspend(3));
}

#[test]
fn hidden_events_stay_hidden_after_a_restart() {
    let mut rig = opened_under(ACME, back());
    let register = Msg::new(Header::remote_call(REGISTER, Serial(1)), |w| {
        _ = w.i32(0).u32(0)
    });
    rig.relays(&register);
    rig.delivers(&register.reply(|w| _ = w.i32(70)));
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    // While it is made again, and after.
    rig.at("qemu").says(&event(5, domain("other", 9), 2));
    rig.at("qemu").says_yes(REGISTER, |w| _ = w.i32(5));
    rig.at("qemu").says(&event(5, domain("acme-1", 1), 2));
    rig.at("qemu").says(&event(5, domain("other", 9), 2));
    assert_eq!(rig.client_gets(), event(70, domain("acme-1", 1), 2));
    rig.client_gets_nothing();
}

#[test]
fn questions_in_line_for_a_daemon_that_is_not_to_be_had_fail_too() {
    let mut rig = restarted([true, true]);
    rig.at("qemu").dies();
    // It is waited for in vain.
    let end = rig.now + 11 * SECOND;
    while rig.now < end {
        if rig.at("qemu").is_open() {
            rig.at("qemu").is_missing();
        }
        rig.wait(SECOND);
    }
    while !rig.at("qemu").is_open() {
        rig.wait(SECOND);
    }
    let calls: Vec<Msg> = (0..40)
        .map(|number| {
            let name = format!("acme-{number}");
            on(remote::DOMAIN_SUSPEND, number, domain(&name, number as u8))
        })
        .collect();
    calls.iter().for_each(|call| rig.client_sends(call));
    rig.client_gets_nothing();
    rig.at("qemu").is_missing();
    assert_eq!(rig.inbox.len(), calls.len());
    for call in &calls {
        let is_its = |got: &Msg| got.header == call.header.answer(Status::ERROR);
        assert_eq!(rig.inbox.iter().filter(|got| is_its(got)).count(), 1);
    }
}

#[test]
fn rules_hold_for_networks_at_their_own_daemon() {
    let mut rig = opened_under(ACME, back());
    let list = Msg::new(
        Header::remote_call(remote::CONNECT_LIST_ALL_NETWORKS, Serial(1)),
        |writer| _ = writer.i32(1).u32(0),
    );
    rig.client_sends(&list);
    rig.at("network").opens();
    let mut answers = 0;
    while let Some(call) = rig.dialled().inbox.pop_front() {
        let networks = [("acme-1", 1), ("other", 2)].map(|(name, number)| Object::Network {
            name,
            uuid: uuid(number),
        });
        let answer = match call.header.procedure {
            remote::CONNECT_LIST_ALL_NETWORKS => call.reply(|writer| {
                writer.u32(2);
                networks.iter().for_each(|network| network.encode(writer));
                writer.u32(2);
            }),
            _ => panic!("{call:?}"),
        };
        answers += 1;
        rig.at("network").says(&answer);
    }
    assert_eq!(answers, 1);
    let got = rig.client_gets();
    assert_eq!(got.header, list.header.answer(Status::OK));
    let text = String::from_utf8_lossy(&got.payload).into_owned();
    assert!(text.contains("acme-1") && !text.contains("other"), "{text}");
    rig.at("network").dies();
    rig.client_gets_nothing();
    rig.client_sends(&call(NETWORKS, 2));
    rig.at("qemu").gets_nothing();
}
