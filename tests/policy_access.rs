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

/// Whether some rule of the client has guards.
fn has_guards(table: &Table) -> bool {
    let mut granted = Permission::all().flat_map(|permission| table.grants(permission));
    granted.any(|rule| rule.guards.is_some())
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
    assert!(table.sees_all(Class::Secret) && !has_guards(&table));
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
    assert!(!table.sees_all(Class::Domain) && has_guards(&table));
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

#[test]
fn identities_add_up_and_deny_wins_wherever_it_stands() {
    let policy = load(
        "access:
  - { who: night, deny: [domain:stop], on: { domain: { name: \"acme-db*\" } } }
  - { who: \"*\", allow: [connect:getattr, domain:getattr] }
  - { who: acme, allow: [domain:stop], on: { domain: { name: \"acme-*\" } } }
  - { who: night, allow: [domain:start, domain:stop] }
",
    );
    let (day, night) = (table(&policy, "acme"), table(&policy, "acme-night"));
    assert_eq!(ruling(&day, "domain:start", &domain("acme-1")), "deny");
    assert_eq!(ruling(&night, "domain:start", &domain("acme-1")), "allow");
    assert_eq!(ruling(&night, "domain:stop", &domain("other")), "allow");
    assert_eq!(ruling(&day, "domain:stop", &domain("acme-db1")), "allow");
    assert_eq!(
        ruling(&night, "domain:stop", &domain("acme-db1")),
        "deny 12"
    );
    let unknown = Subject::of(Class::Domain);
    assert_eq!(ruling(&night, "domain:stop", &unknown), "unknown");
    assert_eq!(ruling(&day, "domain:getattr", &unknown), "allow");
    assert_eq!(
        ruling(&table(&policy, "stranger"), "domain:getattr", &unknown),
        "allow"
    );
}

#[test]
fn permissions_are_named_as_libvirt_does_by_patterns_and_by_sets() {
    let granted = |names: &str| {
        let sets = "sets: { own: [domain:stop, inner-set], inner_set: [secret:read-secure] }";
        let rest = "[ { who: lab, allow: [own, own] }, { who: acme, allow: [";
        let tail = format!("access:\n  {sets}\n  rules: {rest}{names}] }} ]\n");
        let table = table(&load(&tail), "acme");
        Permission::all()
            .filter(|it| ruling(&table, &it.to_string(), &Subject::of(it.class())) == "allow")
            .map(|it| it.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(granted("domain:core-dump"), ["domain:core_dump"]);
    assert_eq!(granted("\"*-device:stop\""), ["node_device:stop"]);
    assert_eq!(granted("own"), ["domain:stop", "secret:read_secure"]);
    assert_eq!(granted("inner-set"), ["secret:read_secure"]);
    assert_eq!(granted("\"*:create\"").len(), 3);
    assert_eq!(granted("\"*:getattr\"").len(), 11);
    assert_eq!(
        granted("\"domain:fs-*\""),
        ["domain:fs_freeze", "domain:fs_trim"]
    );
    assert_eq!(granted("\"*\"").len(), Permission::COUNT);
    assert_eq!(granted("read_only"), granted("read-only"));
}

#[test]
fn a_policy_in_shadow_refuses_nothing() {
    let policy = load(
        "access:
  mode: shadow
  rules:
  - { who: acme, allow: [connect:getattr, \"domain:*\"], on: { domain: { name: \"acme-*\" } },
      guards: { host_paths: [], forbid: [all] } }
  - { who: acme, deny: [domain:migrate] }
",
    );
    let table = table(&policy, "acme");
    assert!(table.is_shadow());
    // What would be refused is recorded, so that it has to be looked at.
    for number in [
        remote::DOMAIN_CREATE,
        remote::NETWORK_CREATE,
        Procedure(454),
    ] {
        assert_eq!(gate(&table, number), Gate::Judge);
    }
    assert_eq!(gate(&table, remote::AUTH_LIST), Gate::Relay);
    assert_eq!(ruling(&table, "domain:start", &domain("acme-1")), "allow");
    assert_eq!(
        ruling(&table, "domain:start", &domain("globex-1")),
        "shadow"
    );
    assert_eq!(
        ruling(&table, "domain:migrate", &domain("acme-1")),
        "shadow 16"
    );
    assert_eq!(
        ruling(&table, "network:start", &Subject::of(Class::Network)),
        "shadow"
    );
    assert!(matches!(table.decide_unknown(), Ruling::Allow(allowed) if allowed.shadow.is_some()));
    let mut facts = client("user=root");
    facts.unix.as_mut().unwrap().unproven = true;
    let closed = policy.access(&facts);
    assert_eq!(gate(&closed, remote::CONNECT_OPEN), Gate::Judge);
    assert_eq!(ruling(&closed, "domain:read", &domain("x")), "shadow");
}

#[test]
fn a_rule_in_shadow_allows_but_neither_denies_nor_guards() {
    let policy = load(
        "access:
  - { who: acme, allow: [connect:getattr, domain:getattr, domain:start, domain:stop] }
  - { who: acme, deny: [domain:start], on: { domain: { name: \"db*\" } }, mode: shadow }
  - { who: acme, deny: [domain:stop], mode: shadow }
  - { who: acme, allow: [domain:reset], guards: { networks: [] }, mode: shadow }
",
    );
    let table = table(&policy, "acme");
    assert!(!table.is_shadow());
    assert_eq!(gate(&table, remote::DOMAIN_CREATE), Gate::Judge);
    assert_eq!(gate(&table, remote::DOMAIN_DESTROY), Gate::Judge);
    assert_eq!(gate(&table, remote::DOMAIN_LOOKUP_BY_NAME), Gate::Relay);
    assert_eq!(ruling(&table, "domain:start", &domain("web")), "allow");
    assert_eq!(ruling(&table, "domain:start", &domain("db1")), "shadow 13");
    assert_eq!(ruling(&table, "domain:stop", &domain("web")), "shadow 14");
    assert_eq!(
        ruling(&table, "domain:start", &Subject::of(Class::Domain)),
        "unknown"
    );
    match table.decide(permission("domain:reset"), &domain("web")) {
        Ruling::Allow(allowed) => {
            let rule = table.rule(allowed.guarded[0]).unwrap();
            assert!(rule.shadow && rule.guards.is_some());
        }
        ruling => panic!("{ruling:?}"),
    }
}

#[test]
fn what_is_created_without_an_owner_is_stamped_where_the_rule_is_about_it() {
    let policy = load(
        "access:
  - who: acme
    allow: [connect:getattr, owner]
    on: { domain: { name: \"acme-*\", owner: acme } }
    guards: { host_paths: [], forbid: [all] }
    stamp: true
  - who: lab
    allow: [connect:getattr, owner]
    guards: { host_paths: [], forbid: [all] }
    stamp: lab
",
    );
    let write = permission("domain:write");
    let acme = table(&policy, "acme");
    assert_eq!(acme.stamp(write, &domain("acme-1")), Some("acme"));
    assert_eq!(acme.stamp(write, &domain("other")), None);
    assert_eq!(
        acme.stamp(permission("domain:migrate"), &domain("acme-1")),
        None
    );
    let owned = |owner| Subject {
        owner,
        ..domain("acme-1")
    };
    assert_eq!(acme.stamp(write, &owned(Owner::Is("globex"))), None);
    assert_eq!(acme.stamp(write, &owned(Owner::Unknown)), None);
    // Without a stamp, it would belong to nobody, and so be out of the rule's reach.
    assert_eq!(ruling(&acme, "domain:write", &domain("acme-1")), "deny");
    assert_eq!(
        ruling(&acme, "domain:write", &owned(Owner::Is("acme"))),
        "allow"
    );
    let lab = policy.access(&client("user=x,group=lab"));
    assert_eq!(lab.stamp(write, &domain("any")), Some("lab"));
    assert_eq!(
        lab.stamp(
            write,
            &Subject {
                name: None,
                ..domain("")
            }
        ),
        Some("lab")
    );
    // There is something to put in, so that it is not just relayed.
    assert_eq!(gate(&lab, remote::DOMAIN_CREATE_XML), Gate::Judge);
    let nobody = table(&policy, "root");
    assert_eq!(nobody.stamp(write, &domain("acme-1")), None);
}

#[test]
fn quotas_are_those_of_the_clients_identities_over_what_these_may_make() {
    let policy = load(
        "access:
  quotas:
    - { who: [acme, night], domains: 2, memory: 3GiB, volumes: { \"acme*\": 10TiB, acme-fast: 1KiB } }
    - { who: operators, vcpus: 9 }
  rules:
    - { who: \"*\", allow: [connect:getattr, \"domain:*\"] }
    - { who: acme, allow: [domain:start], on: { domain: { owner: acme } } }
    - { who: acme, allow: [storage_vol:create], on: { storage_vol: { pool: \"acme*\" } }, guards: { host_paths: [] } }
    - { who: [night, operators], allow: [storage_vol:resize, domain:save] }
    - { who: acme, deny: [domain:start], on: { domain: { owner: acme, name: x } } }
",
    );
    let table = table(&policy, "acme-night");
    let quotas: Vec<_> = table.quotas().collect();
    let names: Vec<&str> = quotas.iter().map(|quota| &*quota.who).collect();
    assert_eq!(names, ["acme", "night"]);
    let acme = quotas[0];
    assert_eq!((acme.line, acme.domains, acme.running), (13, Some(2), None));
    assert_eq!((acme.memory, acme.vcpus), (Some(3 << 30), None));
    assert!(acme.limits_domains());
    let pool = |pool| acme.of_pool(pool).map(|it| it.bytes).collect::<Vec<_>>();
    assert_eq!(pool("acme-fast"), [10 << 40, 1 << 10]);
    assert_eq!(pool("acme"), [10 << 40]);
    assert!(pool("other").is_empty());
    let of = |owner| Subject {
        owner,
        ..domain("x")
    };
    assert_eq!(table.counts(acme, &of(Owner::Is("acme"))), Some(true));
    assert_eq!(table.counts(acme, &of(Owner::None)), Some(false));
    assert_eq!(table.counts(acme, &of(Owner::Unknown)), None);
    assert_eq!(table.counts(quotas[1], &of(Owner::Unknown)), Some(true));
    let volume = |pool| Subject {
        pool: Some(pool),
        ..Subject::of(Class::StorageVol)
    };
    assert_eq!(table.counts(acme, &volume("acme-1")), Some(true));
    assert_eq!(table.counts(acme, &volume("other")), Some(false));
    assert_eq!(table.counts(quotas[1], &volume("acme-1")), Some(false));
    // What may use up a quota is looked at, the rest is not.
    let operator = policy.access(&client("user=root"));
    assert_eq!(gate(&operator, remote::DOMAIN_CREATE), Gate::Judge);
    assert_eq!(gate(&operator, remote::DOMAIN_SHUTDOWN), Gate::Relay);
    let unlimited = policy.access(&client("user=stranger"));
    assert_eq!(gate(&unlimited, remote::DOMAIN_CREATE), Gate::Relay);
}

#[test]
fn what_is_to_be_recorded_is_looked_at() {
    let policy = load(
        "access:
  audit: { allowed: [domain:start, \"secret:*\"], file: /var/log/audit.jsonl }
  owner: [ { namespace: urn:x, element: a/b, attribute: c } ]
  rules: [ { who: acme, allow: [\"*\"] } ]
",
    );
    let table = table(&policy, "acme");
    assert_eq!(gate(&table, remote::DOMAIN_CREATE), Gate::Judge);
    assert_eq!(gate(&table, remote::DOMAIN_DESTROY), Gate::Relay);
    assert!(table.records(permission("secret:read")) && !table.records(permission("domain:stop")));
    assert!(policy.audit().journal && policy.audit().file.is_some());
    let marks = policy.owner_marks();
    assert_eq!((marks.len(), &*marks[1].path.join("/")), (2, "a/b"));
    assert!(load("").audit().allowed.is_empty() && load("").owner_marks().is_empty());
}

#[test]
fn conditions_are_for_their_own_class_and_on_every_attribute() {
    let policy = load(
        "access:
  - who: acme
    allow: [connect:getattr, \"*:getattr\"]
    on:
      domain: { uuid: [7A3B1C9E-0a3c-4f21-9b66-2a54b1f2c6d8, \"00000000-*\"] }
      interface: { mac: \"52:54:00:AA:*\" }
      network_port: { network: net, uuid: \"*\" }
      nwfilter_binding: { name: \"vnet*\", filter: f }
      secret: [ { usage_type: [volume, ceph], usage: \"/srv/*\" }, { uuid: \"f*\" } ]
      storage_vol: { pool: p, name: \"*.img\", key: \"/srv/*\" }
",
    );
    let table = table(&policy, "acme");
    let sees = |subject: Subject<'_>| match table.visible(&subject) {
        Ruling::Allow(_) => Some(true),
        Ruling::Deny(_) => Some(false),
        Ruling::Unknown => None,
    };
    let of = Subject::of;
    let uuid = |text: &str| Some(text.parse().unwrap());
    let domain = |text| {
        sees(Subject {
            uuid: uuid(text),
            ..of(Class::Domain)
        })
    };
    assert_eq!(domain("7a3b1c9e0a3c4f219b662a54b1f2c6d8"), Some(true));
    assert_eq!(domain("00000000-0a3c-4f21-9b66-2a54b1f2c6d8"), Some(true));
    assert_eq!(domain("00000001-0a3c-4f21-9b66-2a54b1f2c6d8"), Some(false));
    assert_eq!(sees(of(Class::Domain)), None);
    assert_eq!(sees(of(Class::Network)), Some(true));
    let mac = |mac| {
        sees(Subject {
            mac: Some(mac),
            ..of(Class::Interface)
        })
    };
    assert_eq!(
        (mac("52:54:00:aA:00:01"), mac("")),
        (Some(true), Some(false))
    );
    let port = |network| {
        sees(Subject {
            network: Some(network),
            ..of(Class::NetworkPort)
        })
    };
    assert_eq!((port("net"), port("other")), (None, Some(false)));
    let binding = |name, filter| {
        let subject = of(Class::NwfilterBinding);
        sees(Subject {
            name: Some(name),
            filter: Some(filter),
            ..subject
        })
    };
    assert_eq!(
        (binding("vnet0", "f"), binding("tap0", "f")),
        (Some(true), Some(false))
    );
    let secret = |usage_type, usage| {
        let subject = Subject {
            uuid: uuid(&"0".repeat(32)),
            ..of(Class::Secret)
        };
        sees(Subject {
            usage_type,
            usage,
            ..subject
        })
    };
    assert_eq!(secret(Some(1), Some("/srv/a")), Some(true));
    assert_eq!(secret(Some(3), Some("/srv/a")), Some(false));
    assert_eq!(secret(None, Some("/srv/a")), None);
    assert_eq!(secret(None, Some("")), Some(false));
    let volume = |key| {
        let subject = Subject {
            pool: Some("p"),
            name: Some("a.img"),
            ..of(Class::StorageVol)
        };
        sees(Subject { key, ..subject })
    };
    assert_eq!((volume(Some("/srv/a")), volume(None)), (Some(true), None));
    assert!(table.asks(Class::Secret).iter().eq([
        Attribute::Uuid,
        Attribute::UsageType,
        Attribute::Usage
    ]));
}

#[test]
fn tables_of_very_many_kinds_of_clients_are_not_all_kept() {
    use std::fmt::Write as _;
    let mut identities = String::new();
    for number in 0..10 {
        writeln!(
            identities,
            "  g{number}: {{ unix: {{ group: g{number} }} }}"
        )
        .unwrap();
    }
    let text = HEAD.replace("routes:", &format!("{identities}routes:"));
    let rules = "access: [ { who: \"*\", allow: [read-only] }, \
                 { who: [g0, g1, g2, g3, g4, g5, g6, g7, g8, g9], allow: [domain:stop] } ]\n";
    let policy = policy::load("f", &format!("{text}{rules}"), &|_| None)
        .unwrap()
        .policy;
    let mut tables = Vec::new();
    for bits in 0..1024_u32 {
        let mut unix = String::from("user=x");
        for number in (0..10).filter(|number| bits >> number & 1 == 1) {
            write!(unix, ",group=g{number}").unwrap();
        }
        let table = policy.access(&client(&unix));
        let expected = if bits == 0 { "deny" } else { "allow" };
        assert_eq!(ruling(&table, "domain:stop", &domain("x")), expected);
        tables.push(Arc::downgrade(&table));
    }
    let kept = tables
        .iter()
        .filter(|table| table.strong_count() > 0)
        .count();
    assert!((1..=256).contains(&kept), "{kept}");
}
