//! Under access rules: what a tenant may do and see, and what the proxy asks to know it.

mod attacks;
mod references;
mod restarts;

use super::*;
use crate::policy::{self, access::Table};
use crate::protocol::object::{Object, Uuid};
use crate::protocol::table::qemu;

const ACME: &str = "
  - who: '*'
    allow: ['connect:*', 'domain:*', 'network:*', 'storage_pool:*', 'storage_vol:*', 'secret:*', 'node_device:*']
    on:
      domain: { name: 'acme-*' }
      network: { name: 'acme-*' }
      storage_pool: { name: acme }
      storage_vol: { pool: acme }
      node_device: { name: 'net_*' }
  - who: '*'
    deny: ['domain:core_dump']
";

const OWNED: &str = "
  - who: '*'
    allow: ['*']
    on: { domain: { owner: acme } }
";

pub(super) fn table(rules: &str) -> Option<Arc<Table>> {
    let text = format!(
        "version: 1
listeners: {{ main: {{ unix: /run/sock }} }}
upstreams: {{ one: {{ unix: /run/one }} }}
routes: [{{ uri: '*', upstream: one }}]
access:{rules}"
    );
    let loaded = policy::load("f", &text, &|_| None);
    let policy = loaded.unwrap_or_else(|report| panic!("{report:?}")).policy;
    Some(policy.access(&ClientFacts::default()))
}

/// An open connection of a client under these rules.
pub(super) fn under(rules: &str) -> Rig {
    opened_under(rules, Options::default())
}

fn opened_under(rules: &str, options: Options) -> Rig {
    let mut rig = options.start();
    rig.router.access = table(rules);
    rig.open();
    rig
}

pub(super) fn uuid(number: u8) -> Uuid {
    Uuid([number; 16])
}

pub(super) fn domain(name: &str, number: u8) -> Object<'_> {
    Object::Domain {
        name,
        uuid: uuid(number),
        id: -1,
    }
}

pub(super) fn on(procedure: Procedure, serial: u32, object: Object<'_>) -> Msg {
    let header = Header::remote_call(procedure, Serial(serial));
    Msg::new(header, |writer| object.encode(writer))
}

pub(super) fn by_name(procedure: Procedure, serial: u32, name: &str) -> Msg {
    let header = Header::remote_call(procedure, Serial(serial));
    Msg::new(header, |writer| _ = writer.string(name))
}

pub(super) fn error_about(call: &Msg, code: i32, text: &str) -> Msg {
    Msg::new(call.header.answer(Status::ERROR), |writer| {
        writer.i32(code).i32(10).optional_string(Some(text)).i32(2);
        writer.u32(0).optional_string(Some("Domain not found: %s"));
        writer
            .optional_string(Some(text))
            .u32(0)
            .i32(-1)
            .i32(-1)
            .u32(0);
    })
}

fn event(callback: i32, domain: Object<'_>, kind: i32) -> Msg {
    let event = message(Program::REMOTE, remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE);
    Msg::new(event.header, |writer| {
        writer.i32(callback);
        domain.encode(writer);
        writer.i32(kind).i32(0);
    })
}

impl Rig {
    /// The proxy asks the daemon to tell of changes of domains; it gets callbacks 70 and 71.
    #[track_caller]
    fn daemon_promises_events(&mut self) {
        for callback in [70, 71] {
            let register = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
            self.daemon_says_yes(register, |writer| _ = writer.i32(callback));
        }
    }

    /// The proxy asks for the domain of a UUID.
    #[track_caller]
    fn daemon_tells(&mut self, domain: Object<'_>) {
        self.daemon_says_yes(remote::DOMAIN_LOOKUP_BY_UUID, |writer| {
            domain.encode(writer)
        });
    }

    /// The daemon gets a call that differs from what the client sent; returns its arguments.
    #[track_caller]
    fn daemon_gets_changed(&mut self, call: &Msg) -> Msg {
        let changed = self.daemon_gets();
        assert_eq!(changed.header, call.header);
        assert_ne!(changed.payload, call.payload);
        changed
    }

    /// The proxy knows the pair of `acme-1` and 1, and will be told of changes.
    fn knowing_acme() -> Self {
        let mut rig = under(ACME);
        rig.learns_acme();
        rig
    }

    #[track_caller]
    fn learns_acme(&mut self) {
        let rig = self;
        let first = on(remote::DOMAIN_SUSPEND, 1, domain("acme-1", 1));
        rig.client_sends(&first);
        rig.daemon_promises_events();
        rig.daemon_tells(domain("acme-1", 1));
        assert_eq!(rig.daemon_gets(), first);
        rig.delivers(&first.reply(|_| ()));
        // What was asked before the promise does not count for longer.
        let second = on(remote::DOMAIN_SUSPEND, 2, domain("acme-1", 1));
        rig.client_sends(&second);
        rig.daemon_tells(domain("acme-1", 1));
        assert_eq!(rig.daemon_gets(), second);
        rig.delivers(&second.reply(|_| ()));
    }
}

#[test]
fn what_no_rule_allows_is_refused_without_asking() {
    let mut rig = under("\n  - { who: '*', allow: ['connect:getattr'] }\n");
    let reboot = on(remote::DOMAIN_REBOOT, 1, domain("a", 1));
    let (code, text) = rig.refuses(&reboot);
    assert_eq!(code, 88);
    assert!(text.starts_with("access denied: domain:"), "{text}");
    assert!(text.ends_with("(refusal r-1)"), "{text}");
    rig.daemon_gets_nothing();
    rig.still_serves();
}

#[test]
fn what_is_always_allowed_is_relayed_untouched() {
    let mut rig = under(ACME);
    let call = call(remote::CONNECT_GET_CAPABILITIES, 1);
    rig.relays(&call);
    rig.delivers(&call.reply(|writer| _ = writer.string("<capabilities/>")));
}

#[test]
fn a_pair_is_asked_for_once_and_then_known() {
    let mut rig = Rig::knowing_acme();
    let third = on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1));
    rig.relays(&third);
    rig.delivers(&third.reply(|_| ()));
}

#[test]
fn what_is_known_is_forgotten_when_the_daemon_tells_of_a_change() {
    for kind in [0, 1, 5] {
        let mut rig = Rig::knowing_acme();
        rig.daemon_sends(&event(70, domain("acme-1", 1), kind));
        rig.client_gets_nothing();
        let next = on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1));
        rig.client_sends(&next);
        rig.daemon_tells(domain("globex-1", 1));
        rig.daemon_gets_changed(&next);
    }
}

#[test]
fn an_answer_that_an_event_may_have_overtaken_is_not_kept() {
    let mut rig = Rig::knowing_acme();
    let second = on(remote::DOMAIN_RESUME, 3, domain("acme-2", 2));
    rig.client_sends(&second);
    let question = rig.daemon_gets();
    rig.daemon_sends(&event(70, domain("globex-2", 2), 0));
    rig.daemon_sends(&question.reply(|writer| domain("acme-2", 2).encode(writer)));
    assert_eq!(rig.daemon_gets(), second);
    rig.delivers(&second.reply(|_| ()));
    let third = on(remote::DOMAIN_RESUME, 4, domain("acme-2", 2));
    rig.client_sends(&third);
    rig.daemon_tells(domain("globex-2", 2));
    rig.daemon_gets_changed(&third);
}

#[test]
fn a_hidden_object_is_answered_by_the_daemon_as_one_that_does_not_exist() {
    let mut rig = under(ACME);
    // Whatever name the client writes, the UUID is that of another's domain.
    let start = on(remote::DOMAIN_CREATE, 1, domain("acme-1", 9));
    rig.client_sends(&start);
    rig.daemon_promises_events();
    rig.daemon_tells(domain("globex-9", 9));
    let asked = rig.daemon_gets_changed(&start);
    let mut reader = Reader::new(&asked.payload);
    let name = reader.string(1000).unwrap();
    let place = asked.payload.len() - 20;
    let stand_in = Uuid(asked.payload[place..place + 16].try_into().unwrap());
    assert!(name.starts_with("acme-1") && name != "acme-1", "{name}");
    assert_ne!(stand_in, uuid(9));
    let text = format!("no domain with matching uuid '{stand_in}' ({name})");
    rig.daemon_sends(&error_about(&start, 42, &text));
    let expected = format!("no domain with matching uuid '{}' (acme-1)", uuid(9));
    assert_eq!(rig.client_gets(), error_about(&start, 42, &expected));
}

#[test]
fn an_object_that_is_not_there_is_not_looked_for_again_under_its_own_name() {
    let mut rig = under(ACME);
    let start = on(remote::DOMAIN_CREATE, 1, domain("acme-1", 9));
    rig.client_sends(&start);
    rig.daemon_promises_events();
    let question = rig.daemon_gets();
    rig.daemon_sends(&error_about(&question, 42, "no domain"));
    // It may come into being meanwhile, as anybody's.
    rig.daemon_gets_changed(&start);
}

#[test]
fn a_wrong_name_is_corrected() {
    let mut rig = Rig::knowing_acme();
    let start = on(remote::DOMAIN_CREATE, 3, domain("globex-1", 1));
    rig.client_sends(&start);
    let expected = on(remote::DOMAIN_CREATE, 3, domain("acme-1", 1));
    assert_eq!(rig.daemon_gets(), expected);
    rig.delivers(&expected.reply(|_| ()));
}

#[test]
fn a_visible_object_with_a_forbidden_action_is_denied() {
    let mut rig = Rig::knowing_acme();
    let dump = Msg::new(
        Header::remote_call(remote::DOMAIN_CORE_DUMP, Serial(3)),
        |writer| {
            domain("acme-1", 1).encode(writer);
            writer.string("/tmp/x").u32(0);
        },
    );
    let (code, text) = rig.refuses(&dump);
    assert_eq!(code, 88);
    assert!(text.contains("domain:core_dump"), "{text}");
}

#[test]
fn a_look_up_by_a_hidden_name_asks_for_a_name_that_does_not_exist() {
    let mut rig = under(ACME);
    let look_up = by_name(remote::DOMAIN_LOOKUP_BY_NAME, 1, "globex-1");
    rig.client_sends(&look_up);
    let asked = rig.daemon_gets_changed(&look_up);
    let name = Reader::new(&asked.payload).string(1000).unwrap().to_owned();
    rig.daemon_sends(&error_about(&look_up, 42, &format!("no domain '{name}'")));
    let expected = error_about(&look_up, 42, "no domain 'globex-1'");
    assert_eq!(rig.client_gets(), expected);
}

#[test]
fn a_look_up_that_finds_a_hidden_object_is_made_again_for_none() {
    let mut rig = under(ACME);
    let header = Header::remote_call(remote::DOMAIN_LOOKUP_BY_ID, Serial(1));
    let look_up = Msg::new(header, |writer| _ = writer.i32(7));
    rig.relays(&look_up);
    rig.daemon_sends(&look_up.reply(|writer| domain("globex-1", 9).encode(writer)));
    rig.client_gets_nothing();
    let again = rig.daemon_gets_changed(&look_up);
    let id = Reader::new(&again.payload).i32().unwrap();
    rig.daemon_sends(&error_about(
        &look_up,
        42,
        &format!("no domain with id {id}"),
    ));
    let expected = error_about(&look_up, 42, "no domain with id 7");
    assert_eq!(rig.client_gets(), expected);

    let visible = Msg::new(look_up.header, |writer| _ = writer.i32(8));
    rig.relays(&visible);
    rig.delivers(&visible.reply(|writer| domain("acme-1", 1).encode(writer)));
}

fn list_all(serial: u32, need_results: u32) -> Msg {
    let header = Header::remote_call(remote::CONNECT_LIST_ALL_DOMAINS, Serial(serial));
    Msg::new(header, |writer| _ = writer.u32(need_results).u32(0))
}

fn listed(call: &Msg, domains: &[Object<'_>], ret: u32) -> Msg {
    call.reply(|writer| {
        writer.u32(u32::try_from(domains.len()).unwrap());
        for domain in domains {
            domain.encode(writer);
        }
        writer.u32(ret);
    })
}

#[test]
fn lists_leave_hidden_objects_out() {
    let (a, b, c) = (
        domain("acme-1", 1),
        domain("globex-1", 2),
        domain("acme-2", 3),
    );
    let mut rig = under(ACME);
    let list = list_all(1, 1);
    rig.relays(&list);
    rig.daemon_sends(&listed(&list, &[a, b, c], 3));
    assert_eq!(rig.client_gets(), listed(&list, &[a, c], 2));

    // A count alone is counted here.
    let count = list_all(2, 0);
    rig.client_sends(&count);
    assert_eq!(rig.daemon_gets(), list_all(2, 1));
    rig.daemon_sends(&listed(&count, &[a, b], 2));
    assert_eq!(rig.client_gets(), listed(&count, &[], 1));
}

#[test]
fn old_lists_and_counts_are_answered_from_the_new_list() {
    let running = |name, number, id| Object::Domain {
        name,
        uuid: uuid(number),
        id,
    };
    let all = [
        running("globex-1", 1, 4),
        running("acme-1", 2, 5),
        running("acme-2", 3, 6),
    ];
    let mut rig = under(ACME);
    type Expected = fn(&mut Writer<'_>);
    let cases: [(Procedure, Option<i32>, Expected); 3] = [
        (remote::CONNECT_NUM_OF_DOMAINS, None, |writer| {
            _ = writer.u32(2);
        }),
        (remote::CONNECT_LIST_DOMAINS, Some(10), |writer| {
            _ = writer.u32(2).i32(5).i32(6);
        }),
        (remote::CONNECT_LIST_DEFINED_DOMAINS, Some(1), |writer| {
            _ = writer.u32(1).string("acme-1");
        }),
    ];
    for (serial, (procedure, most, expected)) in (1..).zip(cases) {
        let header = Header::remote_call(procedure, Serial(serial));
        let old = Msg::new(header, |writer| {
            if let Some(most) = most {
                writer.i32(most);
            }
        });
        rig.client_sends(&old);
        let new = rig.daemon_gets();
        assert_eq!(new.header.procedure, remote::CONNECT_LIST_ALL_DOMAINS);
        rig.daemon_sends(&listed(&new, &all, 3));
        assert_eq!(rig.client_gets(), old.reply(expected));
    }
}

#[test]
fn a_lost_daemon_answers_old_lists_and_parked_calls_under_what_the_client_called() {
    let mut rig = under(ACME);
    let count = call(remote::CONNECT_NUM_OF_DOMAINS, 1);
    let start = on(remote::DOMAIN_CREATE, 2, domain("acme-1", 1));
    rig.client_sends(&count);
    rig.client_sends(&start);
    rig.daemon_dies();
    rig.client_gets_fault(&count);
    rig.client_gets_fault(&start);
    rig.client_gets_nothing();
}

#[test]
fn events_of_hidden_objects_do_not_pass() {
    let mut rig = under(ACME);
    rig.delivers(&event(5, domain("acme-1", 1), 2));
    rig.daemon_sends(&event(5, domain("globex-1", 2), 2));
    rig.client_gets_nothing();
    // The old form too.
    let old = message(Program::REMOTE, remote::DOMAIN_EVENT_REBOOT);
    rig.daemon_sends(&Msg::new(old.header, |writer| {
        domain("globex-1", 2).encode(writer)
    }));
    rig.client_gets_nothing();
    // What this version does not know might be of anything.
    rig.daemon_sends(&message(Program::REMOTE, Procedure(454)));
    rig.client_gets_nothing();
    let monitor = Msg::new(
        Header {
            program: Program::QEMU,
            procedure: qemu::DOMAIN_MONITOR_EVENT,
            ..old.header
        },
        |writer| {
            writer.i32(1);
            domain("globex-1", 2).encode(writer);
            writer.string("STOP").i64(0).u32(0).u32(0);
        },
    );
    rig.daemon_sends(&monitor);
    rig.client_gets_nothing();
}

#[test]
fn the_proxys_own_registrations_do_not_exist_for_the_client() {
    let mut rig = Rig::knowing_acme();
    let own = deregister(3, 70);
    rig.client_sends(&own);
    let asked = rig.daemon_gets_changed(&own);
    let id = Reader::new(&asked.payload).i32().unwrap();
    rig.daemon_sends(&error_about(&own, 8, &format!("no callback {id}")));
    assert_eq!(rig.client_gets(), error_about(&own, 8, "no callback 70"));
    rig.relays(&deregister(4, 5));
}

fn register(serial: u32) -> Msg {
    let procedure = remote::CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY;
    let header = Header::remote_call(procedure, Serial(serial));
    Msg::new(header, |writer| _ = writer.i32(0).u32(0))
}

fn deregister(serial: u32, callback: i32) -> Msg {
    let procedure = remote::CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY;
    let header = Header::remote_call(procedure, Serial(serial));
    Msg::new(header, |writer| _ = writer.i32(callback))
}

// A daemon refuses a second registration of the same kind from one connection.

#[test]
fn a_registration_that_the_proxy_has_already_is_shared() {
    let mut rig = Rig::knowing_acme();
    let call = register(3);
    rig.client_sends(&call);
    rig.daemon_gets_nothing();
    assert_eq!(rig.client_gets(), call.reply(|writer| _ = writer.i32(70)));
    rig.delivers(&event(70, domain("acme-1", 1), 2));
    rig.daemon_sends(&event(70, domain("globex-1", 2), 2));
    rig.client_gets_nothing();
    // The proxy goes on listening.
    rig.answers(&deregister(4, 70));
    rig.daemon_gets_nothing();
    rig.daemon_sends(&event(70, domain("acme-1", 1), 1));
    rig.client_gets_nothing();
    rig.client_sends(&on(remote::DOMAIN_RESUME, 5, domain("acme-1", 1)));
    rig.daemon_tells(domain("acme-1", 1));
}

#[test]
fn a_registration_of_the_clients_serves_the_proxy_too() {
    let mut rig = under(ACME);
    let call = register(1);
    rig.relays(&call);
    // While it is on its way, the proxy asks for the other kind alone.
    rig.client_sends(&on(remote::DOMAIN_SUSPEND, 2, domain("acme-1", 1)));
    let metadata = rig.daemon_gets();
    assert_eq!(Reader::new(&metadata.payload).i32(), Ok(23));
    rig.daemon_tells(domain("acme-1", 1));
    rig.daemon_gets();
    rig.delivers(&call.reply(|writer| _ = writer.i32(5)));
    rig.daemon_sends(&metadata.reply(|writer| _ = writer.i32(6)));
    // From now on what is learned is kept.
    rig.client_sends(&on(remote::DOMAIN_SUSPEND, 3, domain("acme-1", 1)));
    rig.daemon_tells(domain("acme-1", 1));
    rig.daemon_gets();
    rig.relays(&on(remote::DOMAIN_SUSPEND, 4, domain("acme-1", 1)));
    // Its end is not told the daemon, for the proxy listens on.
    rig.answers(&deregister(5, 5));
    rig.daemon_gets_nothing();
    rig.daemon_sends(&event(5, domain("acme-1", 1), 1));
    rig.client_gets_nothing();
    rig.client_sends(&on(remote::DOMAIN_SUSPEND, 6, domain("acme-1", 1)));
    rig.daemon_tells(domain("acme-1", 1));
}

#[test]
fn an_old_registration_takes_the_place_of_the_proxys() {
    let mut rig = Rig::knowing_acme();
    let old = call(remote::CONNECT_DOMAIN_EVENT_REGISTER, 3);
    rig.client_sends(&old);
    let release = rig.daemon_gets();
    assert_eq!(release.payload, 70_i32.to_be_bytes());
    rig.daemon_gets_nothing();
    rig.daemon_sends(&release.reply(|_| ()));
    assert_eq!(rig.daemon_gets(), old);
    rig.delivers(&old.reply(|writer| _ = writer.i32(1)));
    let gone = message(Program::REMOTE, remote::DOMAIN_EVENT_LIFECYCLE);
    let gone = Msg::new(gone.header, |writer| {
        domain("acme-1", 1).encode(writer);
        writer.i32(1).i32(0);
    });
    for serial in [4, 5] {
        rig.client_sends(&on(remote::DOMAIN_SUSPEND, serial, domain("acme-1", 1)));
        if serial == 4 {
            rig.daemon_tells(domain("acme-1", 1));
        }
        rig.daemon_gets();
    }
    rig.delivers(&gone);
    rig.client_sends(&on(remote::DOMAIN_SUSPEND, 6, domain("acme-1", 1)));
    rig.daemon_tells(domain("acme-1", 1));
}

#[test]
fn another_policy_governs_the_next_call_and_the_next_event() {
    let mut rig = Rig::knowing_acme();
    rig.router.access = table("\n  - { who: '*', allow: ['connect:*'] }\n");
    rig.router.generation = 2;
    rig.daemon_sends(&event(5, domain("acme-1", 1), 2));
    rig.client_gets_nothing();
    let (code, _) = rig.refuses(&on(remote::DOMAIN_RESUME, 3, domain("acme-1", 1)));
    assert_eq!(code, 88);
    rig.router.access = None;
    rig.router.generation = 3;
    rig.delivers(&event(5, domain("globex-1", 2), 2));
    rig.relays(&on(remote::DOMAIN_RESUME, 4, domain("globex-1", 2)));
}

#[test]
fn other_calls_pass_one_that_waits_for_an_answer() {
    let mut rig = under(ACME);
    let start = on(remote::DOMAIN_CREATE, 1, domain("acme-1", 1));
    rig.client_sends(&start);
    rig.daemon_gets();
    rig.daemon_gets();
    let question = rig.daemon_gets();
    let other = call(remote::CONNECT_GET_HOSTNAME, 2);
    rig.relays(&other);
    rig.delivers(&other.reply(|writer| _ = writer.string("host")));
    rig.daemon_sends(&question.reply(|writer| domain("acme-1", 1).encode(writer)));
    assert_eq!(rig.daemon_gets(), start);
}

#[test]
fn a_serial_of_the_proxys_own_makes_the_client_wait() {
    let mut rig = under(ACME);
    rig.client_sends(&on(remote::DOMAIN_CREATE, 1, domain("acme-1", 1)));
    rig.daemon_promises_events();
    let question = rig.daemon_gets();
    let hostile = call(remote::CONNECT_GET_HOSTNAME, question.header.serial.0);
    rig.client_sends(&hostile);
    rig.daemon_gets_nothing();
    rig.daemon_sends(&question.reply(|writer| domain("acme-1", 1).encode(writer)));
    rig.daemon_gets();
    assert_eq!(rig.daemon_gets(), hostile);
    assert_eq!(rig.ends, []);
}

#[test]
fn a_call_with_descriptors_waits_in_its_place() {
    let mut rig = under(ACME);
    let open = Msg::new(
        Header::remote_call(remote::DOMAIN_OPEN_GRAPHICS, Serial(1)),
        |writer| {
            domain("acme-1", 1).encode(writer);
            writer.u32(0).u32(0);
        },
    )
    .with_descriptors(1);
    rig.client_sends(&open);
    rig.daemon_promises_events();
    rig.daemon_tells(domain("acme-1", 1));
    assert_eq!(rig.daemon_gets(), open);
}

#[test]
fn what_the_daemon_does_not_tell_in_time_is_not_allowed() {
    let mut rig = under(ACME);
    let start = on(remote::DOMAIN_CREATE, 1, domain("acme-1", 1));
    rig.client_sends(&start);
    let id = rig.daemon();
    for _ in 0..40 {
        rig.wait(SECOND);
        // It lives, but does not answer.
        rig.session.handle_heard(Peer::Upstream(id), rig.now);
        rig.session.handle_heard(Peer::Client, rig.now);
    }
    // Nothing is known of it, so that the client may not see it: it is made to be absent.
    while let Some(msg) = rig.dialled().inbox.pop_back() {
        if msg.header.procedure == remote::DOMAIN_CREATE {
            assert_ne!(msg.payload, start.payload);
            return;
        }
    }
    panic!("the call was not answered");
}

fn owner(call: &Msg, owner: &str) -> Msg {
    let xml = format!(
        "<virtproxyd:owner xmlns:virtproxyd='https://virtproxyd.org/xmlns/owner/1'>{owner}</virtproxyd:owner>"
    );
    call.reply(|writer| _ = writer.string(&xml))
}

#[test]
fn a_list_by_owners_asks_for_each_once() {
    let mut rig = under(OWNED);
    let (a, b) = (domain("web", 1), domain("db", 2));
    for serial in [1, 2] {
        let list = list_all(serial, 1);
        rig.relays(&list);
        rig.daemon_sends(&listed(&list, &[a, b], 2));
        if serial == 1 {
            rig.daemon_promises_events();
            let questions = [rig.daemon_gets(), rig.daemon_gets()];
            rig.daemon_sends(&owner(&questions[0], "acme"));
            rig.daemon_sends(&error_about(&questions[1], 80, "no metadata"));
        } else {
            // Those answers were asked for before the promise was there.
            let questions = [rig.daemon_gets(), rig.daemon_gets()];
            rig.daemon_sends(&owner(&questions[1], "globex"));
            rig.daemon_sends(&owner(&questions[0], "acme"));
        }
        assert_eq!(rig.client_gets(), listed(&list, &[a], 1));
    }
    let list = list_all(3, 1);
    rig.relays(&list);
    rig.daemon_sends(&listed(&list, &[a, b], 2));
    assert_eq!(rig.client_gets(), listed(&list, &[a], 1));
}

#[test]
fn events_wait_in_order_for_the_owner_of_the_first() {
    let mut rig = under(OWNED);
    let first = event(5, domain("web", 1), 2);
    let second = event(5, domain("web", 1), 3);
    rig.daemon_sends(&first);
    rig.daemon_sends(&second);
    rig.client_gets_nothing();
    rig.daemon_promises_events();
    let question = rig.daemon_gets();
    rig.daemon_gets_nothing();
    rig.daemon_sends(&owner(&question, "acme"));
    assert_eq!(rig.client_gets(), first);
    // The promise was not there when the first answer was asked for.
    let question = rig.daemon_gets();
    rig.daemon_sends(&owner(&question, "acme"));
    assert_eq!(rig.client_gets(), second);
}

#[test]
fn numbers_that_no_table_has_are_refused() {
    let mut rig = under(ACME);
    for (serial, number) in (1..).zip([0, 454, i32::MIN, i32::MAX, -1]) {
        let (code, _) = rig.refuses(&call(Procedure(number), serial));
        assert_eq!(code, 88, "{number}");
    }
    rig.daemon_gets_nothing();
    rig.still_serves();
}

#[test]
fn broken_arguments_are_refused_where_they_count() {
    let mut rig = under(ACME);
    let mut start = on(remote::DOMAIN_CREATE, 1, domain("acme-1", 1));
    start.payload.extend([0; 4]);
    let (code, _) = rig.refuses(&start);
    assert_eq!(code, 39);
    rig.still_serves();
}

#[test]
fn in_shadow_all_passes_and_what_would_not_is_recorded() {
    let mut rig = under("\n  mode: shadow\n  rules:\n  - { who: '*', allow: ['connect:*'] }\n");
    let list = list_all(1, 1);
    rig.relays(&list);
    rig.delivers(&listed(&list, &[domain("a", 1)], 1));
    rig.delivers(&event(5, domain("a", 1), 2));
    rig.relays(&call(Procedure(454), 2));
    let recorded = |action: &Action| matches!(action, Action::Audit(_));
    assert!(rig.asked.iter().any(recorded));
}

#[test]
fn a_feature_is_told_to_nobody_whom_the_rules_do_not_let_ask() {
    let mut rig = Rig::opened();
    rig.router.access = table("\n  - { who: '*', allow: ['domain:*'] }\n");
    rig.router.generation += 1;
    assert_eq!(rig.refuses(&feature(1, 14)).0, 88);
}
