//! Nothing but a proof gets a client past authentication.

use super::*;

fn scram() -> Rig {
    Options {
        auth: Auth::Sasl(vec!["SCRAM-SHA-256".into(), "PLAIN".into()]),
        ..Options::default()
    }
    .start()
}

fn polkit() -> Rig {
    Options {
        auth: Auth::Polkit,
        ..Options::default()
    }
    .start()
}

/// XDR of a SASL message: a word that says whether there is none, a count, a word for each byte.
fn message_of(writer: &mut Writer<'_>, data: Option<&[u8]>) {
    let bytes = data.unwrap_or_default();
    writer.u32(data.is_none().into()).u32(bytes.len() as u32);
    for byte in bytes {
        writer.i32(i32::from(*byte as i8));
    }
}

fn sasl_start(serial: u32, mechanism: &str, data: Option<&[u8]>) -> Msg {
    let header = Header::remote_call(remote::AUTH_SASL_START, Serial(serial));
    Msg::new(header, |writer| {
        writer.string(mechanism);
        message_of(writer, data);
    })
}

fn sasl_step(serial: u32, data: Option<&[u8]>) -> Msg {
    let header = Header::remote_call(remote::AUTH_SASL_STEP, Serial(serial));
    Msg::new(header, |writer| message_of(writer, data))
}

fn sasl_reply(call: &Msg, complete: u32, data: Option<&[u8]>) -> Msg {
    call.reply(|writer| {
        writer.u32(complete);
        message_of(writer, data);
    })
}

fn alice() -> SaslFacts {
    SaslFacts {
        user: "alice".into(),
        mechanism: "SCRAM-SHA-256".into(),
    }
}

impl Rig {
    fn polkit_says(&mut self, outcome: Result<(), Fault>) {
        assert_eq!(self.asked.pop_front(), Some(Action::Polkit));
        self.session.handle_polkit(outcome, self.now);
        self.pump();
    }

    fn sasl_says(&mut self, progress: SaslProgress) {
        self.session.handle_sasl(progress, self.now);
        self.pump();
    }
}

#[test]
fn nothing_else_is_served_before() {
    for mut rig in [scram(), polkit()] {
        let needed = (39, "authentication required".into());
        assert_eq!(rig.refuses(&call(remote::CONNECT_CLOSE, 1)), needed);
        assert_eq!(rig.refuses(&feature(2, 10)), needed);
        let open = connect_open(3, Some("good:///"), 0);
        assert_eq!(rig.refuses(&open), needed);
        assert_eq!(rig.refuses(&open.with_descriptors(0)), needed);
        let identity = call(remote::CONNECT_SET_IDENTITY, 4);
        assert_eq!(rig.refuses(&identity), needed);
        // What does not exist at all is said first, as libvirt's daemon does.
        let unknown = call(Procedure(9999), 5);
        assert_eq!(rig.refuses(&unknown).1, "unknown procedure: 9999");
        let other = call(Procedure(1), 6).with(|header| header.program = Program::ADMIN);
        assert!(rig.refuses(&other).1.starts_with("Cannot find program"));
        rig.client_sends(&a_ping());
        assert_eq!(rig.client_gets(), a_pong());
        assert!(rig.dialled.is_empty() && rig.asked.is_empty());
    }
}

#[test]
fn polkit_lets_a_client_in() {
    let mut rig = polkit();
    let list = call(remote::AUTH_LIST, 0);
    rig.client_sends(&list);
    let polkit = list.reply(|writer| _ = writer.u32(1).i32(2));
    assert_eq!(rig.client_gets(), polkit);

    let ask = call(remote::AUTH_POLKIT, 1);
    rig.client_sends(&ask);
    // An impatient client waits for the answer; its ping does not.
    let open = connect_open(2, Some("good:///"), 0);
    rig.client_sends(&open);
    rig.client_gets_nothing();
    rig.polkit_says(Ok(()));
    assert_eq!(rig.client_gets(), ask.reply(|writer| _ = writer.i32(1)));
    assert_eq!(rig.asked, [Action::Authenticated]);
    rig.daemon_opens();
    assert_eq!(rig.client_gets(), open.reply(|_| ()));
    let again = call(remote::AUTH_LIST, 3);
    rig.client_sends(&again);
    let none = again.reply(|writer| _ = writer.u32(1).i32(0));
    assert_eq!(rig.client_gets(), none);
}

#[test]
fn a_refusal_takes_its_time_and_the_third_is_the_last() {
    let mut rig = polkit();
    for serial in 0..3 {
        let ask = call(remote::AUTH_POLKIT, serial);
        rig.client_sends(&ask);
        rig.polkit_says(Err(Fault::authentication_failed()));
        let failed =
            Action::AuthenticationFailed("authentication failed: authentication failed".into());
        assert_eq!(rig.asked.pop_front(), Some(failed));
        rig.client_gets_nothing();
        rig.wait(SECOND);
        assert_eq!(rig.client_gets_fault(&ask).0, 45);
    }
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn a_sasl_exchange_becomes_a_fact() {
    let mut rig = scram();
    let init = call(remote::AUTH_SASL_INIT, 1);
    rig.client_sends(&init);
    let list = init.reply(|writer| _ = writer.string("SCRAM-SHA-256,PLAIN"));
    assert_eq!(rig.client_gets(), list);

    let start = sasl_start(2, "SCRAM-SHA-256", Some(b"n,,\xff\0"));
    rig.client_sends(&start);
    let input = SaslInput::Start {
        mechanism: "SCRAM-SHA-256".into(),
        data: Some(b"n,,\xff\0".to_vec()),
    };
    assert_eq!(rig.asked.pop_front(), Some(Action::Sasl(input)));
    rig.sasl_says(SaslProgress::Continue(Some(b"r=\x80".to_vec())));
    assert_eq!(rig.client_gets(), sasl_reply(&start, 0, Some(b"r=\x80")));

    let step = sasl_step(3, Some(b""));
    rig.client_sends(&step);
    let input = SaslInput::Step {
        data: Some(Vec::new()),
    };
    assert_eq!(rig.asked.pop_front(), Some(Action::Sasl(input)));
    rig.sasl_says(SaslProgress::Done {
        data: None,
        facts: alice(),
        secured: true,
    });
    assert_eq!(rig.client_gets(), sasl_reply(&step, 1, None));
    assert_eq!(rig.asked, [Action::Secure, Action::Authenticated]);

    // The daemon hears of it.
    rig.client_sends(&connect_open(4, Some("good:///"), 0));
    rig.daemon_accepts();
    rig.daemon_says_auth(0);
    rig.daemon_says_yes(remote::CONNECT_SUPPORTS_FEATURE, |writer| {
        _ = writer.i32(1);
    });
    rig.daemon_says_yes(remote::CONNECT_OPEN, |_| ());
    let identity = rig.daemon_gets();
    let text = String::from_utf8_lossy(&identity.payload).into_owned();
    assert!(text.contains("sasl-user-name") && text.contains("alice"));
}

#[test]
fn a_step_without_a_start_or_after_a_failure_is_refused() {
    let mut rig = scram();
    let early = sasl_step(1, Some(b"x"));
    rig.client_sends(&early);
    rig.wait(SECOND);
    assert_eq!(rig.client_gets_fault(&early).0, 45);

    let start = sasl_start(2, "PLAIN", Some(b"\0a\0b"));
    rig.client_sends(&start);
    rig.sasl_says(SaslProgress::Failed("wrong password".into()));
    rig.wait(SECOND);
    assert_eq!(
        rig.client_gets_fault(&start),
        (45, "authentication failed: authentication failed".into())
    );
    let failed = Action::AuthenticationFailed("wrong password".into());
    assert_eq!(rig.asked.pop_back(), Some(failed));
    rig.asked.clear();

    let step = sasl_step(3, Some(b"x"));
    rig.client_sends(&step);
    rig.wait(SECOND);
    assert_eq!(rig.client_gets_fault(&step).0, 45);
    assert!(matches!(
        rig.asked.make_contiguous(),
        [Action::AuthenticationFailed(_)]
    ));
}

#[test]
fn the_other_way_to_authenticate_and_unknown_mechanisms_are_refused() {
    let mut rig = scram();
    let polkit = call(remote::AUTH_POLKIT, 1);
    rig.client_sends(&polkit);
    rig.wait(SECOND);
    assert_eq!(rig.client_gets_fault(&polkit).0, 45);
    let start = sasl_start(2, "EXTERNAL", None);
    rig.client_sends(&start);
    rig.wait(SECOND);
    assert_eq!(rig.client_gets_fault(&start).0, 45);
    assert!(!rig.asked.iter().any(|ask| matches!(ask, Action::Sasl(_))));
}

#[test]
fn sasl_data_that_cannot_be_read_is_not_passed_on() {
    let mut rig = scram();
    let start = sasl_start(1, "PLAIN", Some(b"abc"));
    let mut cut = start.clone();
    cut.payload.truncate(start.payload.len() - 4);
    assert_eq!(rig.refuses(&cut).0, 39);
    let mut long = start.with(|header| header.serial = Serial(2));
    long.payload = Vec::new();
    let mut writer = Writer::new(&mut long.payload);
    writer.string("PLAIN").u32(0).u32(65_537);
    assert_eq!(rig.refuses(&long).0, 39);
    assert!(rig.asked.is_empty());
}

#[test]
fn there_is_a_deadline_whatever_the_client_or_polkit_does() {
    let mut silent = scram();
    silent.wait(59 * SECOND);
    assert_eq!(silent.ends, []);
    silent.wait(SECOND);
    assert_eq!(silent.ends, [End::Abort]);

    let mut asking = polkit();
    asking.client_sends(&call(remote::AUTH_POLKIT, 0));
    asking.wait(60 * SECOND);
    assert_eq!(asking.ends, [End::Abort]);
    asking.session.handle_polkit(Ok(()), asking.now);
    asking.pump();
    assert_eq!(asking.asked, [Action::Polkit]);
}

#[test]
fn a_client_that_leaves_or_a_drain_ends_it() {
    let mut rig = polkit();
    rig.client_sends(&call(remote::AUTH_POLKIT, 0));
    rig.client_ends();
    assert_eq!(rig.ends, [End::Close]);
    let mut rig = scram();
    rig.drain();
    assert_eq!(rig.ends, [End::Close]);
}

#[test]
fn only_a_trusted_forwarder_says_for_whom_it_speaks() {
    let options = Options {
        forwarder: true,
        ..Options::default()
    };
    let mut rig = options.open();
    rig.relays(&call(remote::CONNECT_SET_IDENTITY, 1));
    let mut rig = Rig::opened();
    assert_eq!(rig.refuses(&call(remote::CONNECT_SET_IDENTITY, 1)).0, 88);
}

/// The shell may wake the session at any time; found by fuzzing.
#[test]
fn a_question_to_the_shell_survives_an_early_timeout() {
    let mut rig = polkit();
    let (first, second) = (call(remote::AUTH_POLKIT, 1), call(remote::AUTH_POLKIT, 2));
    rig.client_sends(&first);
    rig.session.handle_timeout(rig.now);
    rig.client_sends(&second);
    rig.client_gets_nothing();
    assert_eq!(rig.asked.len(), 1);
    rig.polkit_says(Ok(()));
    assert_eq!(rig.client_gets(), first.reply(|w| _ = w.i32(1)));
    // Nothing is left to prove.
    assert_eq!(rig.client_gets_fault(&second).0, 45);
}
