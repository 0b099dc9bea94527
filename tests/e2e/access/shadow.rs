//! Rules that are tried out: what they refuse is recorded, and done.

use std::fs;
use std::path::Path;

use super::host::{Host, SMALL, WAYS, Way, tenant_rule};
use crate::support::records::records_in;
use crate::support::tenants::{ACME, Driver, GLOBEX};
use crate::support::value::Value;
use crate::support::wait::poll;

/// The records in the audit file that have this verdict.
fn records(file: &Path, verdict: &str) -> Vec<serde_json::Value> {
    let mut records = records_in(file);
    records.retain(|record| record["verdict"] == verdict);
    records
}

/// Waits for a record of this verdict about this procedure.
#[track_caller]
fn wait_for(file: &Path, verdict: &str, procedure: &str) -> serde_json::Value {
    let found = poll(|| {
        let mut records = records(file, verdict).into_iter();
        records.find(|record| record["procedure"] == procedure)
    });
    found.unwrap_or_else(|| {
        panic!(
            "no {verdict} of {procedure}:\n{}",
            fs::read_to_string(file).unwrap_or_default()
        )
    })
}

#[test]
fn in_shadow_nothing_is_refused_and_all_of_it_recorded() {
    let host = Host::with_access(Driver::Test, SMALL, |dir| {
        let rules = tenant_rule(ACME, "").replace('\n', "\n  ");
        format!(
            "access:
  mode: shadow
  audit: {{ file: \"{}/audit.jsonl\" }}
  rules:
  {rules}
",
            dir.display()
        )
    });
    let file = host.dir().join("audit.jsonl");
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let results = [("need_results", Value::Int(1))];
        let mut root = host.root();
        let all = root.call("CONNECT_LIST_ALL_DOMAINS", &results).unwrap();
        assert_eq!(
            client.call("CONNECT_LIST_ALL_DOMAINS", &results).unwrap(),
            all
        );
        let dom = || ("dom", GLOBEX.object("domain", 2, host.dir()));
        client.call("DOMAIN_CREATE", &[dom()]).unwrap();
        client.call("DOMAIN_DESTROY", &[dom()]).unwrap();
        // The driver does not have it.
        let error = client
            .call("CONNECT_GET_DOMAIN_CAPABILITIES", &[])
            .unwrap_err();
        assert_eq!(error.code, 3, "{error:?}");
        // Who has no rule at all is let through as well.
        host.caller("globex", way)
            .call("NODE_GET_INFO", &[])
            .unwrap();
    }
    for procedure in ["DOMAIN_CREATE", "DOMAIN_DESTROY", "NODE_GET_INFO"] {
        let record = wait_for(&file, "shadow", procedure);
        assert!(record["id"].is_string(), "{record}");
    }
    assert!(records(&file, "refused").is_empty());
    assert!(records(&file, "hidden").is_empty());
}

#[test]
fn a_rule_in_shadow_denies_nothing() {
    let host = Host::with_access(Driver::Test, SMALL, |dir| {
        let rules = tenant_rule(ACME, "").replace('\n', "\n  ");
        format!(
            "access:
  audit: {{ file: \"{}/audit.jsonl\" }}
  rules:
  {rules}
  - who: acme
    deny: domain:stop
    mode: shadow
  - who: acme
    deny: domain:suspend
",
            dir.display()
        )
    });
    let file = host.dir().join("audit.jsonl");
    let mut client = host.caller("acme", Way::Unix);
    let dom = || ("dom", ACME.object("domain", 0, host.dir()));
    assert_eq!(
        client.call("DOMAIN_SUSPEND", &[dom()]).unwrap_err().code,
        88
    );
    client.call("DOMAIN_DESTROY", &[dom()]).unwrap();
    let of_globex = ("dom", GLOBEX.object("domain", 0, host.dir()));
    assert_eq!(
        client
            .call("DOMAIN_DESTROY", &[of_globex])
            .unwrap_err()
            .code,
        42
    );
    let shadow = wait_for(&file, "shadow", "DOMAIN_DESTROY");
    let refused = wait_for(&file, "refused", "DOMAIN_SUSPEND");
    wait_for(&file, "hidden", "DOMAIN_DESTROY");
    assert!(shadow["rule"].as_u64() < refused["rule"].as_u64());
    assert_eq!(shadow["permission"], "domain:stop");
}
