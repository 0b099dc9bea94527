//! Registrations for events: held for each daemon, made again after it was lost, under the numbers
//! that the client was told first.

use super::links::{NETWORKS, with};
use super::*;
use crate::protocol::table::qemu;

/// A kind of registration: how it is made and ended, and an event of it.
struct Form {
    daemon: &'static str,
    program: Program,
    register: Procedure,
    deregister: Procedure,
    event: Procedure,
    has_number: bool,
}

const fn form(
    daemon: &'static str,
    [register, deregister, event]: [Procedure; 3],
    has_number: bool,
) -> Form {
    Form {
        daemon,
        program: Program::REMOTE,
        register,
        deregister,
        event,
        has_number,
    }
}

const DOMAINS: Form = form(
    "qemu",
    [
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY,
        remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY,
        remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
    ],
    true,
);

const OLD: Form = form(
    "qemu",
    [
        remote::CONNECT_DOMAIN_EVENT_REGISTER,
        remote::CONNECT_DOMAIN_EVENT_DEREGISTER,
        remote::DOMAIN_EVENT_LIFECYCLE,
    ],
    false,
);

const FORMS: [Form; 9] = [
    form(
        "qemu",
        [
            remote::CONNECT_REGISTER_CLOSE_CALLBACK,
            remote::CONNECT_UNREGISTER_CLOSE_CALLBACK,
            remote::CONNECT_EVENT_CONNECTION_CLOSED,
        ],
        false,
    ),
    OLD,
    form(
        "qemu",
        [
            remote::CONNECT_DOMAIN_EVENT_REGISTER_ANY,
            remote::CONNECT_DOMAIN_EVENT_DEREGISTER_ANY,
            remote::DOMAIN_EVENT_REBOOT,
        ],
        false,
    ),
    DOMAINS,
    form(
        "network",
        [
            remote::CONNECT_NETWORK_EVENT_REGISTER_ANY,
            remote::CONNECT_NETWORK_EVENT_DEREGISTER_ANY,
            remote::NETWORK_EVENT_LIFECYCLE,
        ],
        true,
    ),
    form(
        "storage",
        [
            remote::CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY,
            remote::CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY,
            remote::STORAGE_POOL_EVENT_REFRESH,
        ],
        true,
    ),
    form(
        "nodedev",
        [
            remote::CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY,
            remote::CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY,
            remote::NODE_DEVICE_EVENT_UPDATE,
        ],
        true,
    ),
    form(
        "secret",
        [
            remote::CONNECT_SECRET_EVENT_REGISTER_ANY,
            remote::CONNECT_SECRET_EVENT_DEREGISTER_ANY,
            remote::SECRET_EVENT_VALUE_CHANGED,
        ],
        true,
    ),
    Form {
        program: Program::QEMU,
        ..form(
            "qemu",
            [
                qemu::CONNECT_DOMAIN_MONITOR_EVENT_REGISTER,
                qemu::CONNECT_DOMAIN_MONITOR_EVENT_DEREGISTER,
                qemu::DOMAIN_MONITOR_EVENT,
            ],
            true,
        )
    },
];

impl Form {
    fn call(&self, procedure: Procedure, serial: u32, word: i32) -> Msg {
        let header = Header::remote_call(procedure, Serial(serial));
        let program = self.program;
        Msg::new(Header { program, ..header }, |writer| _ = writer.i32(word))
    }

    fn register(&self, serial: u32, event: i32) -> Msg {
        self.call(self.register, serial, event)
    }

    fn deregister(&self, serial: u32, number: i32) -> Msg {
        self.call(self.deregister, serial, number)
    }

    /// An event under a number, told apart by a word.
    fn event(&self, number: i32, word: i32) -> Msg {
        Msg::new(message(self.program, self.event).header, |writer| {
            if self.has_number {
                writer.i32(number);
            }
            writer.i32(word);
        })
    }
}

/// Every driver with events has a daemon that is dialled again at once.
fn coming_back() -> Rig {
    with(|options| {
        let drivers = [
            Driver::Network,
            Driver::Storage,
            Driver::Nodedev,
            Driver::Secret,
        ];
        let back = |name: &str| Upstream {
            reconnect: true,
            ..upstream(name)
        };
        options.upstreams = vec![back("qemu")];
        options.drivers = drivers
            .map(|driver| (driver, back(driver.scheme()), false))
            .into();
    })
}

impl Rig {
    /// The client registers and is told a number.
    #[track_caller]
    fn registers_for(&mut self, form: &Form, serial: u32, event: i32, number: i32) -> Msg {
        let register = form.register(serial, event);
        self.client_sends(&register);
        if self.dials(form.daemon) == 1 && form.daemon != "qemu" && serial == 1 {
            self.at(form.daemon).opens();
        }
        assert_eq!(self.at(form.daemon).gets(), register);
        let reply = register.reply(|writer| _ = writer.i32(number));
        self.at(form.daemon).delivers(&reply);
        register
    }

    /// The daemon is lost, opened again, and takes the registration again under this number.
    #[track_caller]
    fn comes_back(&mut self, form: &Form, number: i32) -> Msg {
        self.at(form.daemon).dies();
        self.at(form.daemon).opens();
        let again = self
            .at(form.daemon)
            .says_yes(form.register, |writer| _ = writer.i32(number));
        self.at(form.daemon).gets_nothing();
        self.client_gets_nothing();
        again
    }

    /// The daemon takes the client's end of a registration under its own number.
    #[track_caller]
    fn deregisters(&mut self, form: &Form, serial: u32, known: i32, theirs: i32) {
        let end = form.deregister(serial, known);
        self.client_sends(&end);
        assert_eq!(self.at(form.daemon).gets(), form.deregister(serial, theirs));
        self.at(form.daemon).delivers(&end.reply(|_| ()));
    }
}

#[test]
fn a_registration_is_made_again_and_keeps_its_number() {
    for form in &FORMS {
        let mut rig = coming_back();
        let register = rig.registers_for(form, 1, 0, 7);
        rig.at(form.daemon).delivers(&form.event(7, 1));
        let again = rig.comes_back(form, 3);
        assert_eq!(again.payload, register.payload);
        assert_eq!(again.header.program, register.header.program);

        rig.at(form.daemon).says(&form.event(3, 2));
        assert_eq!(rig.client_gets(), form.event(7, 2));
        rig.client_gets_nothing();
        if form.has_number {
            // That of nobody, though it was the client's once.
            rig.at(form.daemon).says(&form.event(7, 3));
            rig.client_gets_nothing();
            rig.deregisters(form, 2, 7, 3);
        } else {
            rig.deregisters(form, 2, 0, 0);
        }
        rig.at(form.daemon).dies();
        rig.at(form.daemon).opens();
        rig.at(form.daemon).gets_nothing();
    }
}

#[test]
fn a_number_that_is_taken_is_not_told_twice() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 0);
    rig.registers_for(&DOMAINS, 2, 1, 1);
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    // Both are asked for at once, and may be answered in any order.
    let (first, second) = (rig.at("qemu").gets(), rig.at("qemu").gets());
    rig.at("qemu")
        .says(&second.reply(|writer| _ = writer.i32(0)));
    rig.at("qemu")
        .says(&first.reply(|writer| _ = writer.i32(1)));
    let third = DOMAINS.register(3, 2);
    rig.at("qemu").relays(&third);
    rig.at("qemu")
        .delivers(&third.reply(|writer| _ = writer.i32(2)));
    for (theirs, known) in [(1, 0), (0, 1), (2, 2)] {
        rig.at("qemu").says(&DOMAINS.event(theirs, 5));
        assert_eq!(rig.client_gets(), DOMAINS.event(known, 5));
    }
    rig.deregisters(&DOMAINS, 4, 0, 1);
    // 1 is free at the daemon now, and the client's name for another.
    let fourth = DOMAINS.register(5, 3);
    rig.at("qemu").relays(&fourth);
    rig.at("qemu")
        .says(&fourth.reply(|writer| _ = writer.i32(1)));
    let known = Reader::new(&rig.client_gets().payload).i32().unwrap();
    assert!(![1, 2].contains(&known), "{known}");
    rig.at("qemu").says(&DOMAINS.event(1, 6));
    assert_eq!(rig.client_gets(), DOMAINS.event(known, 6));
    rig.deregisters(&DOMAINS, 6, known, 1);
}

#[test]
fn an_event_before_the_reply_that_names_it_comes_after_it_once() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 0);
    rig.comes_back(&DOMAINS, 5);
    let second = DOMAINS.register(2, 1);
    rig.at("qemu").relays(&second);
    rig.at("qemu").says(&DOMAINS.event(0, 1));
    rig.at("qemu").says(&DOMAINS.event(5, 2));
    rig.at("qemu").says(&DOMAINS.event(0, 3));
    assert_eq!(rig.client_gets(), DOMAINS.event(0, 2));
    rig.client_gets_nothing();
    rig.at("qemu")
        .says(&second.reply(|writer| _ = writer.i32(0)));
    let reply = rig.client_gets();
    let known = Reader::new(&reply.payload).i32().unwrap();
    assert_eq!(known, 1);
    assert_eq!(rig.client_gets(), DOMAINS.event(1, 1));
    assert_eq!(rig.client_gets(), DOMAINS.event(1, 3));
    rig.client_gets_nothing();
}

#[test]
fn events_that_wait_are_few_bytes() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 0);
    rig.comes_back(&DOMAINS, 5);
    let second = DOMAINS.register(2, 1);
    rig.at("qemu").relays(&second);
    let event = Msg::new(DOMAINS.event(0, 1).header, |writer| {
        writer.i32(0).raw(&[0; 1 << 20]);
    });
    for _ in 0..10 {
        rig.at("qemu").says(&event);
    }
    rig.at("qemu")
        .says(&second.reply(|writer| _ = writer.i32(0)));
    rig.client_gets();
    assert_eq!(rig.client_gets().payload.len(), event.payload.len());
    assert!(rig.inbox.is_empty());
}

#[test]
fn events_while_registrations_are_made_again_are_not_lost() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 0);
    rig.registers_for(&DOMAINS, 2, 1, 1);
    rig.registers_for(&OLD, 3, 0, 0);
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    let again: Vec<Msg> = (0..3).map(|_| rig.at("qemu").gets()).collect();
    // Before its own reply, after it, and of a form without numbers.
    rig.at("qemu").says(&DOMAINS.event(10, 1));
    rig.at("qemu")
        .says(&again[0].reply(|writer| _ = writer.i32(10)));
    rig.at("qemu").says(&DOMAINS.event(10, 2));
    rig.at("qemu").says(&again[2].reply(|_| ()));
    rig.at("qemu").says(&OLD.event(0, 3));
    // Nobody registered for these at this daemon.
    rig.at("qemu").says(&FORMS[4].event(0, 4));
    rig.client_gets_nothing();
    rig.at("qemu")
        .says(&again[1].reply(|writer| _ = writer.i32(11)));
    for event in [DOMAINS.event(0, 1), DOMAINS.event(0, 2), OLD.event(0, 3)] {
        assert_eq!(rig.client_gets(), event);
    }
    rig.client_gets_nothing();
}

#[test]
fn events_of_newer_daemons_are_translated_too() {
    let mut rig = coming_back();
    let newer = Form {
        event: Procedure(454),
        ..DOMAINS
    };
    rig.registers_for(&newer, 1, 0, 7);
    rig.comes_back(&newer, 3);
    rig.at("qemu").says(&newer.event(3, 1));
    assert_eq!(rig.client_gets(), newer.event(7, 1));
}

#[test]
fn an_end_while_the_daemon_is_down_reaches_the_next_in_its_place() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 7);
    rig.at("qemu").dies();
    let (end, anew) = (DOMAINS.deregister(2, 7), DOMAINS.register(3, 0));
    let between = call(remote::CONNECT_GET_VERSION, 4);
    for call in [&end, &between, &anew] {
        rig.client_sends(call);
    }
    rig.at("qemu").opens();
    rig.at("qemu")
        .says_yes(DOMAINS.register, |writer| _ = writer.i32(2));
    assert_eq!(rig.at("qemu").gets(), DOMAINS.deregister(2, 2));
    assert_eq!(rig.at("qemu").gets(), between);
    assert_eq!(rig.at("qemu").gets(), anew);
    rig.at("qemu").delivers(&end.reply(|_| ()));
    rig.at("qemu").delivers(&between.reply(|_| ()));
    rig.at("qemu")
        .delivers(&anew.reply(|writer| _ = writer.i32(3)));
    let again = rig.comes_back(&DOMAINS, 9);
    assert_eq!(again.payload, anew.payload);
}

#[test]
fn a_registration_that_waits_through_a_failed_dial_is_held_too() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let register = DOMAINS.register(1, 0);
    rig.client_sends(&register);
    rig.at("qemu").is_missing();
    rig.wait(SECOND);
    rig.at("qemu").opens();
    assert_eq!(rig.at("qemu").gets(), register);
    rig.at("qemu")
        .delivers(&register.reply(|writer| _ = writer.i32(4)));
    assert_eq!(rig.comes_back(&DOMAINS, 1).payload, register.payload);
}

#[test]
fn a_registration_that_failed_leaves_nothing_behind() {
    let mut rig = coming_back();
    rig.at("qemu").dies();
    let register = DOMAINS.register(1, 0);
    rig.client_sends(&register);
    rig.wait(11 * SECOND);
    rig.client_gets_fault(&register);
    // Its serial is free for something else.
    let end = DOMAINS.deregister(1, 5);
    rig.client_sends(&end);
    rig.at("qemu").opens();
    assert_eq!(rig.at("qemu").gets(), end);
    rig.at("qemu")
        .delivers(&end.reply(|writer| _ = writer.i32(5)));
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    rig.at("qemu").gets_nothing();
}

#[test]
fn a_registration_that_the_next_daemon_refuses_is_tried_with_the_one_after_it() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 7);
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    rig.at("qemu")
        .says_no(DOMAINS.register, "too many callbacks");
    rig.at("qemu").serves(&call(remote::CONNECT_GET_VERSION, 2));
    rig.at("qemu").says(&DOMAINS.event(7, 1));
    rig.client_gets_nothing();
    rig.comes_back(&DOMAINS, 4);
    rig.at("qemu").says(&DOMAINS.event(4, 1));
    assert_eq!(rig.client_gets(), DOMAINS.event(7, 1));
}

#[test]
fn the_end_of_a_registration_that_was_refused_is_one() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 7);
    rig.registers_for(&DOMAINS, 2, 1, 8);
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    rig.at("qemu")
        .says_no(DOMAINS.register, "too many callbacks");
    rig.at("qemu")
        .says_yes(DOMAINS.register, |writer| _ = writer.i32(7));
    // 7 is the other's at this daemon.
    let end = DOMAINS.deregister(3, 7);
    rig.client_sends(&end);
    let sent = rig.at("qemu").gets();
    assert_ne!(sent.payload, end.payload);
    rig.at("qemu").delivers(&end.error("no such callback"));
    assert_eq!(rig.comes_back(&DOMAINS, 1).payload, [0, 0, 0, 1]);
}

#[test]
fn calls_that_end_nothing_are_told_so_by_the_daemon() {
    let mut rig = coming_back();
    rig.registers_for(&DOMAINS, 1, 0, 7);
    rig.comes_back(&DOMAINS, 3);
    let end = DOMAINS.deregister(2, 3);
    rig.client_sends(&end);
    assert_ne!(rig.at("qemu").gets().payload, end.payload);
    rig.at("qemu").delivers(&end.error("no such callback"));
    rig.at("qemu").says(&DOMAINS.event(3, 1));
    assert_eq!(rig.client_gets(), DOMAINS.event(7, 1));
}

#[test]
fn arguments_that_no_client_sends_are_not_kept() {
    let mut rig = coming_back();
    let huge = Msg {
        payload: vec![0; 1 << 20],
        ..DOMAINS.register(1, 0)
    };
    rig.at("qemu").relays(&huge);
    rig.at("qemu")
        .delivers(&huge.reply(|writer| _ = writer.i32(0)));
    rig.at("qemu").dies();
    rig.at("qemu").opens();
    rig.at("qemu").gets_nothing();
}

#[test]
fn numbers_of_two_daemons_may_be_the_same() {
    let mut rig = coming_back();
    let networks = &FORMS[4];
    rig.registers_for(networks, 1, 0, 0);
    rig.registers_for(&DOMAINS, 2, 0, 0);
    rig.at("network").delivers(&networks.event(0, 1));
    rig.at("qemu").delivers(&DOMAINS.event(0, 2));
    rig.comes_back(networks, 4);
    rig.at("network").says(&networks.event(4, 3));
    assert_eq!(rig.client_gets(), networks.event(0, 3));
    rig.at("qemu").delivers(&DOMAINS.event(0, 4));
    rig.deregisters(networks, 3, 0, 4);
    rig.at("qemu").delivers(&DOMAINS.event(0, 5));
}

#[test]
fn no_daemon_tells_of_another_ones_objects() {
    let mut rig = coming_back();
    rig.client_sends(&call(NETWORKS, 1));
    rig.at("network").opens();
    for form in &FORMS {
        for name in ["qemu", "network"] {
            rig.at(name).says(&form.event(0, 1));
            let passes = name == form.daemon;
            assert_eq!(rig.inbox.pop_front().is_some(), passes, "{:?}", form.event);
        }
    }
}
