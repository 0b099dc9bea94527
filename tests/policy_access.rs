//! Who may do what: gates, rulings on objects, stamps and quotas.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::sync::Arc;

use virtproxyd::policy;
use virtproxyd::policy::access::{
    Attribute, Gate, Owner, Permission, Reason, Ruling, Subject, Table,
};
use virtproxyd::policy::facts::ClientFacts;
use virtproxyd::policy::model::Policy;
use virtproxyd::protocol::header::{Procedure, Program};
use virtproxyd::protocol::object::Class;
use virtproxyd::protocol::table::{qemu, remote};

const HEAD: &str = "version: 1
listeners: { main: { unix: /run/main } }
upstreams: { one: { unix: /run/one } }
identities:
  operators: { unix: { user: root } }
  monitoring: { unix: { user: telegraf } }
  acme: { unix: { user: \"acme*\" } }
  night: { unix: { user: acme-night } }
  lab: { unix: { group: lab } }
routes: [ { uri: x, clients: [operators, monitoring, acme, night, lab], upstream: one } ]
";

fn load(tail: &str) -> Policy {
    match policy::load("routes.yaml", &format!("{HEAD}{tail}"), &|_| None) {
        Ok(loaded) => loaded.policy,
        Err(report) => panic!("{}", report.render_human(false)),
    }
}

fn client(unix: &str) -> ClientFacts {
    ClientFacts {
        listener: "main".into(),
        unix: Some(unix.parse().unwrap()),
        ..ClientFacts::default()
    }
}

fn table(policy: &Policy, user: &str) -> Arc<Table> {
    policy.access(&client(&format!("user={user}")))
}

fn permission(text: &str) -> Permission {
    let (class, action) = text.split_once(':').unwrap();
    Permission::find(Class::from_name(class).unwrap(), action).unwrap()
}

fn domain(name: &str) -> Subject<'_> {
    Subject {
        name: Some(name),
        owner: Owner::None,
        ..Subject::of(Class::Domain)
    }
}

fn gate(table: &Table, procedure: Procedure) -> Gate {
    table.gate(Program::REMOTE, procedure)
}

/// "allow", "deny LINE", "deny", "shadow LINE" or "unknown".
fn ruling(table: &Table, wanted: &str, subject: &Subject<'_>) -> String {
    let line = |rule: Option<_>| {
        rule.map_or(String::new(), |id| {
            format!(" {}", table.rule(id).unwrap().line)
        })
    };
    match table.decide(permission(wanted), subject) {
        Ruling::Allow(allowed) => match allowed.shadow {
            None => "allow".into(),
            Some(denial) => format!("shadow{}", line(denial.rule)),
        },
        Ruling::Deny(denial) => format!("deny{}", line(denial.rule)),
        Ruling::Unknown => "unknown".into(),
    }
}

const TENANTS: &str = "access:
  - who: operators
    allow: [\"*\"]
  - who: monitoring
    allow: [read-only]
  - who: acme
    allow: [connect:getattr, connect:read, connect:search_domains, \"domain:*\", \"storage-vol:*\"]
    on:
      domain: { name: \"acme-*\" }
      storage_vol: { pool: acme }
    guards: { host_paths: [/srv/acme/], forbid: [hostdev] }
  - { who: acme, deny: [domain:migrate, domain:core-dump] }
";

#[test]
fn without_rules_everything_is_relayed() {
    let policy = load("");
    assert!(!policy.has_access_rules());
    let table = table(&policy, "anyone");
    for (program, number) in [
        (Program::REMOTE, 9),
        (Program::REMOTE, 454),
        (Program::REMOTE, -1),
        (Program::QEMU, 1),
        (Program(7), 1),
    ] {
        assert_eq!(table.gate(program, Procedure(number)), Gate::Relay);
    }
    assert_eq!(ruling(&table, "domain:start", &domain("x")), "allow");
    assert!(table.sees_all(Class::Secret) && !table.has_guards());
}

#[test]
fn who_may_do_everything_is_relayed_even_what_is_not_known() {
    let table = table(&load(TENANTS), "root");
    for number in 1..=453 {
        let program = Program::REMOTE;
        assert_eq!(
            table.gate(program, Procedure(number)),
            Gate::Relay,
            "{number}"
        );
    }
    assert_eq!(gate(&table, Procedure(454)), Gate::Relay);
    assert_eq!(table.gate(Program::ADMIN, Procedure(1)), Gate::Relay);
}

#[test]
fn tenants_are_judged_on_their_objects_and_refused_the_rest() {
    let policy = load(TENANTS);
    let table = table(&policy, "acme");
    let judged = [
        remote::DOMAIN_CREATE,
        remote::DOMAIN_LOOKUP_BY_NAME,
        remote::CONNECT_LIST_ALL_DOMAINS,
        remote::STORAGE_VOL_DELETE,
        // Nothing of it is visible, so it does not exist.
        remote::NETWORK_LOOKUP_BY_NAME,
    ];
    for procedure in judged {
        assert_eq!(gate(&table, procedure), Gate::Judge, "{procedure:?}");
    }
    for procedure in [
        remote::AUTH_LIST,
        remote::CONNECT_CLOSE,
        remote::CONNECT_IS_SECURE,
    ] {
        assert_eq!(gate(&table, procedure), Gate::Relay, "{procedure:?}");
    }
    let refused = |procedure, line: Option<usize>, reason| match gate(&table, procedure) {
        Gate::Refuse(denial) => {
            let rule = denial.rule.map(|id| table.rule(id).unwrap().line);
            assert_eq!((rule, denial.reason, denial.shadow), (line, reason, false));
        }
        gate => panic!("{procedure:?}: {gate:?}"),
    };
    refused(remote::NETWORK_CREATE, None, Reason::NotAllowed);
    refused(remote::CONNECT_LIST_ALL_NETWORKS, None, Reason::NotAllowed);
    refused(remote::DOMAIN_CORE_DUMP, Some(22), Reason::Denied);
    for number in [i32::MIN, -1, 0, 454, i32::MAX] {
        refused(Procedure(number), None, Reason::UnknownProcedure);
    }
    // An event is no call.
    refused(
        remote::DOMAIN_EVENT_LIFECYCLE,
        None,
        Reason::UnknownProcedure,
    );

    assert_eq!(ruling(&table, "domain:start", &domain("acme-1")), "allow");
    assert_eq!(ruling(&table, "domain:start", &domain("globex-1")), "deny");
    assert_eq!(
        ruling(&table, "domain:migrate", &domain("acme-1")),
        "deny 22"
    );
    assert_eq!(
        ruling(&table, "domain:start", &Subject::of(Class::Domain)),
        "unknown"
    );
    let guarded = match table.decide(permission("domain:write"), &domain("acme-1")) {
        Ruling::Allow(allowed) => allowed.guarded,
        ruling => panic!("{ruling:?}"),
    };
    let rule = table.rule(guarded[0]).unwrap();
    assert_eq!((guarded.len(), rule.line), (1, 16));
    assert_eq!(
        rule.guards.unwrap().host_paths,
        Some(vec!["/srv/acme".into()])
    );
    assert!(table.asks(Class::Domain).iter().eq([Attribute::Name]));
    assert!(table.asks(Class::Network).is_empty());
    assert!(!table.sees_all(Class::Domain) && table.has_guards());
}

#[test]
fn readers_see_all_that_libvirt_shows_to_everyone() {
    let policy = load(TENANTS);
    let table = table(&policy, "telegraf");
    for procedure in [
        remote::CONNECT_LIST_ALL_DOMAINS,
        remote::DOMAIN_GET_INFO,
        remote::CONNECT_GET_ALL_DOMAIN_STATS,
    ] {
        assert_eq!(gate(&table, procedure), Gate::Relay, "{procedure:?}");
    }
    // Only with some flags does it need more.
    assert_eq!(gate(&table, remote::DOMAIN_GET_XML_DESC), Gate::Judge);
    for procedure in [remote::DOMAIN_CREATE, remote::SECRET_GET_VALUE] {
        assert!(
            matches!(gate(&table, procedure), Gate::Refuse(_)),
            "{procedure:?}"
        );
    }
    let monitor = table.gate(Program::QEMU, qemu::DOMAIN_MONITOR_COMMAND);
    assert!(matches!(monitor, Gate::Refuse(_)));
    assert!(table.sees_all(Class::Domain) && table.sees_all(Class::StorageVol));
}

#[test]
fn clients_with_the_same_identities_share_a_table() {
    let policy = load(TENANTS);
    let (one, other) = (table(&policy, "acme-1"), table(&policy, "acme-2"));
    assert!(Arc::ptr_eq(&one, &other));
    assert!(!Arc::ptr_eq(&one, &table(&policy, "acme-night")));
}

#[test]
fn clients_that_cannot_be_told_may_do_nothing() {
    let policy = load(TENANTS);
    let mut facts = client("user=root");
    facts.unix.as_mut().unwrap().unproven = true;
    let table = policy.access(&facts);
    assert_eq!(gate(&table, remote::AUTH_LIST), Gate::Relay);
    let refused =
        |gate| matches!(gate, Gate::Refuse(denial) if denial.reason == Reason::UnknownClient);
    assert!(refused(gate(&table, remote::CONNECT_OPEN)));
    assert!(refused(gate(&table, Procedure(454))));
    assert_eq!(ruling(&table, "domain:read", &domain("x")), "deny");
    assert!(!table.sees_all(Class::Domain));
}
