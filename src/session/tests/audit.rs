//! What is recorded of decisions: each refusal with its id and count, allowed calls where the
//! policy wants them, and never a secret.

use super::access::{by_name, domain, error_about, on, under};
use super::*;
use crate::policy::access::Reason;
use crate::protocol::table::qemu;
use crate::session::access::refusal::{self, Record};

const READER: &str = "\n  - { who: '*', allow: ['connect:getattr'] }\n";

/// On lines 6 and 7 of the file.
const RECORDED: &str = "
  audit: { allowed: ['domain:getattr', 'domain:suspend', 'domain:write'] }
  rules: [ { who: '*', allow: ['connect:*', 'domain:*'], on: { domain: { name: 'acme-*' } } },
    { who: '*', deny: 'domain:suspend', on: { domain: { name: acme-2 } } } ]
";

impl Rig {
    /// The records since the last look.
    fn records(&mut self) -> Vec<Record> {
        let asked = self.asked.drain(..);
        let records = asked.filter_map(|action| match action {
            Action::Audit(record) => Some(*record),
            _ => None,
        });
        records.collect()
    }

    /// Ids and counts of the records since the last look.
    fn counts(&mut self) -> Vec<(String, u64)> {
        let records = self.records().into_iter();
        records.map(|it| (it.id.to_string(), it.count)).collect()
    }

    /// The proxy asks for events, and for the domain of a UUID.
    #[track_caller]
    fn daemon_tells_of(&mut self, name: &str, number: u8) {
        for callback in [70, 71] {
            let register = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
            self.daemon_says_yes(register, |writer| _ = writer.i32(callback));
        }
        self.daemon_says_yes(remote::DOMAIN_LOOKUP_BY_UUID, |writer| {
            domain(name, number).encode(writer);
        });
    }
}

fn start(serial: u32) -> Msg {
    on(remote::DOMAIN_CREATE, serial, domain("a", 1))
}

/// Five refusals, of which the last is not recorded yet.
fn with_five_refusals() -> Rig {
    let mut rig = under(READER);
    for serial in 1..=5 {
        let (_, text) = rig.refuses(&start(serial));
        assert!(text.ends_with("(refusal r-1)"), "{text}");
    }
    let counts = [1, 2, 4].map(|count| ("r-1".to_owned(), count));
    assert_eq!(rig.counts(), counts);
    rig
}

fn fifth() -> Vec<(String, u64)> {
    vec![("r-1".to_owned(), 5)]
}

#[test]
fn a_record_has_the_id_that_the_client_sees() {
    let mut rig = under(READER);
    let (_, text) = rig.refuses(&start(1));
    let records = rig.records();
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(
        text,
        format!("access denied: {} (refusal {})", record.reason, record.id)
    );
    assert_eq!(record.verdict, refusal::Verdict::Refused);
    assert_eq!(&*record.upstream, "qemu");
    assert_eq!(record.procedure_name(), "DOMAIN_CREATE");
    let object = "domain a 01010101-0101-0101-0101-010101010101 (as the client names it)";
    assert_eq!(record.object, object);
    assert_eq!(record.permission.unwrap().to_string(), "domain:start");
    assert_eq!(
        (record.rule, record.cause),
        (None, Some(Reason::NotAllowed))
    );
    assert_eq!((record.generation, record.count), (1, 1));
}

#[test]
fn a_connection_that_may_open_nothing_is_recorded_each_time() {
    let mut rig = Rig::start();
    rig.router.access = super::access::table("\n  - { who: '*', allow: ['domain:getattr'] }\n");
    for number in 1..=2 {
        let (code, text) = rig.refuses(&connect_open(number, Some("good:///"), 0));
        let expected = format!("connect:getattr is not allowed (refusal r-o{number})");
        assert_eq!((code, text), (88, format!("access denied: {expected}")));
        let records = rig.records();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert_eq!(*record.id, format!("r-o{number}"));
        assert_eq!(record.procedure_name(), "CONNECT_OPEN");
        assert_eq!((&*record.upstream, record.rule), ("", None));
        assert_eq!(record.cause, Some(Reason::NotAllowed));
    }
    // The ids after an open that is let through are others.
    rig.router.access = super::access::table(READER);
    rig.open();
    let (_, text) = rig.refuses(&start(9));
    assert!(text.ends_with("(refusal r-1)"), "{text}");
}

#[test]
fn the_last_count_is_recorded_however_the_connection_ends() {
    let mut rig = with_five_refusals();
    rig.client_ends();
    assert_eq!(rig.counts(), fifth());

    let mut rig = with_five_refusals();
    rig.daemon_dies();
    assert_eq!(rig.counts(), fifth());

    let mut rig = with_five_refusals();
    rig.drain();
    assert_eq!(rig.counts(), fifth());

    // The shell has let the connection go.
    let mut rig = with_five_refusals();
    rig.session.handle_end();
    rig.carry_out();
    assert_eq!(rig.counts(), fifth());

    let mut rig = under(READER);
    rig.refuses(&start(1));
    assert_eq!(rig.counts().len(), 1);
    rig.client_ends();
    assert_eq!(rig.counts(), [], "that one is recorded already");
}

#[test]
fn another_policy_counts_anew() {
    let mut rig = with_five_refusals();
    rig.router.generation = 2;
    rig.refuses(&start(6));
    let records = rig.records().into_iter();
    let seen: Vec<_> = records
        .map(|it| (it.id.to_string(), it.count, it.generation))
        .collect();
    assert_eq!(seen, [("r-1".into(), 5, 1), ("r-2".into(), 1, 2)]);
}

#[test]
fn an_allowed_call_is_recorded_with_the_rule_that_allows_it() {
    let mut rig = under(RECORDED);
    let suspend = on(remote::DOMAIN_SUSPEND, 1, domain("acme-1", 1));
    rig.client_sends(&suspend);
    rig.daemon_tells_of("acme-1", 1);
    assert_eq!(rig.daemon_gets(), suspend);
    let records = rig.records();
    let [record] = &records[..] else {
        panic!("{records:?}");
    };
    assert_eq!(record.verdict, refusal::Verdict::Allowed);
    assert_eq!(
        (&*record.id, record.rule, record.cause),
        ("", Some(7), None)
    );
    assert_eq!(record.permission.unwrap().to_string(), "domain:suspend");
    let object = "domain acme-1 01010101-0101-0101-0101-010101010101";
    assert_eq!(record.object, object);

    // Of a class that the policy does not name.
    let start = on(remote::DOMAIN_CREATE, 2, domain("acme-1", 1));
    rig.client_sends(&start);
    rig.daemon_says_yes(remote::DOMAIN_LOOKUP_BY_UUID, |writer| {
        domain("acme-1", 1).encode(writer);
    });
    assert_eq!(rig.daemon_gets(), start);
    assert_eq!(rig.records(), []);
}

#[test]
fn a_denied_call_is_recorded_with_the_rule_that_denies_it() {
    let mut rig = under(RECORDED);
    let suspend = on(remote::DOMAIN_SUSPEND, 1, domain("acme-2", 2));
    rig.client_sends(&suspend);
    rig.daemon_tells_of("acme-2", 2);
    let (code, _) = rig.client_gets_fault(&suspend);
    assert_eq!(code, 88);
    let records = rig.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(
        (records[0].rule, records[0].cause),
        (Some(8), Some(Reason::Denied))
    );
    assert_eq!(records[0].verdict, refusal::Verdict::Refused);
}

#[test]
fn a_hidden_object_is_recorded_as_that_and_never_as_allowed() {
    let mut rig = under(RECORDED);
    // By its name alone.
    let look_up = by_name(remote::DOMAIN_LOOKUP_BY_NAME, 1, "globex-1");
    rig.client_sends(&look_up);
    let asked = rig.daemon_gets();
    assert_ne!(asked.payload, look_up.payload);
    let text = String::from_utf8_lossy(&asked.payload[4..])
        .trim_end_matches('\0')
        .to_owned();
    rig.daemon_sends(&error_about(&asked, 42, &format!("no domain '{text}'")));
    let (code, text) = rig.client_gets_fault(&look_up);
    assert_eq!(
        (code, &*text),
        (42, "no domain 'globex-1'"),
        "no id, no hint"
    );

    // By what the daemon finds.
    let look_up = call(remote::DOMAIN_LOOKUP_BY_ID, 2);
    let look_up = Msg::new(look_up.header, |writer| _ = writer.i32(7));
    rig.client_sends(&look_up);
    let asked = rig.daemon_gets();
    assert_eq!(asked, look_up);
    rig.daemon_sends(&asked.reply(|writer| domain("globex-2", 2).encode(writer)));
    let again = rig.daemon_gets();
    rig.daemon_sends(&error_about(&again, 42, "no domain"));
    rig.client_gets_fault(&look_up);

    let records = rig.records().into_iter();
    let seen: Vec<_> = records
        .map(|it| (it.verdict, it.object, it.reason))
        .collect();
    let found = "domain globex-2 02020202-0202-0202-0202-020202020202";
    let hidden = |object: &str| (refusal::Verdict::Hidden, object.to_owned(), String::new());
    assert_eq!(seen, [hidden("domain globex-1"), hidden(found)]);
}

#[test]
fn a_look_up_is_recorded_when_it_has_found_what_is_allowed() {
    let mut rig = under(RECORDED);
    let look_up = by_name(remote::DOMAIN_LOOKUP_BY_NAME, 1, "acme-1");
    rig.relays(&look_up);
    assert_eq!(rig.records(), []);
    rig.delivers(&look_up.reply(|writer| domain("acme-1", 1).encode(writer)));
    let records = rig.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].verdict, refusal::Verdict::Allowed);
    assert_eq!(records[0].permission.unwrap().to_string(), "domain:getattr");
    assert!(
        records[0].object.starts_with("domain acme-1 "),
        "{records:?}"
    );
}

#[test]
fn in_shadow_a_look_up_that_would_find_nothing_is_recorded() {
    let rules = "\n  mode: shadow\n  rules:\n  - { who: '*', allow: ['connect:*'] }\n";
    let mut rig = under(rules);
    let look_up = by_name(remote::DOMAIN_LOOKUP_BY_NAME, 1, "acme-1");
    rig.relays(&look_up);
    rig.delivers(&look_up.reply(|writer| domain("acme-1", 1).encode(writer)));
    let records = rig.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].verdict, refusal::Verdict::Shadow);
}

#[test]
fn what_cannot_be_read_is_recorded() {
    let mut rig = under(RECORDED);
    let mut suspend = on(remote::DOMAIN_SUSPEND, 1, domain("acme-1", 1));
    suspend.payload.extend([0; 4]);
    rig.refuses(&suspend);
    let records = rig.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].reason, "the arguments cannot be read");
}

#[test]
fn a_client_that_asks_for_one_thing_after_the_other_fills_no_log() {
    let mut rig = under(RECORDED);
    for serial in 1..1000 {
        let look_up = by_name(
            remote::DOMAIN_LOOKUP_BY_NAME,
            serial,
            &format!("globex-{serial}"),
        );
        rig.client_sends(&look_up);
        let asked = rig.daemon_gets();
        rig.daemon_sends(&error_about(&asked, 42, "no domain"));
        rig.client_gets_fault(&look_up);
    }
    let records = rig.records();
    assert!(records.len() < 80, "{}", records.len());
    let last = records.last().unwrap();
    assert_eq!((last.verdict, last.count), (refusal::Verdict::Hidden, 512));
}

#[test]
fn no_secret_that_a_call_carries_gets_into_a_record() {
    const SECRET: &str = "hunter/2";
    let guarded = "
  - { who: '*', allow: ['connect:*', 'domain:*'],
      guards: { host_paths: [/srv], monitor_commands: ['query-*'], agent_commands: ['guest-ping'] } }
";
    let define = |serial, more: &str| {
        let header = Header::remote_call(remote::DOMAIN_DEFINE_XML, Serial(serial));
        let xml = format!("<domain type='test'><name>acme-1</name>{more}</domain>");
        Msg::new(header, |writer| _ = writer.string(&xml))
    };
    let monitor = |serial, command: &str, flags| {
        let header = Header {
            program: Program::QEMU,
            ..Header::remote_call(qemu::DOMAIN_MONITOR_COMMAND, Serial(serial))
        };
        Msg::new(header, |writer| {
            domain("acme-1", 1).encode(writer);
            writer.string(command).u32(flags);
        })
    };
    let calls = [
        define(1, &format!("<x>{SECRET}</x>")),
        define(2, &format!("<graphics type='vnc' key='{SECRET}'/>")),
        define(
            3,
            &format!(
                "<devices><disk type='file'><source file='json:{{{SECRET}}}'/></disk></devices>"
            ),
        ),
        define(4, &format!("<a>{SECRET}")),
        define(
            5,
            &format!("<graphics passwd='{SECRET}'/><kernel>/boot/x</kernel>"),
        ),
        monitor(6, &format!("set_password vnc {SECRET}"), 1),
        monitor(7, &format!("set_password\nvnc {SECRET}"), 1),
        monitor(
            8,
            &format!(r#"{{"execute":"set_password","arguments":{{"password":"{SECRET}"}}}}"#),
            0,
        ),
        monitor(9, &format!(r#"{{"execute":"x","id":1,"{SECRET}"#), 0),
        monitor(
            10,
            &format!(
                r#"{{"execute":"human-monitor-command","arguments":{{"command-line":"x","cpu-index":"{SECRET}"}}}}"#
            ),
            0,
        ),
    ];
    let mut rig = under(guarded);
    for call in calls {
        let (code, text) = rig.refuses(&call);
        assert_eq!(code, 88, "{text}");
        let records = rig.records();
        assert_eq!(records.len(), 1, "{call:?}");
        let record = format!("{:?}", records[0]);
        assert!(!record.contains("hunter"), "{record}");
        assert!(!record.contains("<domain"), "{record}");
    }
}
