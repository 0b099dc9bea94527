//! What `explain` says of a call: the verdict, the rule, and the nearest that would allow it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use virtproxyd::policy;
use virtproxyd::policy::explain::{Ask, Verdict};
use virtproxyd::policy::facts::ClientFacts;
use virtproxyd::policy::model::Policy;
use virtproxyd::protocol::header::Program;
use virtproxyd::protocol::table::{self, Kind};

const TEXT: &str = r#"version: 1
listeners: { main: { unix: /run/main }, ro: { unix: /run/ro, readonly: true } }
upstreams: { one: { unix: /run/one } }
identities:
  operators: { unix: { user: root } }
  acme: { unix: { user: acme } }
  mute: { unix: { user: mute } }
routes: [ { uri: "qemu:///system", upstream: one } ]
access:
  - { who: operators, allow: ["*"] }
  - who: acme
    allow: [connect:getattr, connect:search_domains, "domain:*", "storage_vol:*", "secret:*", "network_port:*"]
    on:
      domain: [ { name: "acme-*" }, { owner: acme, uuid: "7*" } ]
      storage_vol: { pool: acme }
      secret: { usage_type: volume, usage: "/srv/*" }
      network_port: { network: acme }
    guards: { host_paths: [/srv/acme], forbid: [hostdev, qemu-namespace, monitor-command] }
  - { who: acme, deny: [domain:migrate] }
  - { who: acme, deny: [domain:core_dump], mode: shadow }
  - { who: mute, allow: [domain:stop] }
"#;

fn load(text: &str) -> Policy {
    match policy::load("routes.yaml", text, &|_| None) {
        Ok(loaded) => loaded.policy,
        Err(report) => panic!("{}", report.render_human(false)),
    }
}

fn explain(policy: &Policy, user: &str, listener: &str, call: &str) -> (Verdict, String) {
    let facts = ClientFacts {
        listener: listener.into(),
        readonly: listener == "ro",
        unix: Some(format!("user={user}").parse().unwrap()),
        ..ClientFacts::default()
    };
    let ask: Ask = call
        .parse()
        .unwrap_or_else(|error| panic!("{call}: {error}"));
    let explanation = policy.explain_access(&facts, &ask);
    (explanation.verdict, explanation.to_string())
}

#[test]
fn each_verdict_is_given_with_its_reason() {
    let policy = load(TEXT);
    let expect = |user: &str, call: &str, verdict: Verdict, lines: &[&str]| {
        let (found, text) = explain(&policy, user, "main", call);
        let found_lines: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert_eq!(found_lines, lines, "{text}");
        assert_eq!(found, verdict, "{text}");
        assert_eq!(text.lines().next(), Some(&*format!("access: `{call}`")));
    };
    use Verdict::{Allowed, Depends, Refused};
    expect(
        "root",
        "domain:start x",
        Allowed,
        &["domain:start: allowed by line 10", "=> allowed"],
    );
    expect(
        "acme",
        "domain:start acme-web1",
        Allowed,
        &[
            "domain:start: allowed while the content keeps to the guards of line 11",
            "=> allowed",
        ],
    );
    let see = "domain:getattr (to see the object; without, it does not exist)";
    let name = "nearest is line 11, but its name is `other`, not `acme-*`";
    expect(
        "acme",
        "domain:start other owner=",
        Refused,
        &[
            &*format!("{see}: refused, no rule allows it"),
            name,
            "domain:start: refused, no rule allows it",
            name,
            "=> refused",
        ],
    );
    expect(
        "acme",
        "domain:start other uuid=00000000000000000000000000000000 owner=acme",
        Refused,
        &[
            &*format!("{see}: refused, no rule allows it"),
            name,
            "domain:start: refused, no rule allows it",
            name,
            "=> refused",
        ],
    );
    expect(
        "acme",
        "domain:start other",
        Depends,
        &[
            &*format!("{see}: depends on `uuid` and `owner` (add `uuid=...`)"),
            "domain:start: depends on `uuid` and `owner` (add `uuid=...`)",
            "=> it depends",
        ],
    );
    expect(
        "acme",
        "domain:migrate acme-1",
        Refused,
        &[
            "domain:migrate: refused by line 19",
            "line 11 allows it, but deny wins",
            "=> refused",
        ],
    );
    expect(
        "acme",
        "domain:core-dump acme-1",
        Refused,
        &[
            "domain:core_dump: refused by line 20",
            "line 11 allows it, but deny wins",
            "=> allowed in shadow: the refusal is recorded only",
        ],
    );
    expect(
        "acme",
        "DOMAIN-SHUTDOWN acme-1",
        Allowed,
        &["domain:init_control: allowed by line 11", "=> allowed"],
    );
    expect(
        "acme",
        "DOMAIN_ATTACH_DEVICE acme-1",
        Allowed,
        &[
            "domain:write: allowed while the content keeps to the guards of line 11",
            "=> allowed",
        ],
    );
    let wants = "nearest is line 11, but it does not name `network:start`";
    expect(
        "acme",
        "remote:network_create default",
        Refused,
        &[
            "network:getattr (to see the object; without, it does not exist): refused, no rule allows it",
            "nearest is line 11, but it does not name `network:getattr`",
            "network:start: refused, no rule allows it",
            wants,
            "=> refused",
        ],
    );
    expect(
        "mute",
        "domain:stop x",
        Refused,
        &[
            "connect:getattr (to open a connection): refused, no rule allows it",
            "nearest is line 21, but it does not name `connect:getattr`",
            &*format!("{see}: refused, no rule allows it"),
            "nearest is line 21, but it does not name `domain:getattr`",
            "domain:stop: allowed by line 21",
            "=> refused",
        ],
    );
    expect(
        "mute",
        "auth_list",
        Refused,
        &[
            "connect:getattr (to open a connection): refused, no rule allows it",
            "nearest is line 21, but it does not name `connect:getattr`",
            "=> refused",
        ],
    );
    expect(
        "root",
        "auth_list",
        Allowed,
        &["no permission is needed", "=> allowed"],
    );
}

#[test]
fn arguments_decide_what_a_procedure_needs() {
    let policy = load(TEXT);
    let last = |call: &str| {
        let (_, text) = explain(&policy, "root", "main", call);
        text.lines()
            .map(str::trim)
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        last("DOMAIN_REBOOT x"),
        [
            "domain:init_control: allowed by line 10",
            "domain:write (if flags & 0x2 == 0x2): allowed by line 10",
            "=> allowed"
        ]
    );
    assert_eq!(
        last("DOMAIN_REBOOT x flags=0x3"),
        [
            "domain:init_control: allowed by line 10",
            "domain:write: allowed by line 10",
            "=> allowed"
        ]
    );
    assert_eq!(
        last("domain-interface-addresses x source=1"),
        last("DOMAIN_INTERFACE_ADDRESSES x source=1")
    );
    assert_eq!(
        last("CONNECT_LIST_ALL_DOMAINS"),
        [
            "connect:search_domains: allowed by line 10",
            "domain:getattr (of each object in the reply): allowed by line 10",
            "=> allowed"
        ]
    );
}

#[test]
fn objects_of_every_class_can_be_named() {
    let policy = load(TEXT);
    let of = |call: &str| explain(&policy, "acme", "main", call).0;
    assert_eq!(of("storage_vol:delete \"acme/disk 1\""), Verdict::Allowed);
    assert_eq!(of("storage-vol:delete other/disk"), Verdict::Refused);
    let port = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        of(&format!("network_port:delete acme/{port}")),
        Verdict::Allowed
    );
    assert_eq!(
        of(&format!("network_port:delete x/{port}")),
        Verdict::Refused
    );
    assert_eq!(
        of(&format!(
            "secret:read {port} usage_type=volume usage=/srv/a"
        )),
        Verdict::Allowed
    );
    assert_eq!(
        of("secret:read usage_type=ceph usage=/srv/a"),
        Verdict::Refused
    );
    assert_eq!(of("secret:read"), Verdict::Depends);
    // A UUID in place of a name.
    assert_eq!(
        of("domain:stop 7a3b1c9e0a3c4f219b662a54b1f2c6d8 owner=acme"),
        Verdict::Allowed
    );
    assert_eq!(of("domain:stop name=\"acme-my vm\""), Verdict::Allowed);
    for call in [
        "network:start net",
        "nwfilter:read f uuid=00000000000000000000000000000000",
        "nwfilter_binding:read vnet0 filter=f",
        "interface:read eth0 mac=52:54:00:00:00:01",
        "node_device:read pci_1",
        "storage_pool:read p",
        "connect:write",
    ] {
        assert_eq!(of(call), Verdict::Refused, "{call}");
        assert_eq!(
            explain(&policy, "root", "main", call).0,
            Verdict::Allowed,
            "{call}"
        );
    }
}

/// With the table itself as the list of what can be asked.
#[test]
fn every_procedure_can_be_asked() {
    let policy = load(TEXT);
    for program in [Program::REMOTE, Program::QEMU, Program::LXC] {
        for info in table::rows(program)
            .iter()
            .filter(|info| info.kind == Kind::Call)
        {
            for call in [
                info.name.to_owned(),
                info.name.to_lowercase().replace('_', "-"),
            ] {
                let (verdict, text) = explain(&policy, "root", "main", &call);
                assert_eq!(verdict, Verdict::Allowed, "{text}");
            }
        }
    }
}

#[test]
fn without_rules_all_is_allowed_and_a_readonly_connection_says_so() {
    let (head, _) = TEXT.split_once("access:").unwrap();
    let policy = load(head);
    let (verdict, text) = explain(&policy, "anyone", "main", "domain:start x");
    assert_eq!(verdict, Verdict::Allowed);
    assert!(text.contains("no access rules"), "{text}");
    let (_, text) = explain(&load(TEXT), "root", "ro", "domain:start x");
    assert!(text.contains("read-only"), "{text}");
}

#[test]
fn programs_read_the_same() {
    let policy = load(TEXT);
    let facts = ClientFacts {
        listener: "main".into(),
        unix: Some("user=acme".parse().unwrap()),
        ..ClientFacts::default()
    };
    let mut explanation = policy.explain(&facts, "qemu:///system");
    let without = serde_json::to_value(&explanation).unwrap();
    assert!(without.get("access").is_none());
    let ask: Ask = "domain:start other owner=".parse().unwrap();
    explanation.access = Some(policy.explain_access(&facts, &ask));
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["access"]["verdict"], "refused");
    let start = &json["access"]["permissions"][1];
    assert_eq!(
        (&start["permission"], &start["role"]),
        (&"domain:start".into(), &"call".into())
    );
    assert_eq!(start["nearest"]["line"], 11);
}
