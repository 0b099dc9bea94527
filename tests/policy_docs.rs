//! The manual names everything that a rule can.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::collections::BTreeSet;

use virtproxyd::policy::access::Permission;
use virtproxyd::policy::access::sets::NAMED_SETS;
use virtproxyd::policy::facts::ClientFacts;
use virtproxyd::policy::guard::Forbid;
use virtproxyd::protocol::object::Class;

fn manual(name: &str) -> String {
    let path = format!("{}/docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// What is in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of the row of a table that begins with `first`.
fn row<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let row = text
        .lines()
        .find(|line| line.starts_with(&format!("| `{first}`")));
    let row = row.unwrap_or_else(|| panic!("no row for {first}"));
    row.trim_matches('|').split('|').collect()
}

#[test]
fn every_permission_and_attribute_is_in_the_row_of_its_class() {
    let manual = manual("policy.md");
    let (_, section) = manual.split_once("### Permissions").unwrap();
    let schema: serde_json::Value = serde_json::from_str(&virtproxyd::policy::schema()).unwrap();
    let on = &schema["$defs"]["On"]["properties"];
    for class in Class::ALL {
        let cells = row(section, class.name());
        let permissions = Permission::all().filter(|it| it.class() == class);
        let permissions: BTreeSet<&str> = permissions.map(Permission::action).collect();
        assert_eq!(quoted(cells[2]), permissions, "{}", class.name());
        let attributes = match on[class.name()]["$ref"].as_str() {
            Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap(),
            None => &on[class.name()],
        };
        let attributes = attributes["properties"].as_object();
        let attributes: BTreeSet<&str> = attributes
            .into_iter()
            .flat_map(|keys| keys.keys().map(String::as_str))
            .collect();
        assert_eq!(quoted(cells[1]), attributes, "{}", class.name());
    }
}

#[test]
fn every_set_and_every_key_has_a_row() {
    let manual = manual("policy.md");
    for set in NAMED_SETS {
        row(&manual, set.name);
    }
    let schema: serde_json::Value = serde_json::from_str(&virtproxyd::policy::schema()).unwrap();
    for kind in [
        "Upstream",
        "ClientSasl",
        "Drivers",
        "DriverRoute",
        "AccessRule",
        "Guards",
        "Audit",
        "SelfTest",
    ] {
        let keys = schema["$defs"][kind]["properties"].as_object().unwrap();
        for key in keys.keys() {
            let is_named = |line: &str| {
                line.starts_with("| `") && quoted(line.split('|').nth(1).unwrap()).contains(&**key)
            };
            assert!(manual.lines().any(is_named), "{kind}.{key}");
        }
    }
}

#[test]
fn every_word_of_forbid_has_a_row() {
    let manual = manual("guards.md");
    let (_, section) = manual.split_once("## Words of `forbid`").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> = rows
        .flat_map(|line| quoted(line.split('|').nth(1).unwrap()))
        .collect();
    assert_eq!(named, Forbid::ALL.iter().map(|word| word.word()).collect());
}

/// What the manual shows of upstreams, templates and drivers.
#[test]
fn the_upstreams_that_the_manual_shows_are_good() {
    let manual = manual("policy.md");
    let blocks = manual.split("```yaml\n").skip(1);
    let blocks = blocks.map(|it| it.split("```").next().unwrap());
    let mut tried = 0;
    for block in blocks.filter(|block| block.starts_with("upstreams:\n")) {
        let mut text = format!("version: 1\nlisteners: {{ main: {{ unix: /run/main }} }}\n{block}");
        let is_alone = !block.contains("\nroutes:\n");
        if is_alone {
            text.push_str("routes: [ { uri: \"qemu:///system\", upstream: qemu } ]\n");
        }
        let env = |_: &str| Some("/run/user/1000".to_owned());
        let loaded = virtproxyd::policy::load("f", &text, &env);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render_human(false)));
        let mut warnings = loaded.warnings.problems().iter();
        assert!(warnings.all(|it| is_alone && it.code == "unused"), "{text}");
        tried += 1;
    }
    assert_eq!(tried, 3);
}

/// What the manual shows of `explain`, on the policies that it is shown for.
#[test]
fn explain_says_what_the_manual_shows() {
    let manual = manual("policy.md");
    let fleet = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fleet.yaml");
    let fleet = std::fs::read_to_string(fleet).unwrap();
    let (_, section) = manual.split_once("### Drivers").unwrap();
    let drivers = section.split("```yaml\n").nth(1).unwrap();
    let drivers = drivers.split("```").next().unwrap();
    let drivers = format!("version: 1\nlisteners: {{ main: {{ unix: /run/main }} }}\n{drivers}");
    let operator = "dn=\"CN=eve,OU=Ops,O=Example\"";
    for (policy, listener, client, uri) in [
        (&fleet, "tls", operator, "qemu:///system?host=hv12"),
        (&fleet, "tls", operator, "qemu:///system?host=db1"),
        (&drivers, "main", "user=alice", "qemu:///system"),
    ] {
        let policy = virtproxyd::policy::load("f", policy, &|_| None).unwrap();
        let facts = ClientFacts {
            listener: listener.into(),
            ..client.parse().unwrap()
        };
        let said = policy.policy.explain(&facts, uri).to_string();
        let (_, outcome) = said.split_once("  => ").unwrap();
        let shown: String = format!("  => {outcome}")
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect();
        assert!(manual.contains(&format!("    …\n{shown}")), "{shown}");
        let commands = [
            format!("--as {client} --uri {uri}\n"),
            format!("--as '{client}' --uri '{uri}'\n"),
        ];
        let is_shown = commands.iter().any(|command| manual.contains(command));
        assert!(is_shown, "{uri}");
    }
}

/// What the manual shows of rules and tests is taken as it stands, without a warning about rules.
#[test]
fn the_rules_that_the_manual_shows_are_good() {
    let manual = manual("policy.md");
    let (_, section) = manual.split_once("\n## Access").unwrap();
    let head = "version: 1
listeners: { main: { unix: /run/main }, tls: { tcp: '[::]:16514', tls: {} } }
upstreams: { one: { unix: /run/one } }
identities:
  operators: { unix: { user: root } }
  monitoring: { unix: { user: telegraf } }
  students: { unix: { group: students } }
  acme: { any: [ { unix: { user: acme } }, { x509: { o: Acme } } ] }
routes:
- { uri: qemu:///system, clients: [operators, monitoring, students, acme], upstream: one }
";
    let blocks: Vec<&str> = section.split("```yaml\n").skip(1).collect();
    let blocks: Vec<&str> = blocks
        .iter()
        .map(|it| it.split("```").next().unwrap())
        .collect();
    let rules = blocks
        .iter()
        .find(|block| block.contains("- who: acme"))
        .unwrap();
    let tests = blocks
        .iter()
        .find(|block| block.starts_with("tests:"))
        .unwrap();
    // The tests speak of the rules, by name and not by owner.
    let loaded = virtproxyd::policy::load("f", &format!("{head}{rules}{tests}"), &|_| None);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render_human(false)));
    assert!(
        loaded.warnings.is_empty(),
        "{}",
        loaded.warnings.render_human(false)
    );
    let any = "rules: [ { who: acme, allow: [connect:getattr, owner, volume-owner, secret:getattr, secret:read], guards: { host_paths: [] } } ]";
    let mut tried = 0;
    for block in blocks
        .iter()
        .filter(|block| block.starts_with("access:\n  "))
    {
        let (settings, _) = block.split_once("  rules: ").unwrap_or((block, ""));
        if settings.contains("- who: acme") {
            continue;
        }
        let loaded =
            virtproxyd::policy::load("f", &format!("{head}{settings}  {any}\n"), &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render_human(false)));
        let warnings = loaded.warnings.problems();
        // Settings without the rules that use them.
        let unused = |code| ["unused", "shut-out"].contains(&code);
        assert!(warnings.iter().all(|it| unused(it.code)), "{settings}");
        tried += 1;
    }
    assert_eq!(tried, 3);
}
