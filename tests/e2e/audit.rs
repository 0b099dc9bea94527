//! What is recorded of decisions: `virsh` of a tenant before a real daemon, the audit file, and
//! `explain ID`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::libvirtd::Libvirtd;
use crate::support::policy::{MAIN, every_route_to, listeners};
use crate::support::process::Output;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::records::records_in;
use crate::support::rpc_client::RpcClient;
use crate::support::tool::virsh;
use crate::support::wait::eventually;

const URI: &str = "test:///default";
/// What the tenant may do with its own domains, and where that is recorded.
const ACCESS: &str = "
access:
  audit: { file: $DIR/audit.jsonl, journal: false, allowed: [\"domain:write\"] }
  rules:
  - who: acme
    allow: [\"connect:*\", domain:getattr, domain:read, domain:write, domain:save]
    on: { domain: { name: \"acme-*\" } }
";

/// The daemon with a domain of the tenant's and one of another's, and the proxy before it.
struct Host {
    proxy: Proxy,
    daemon: Libvirtd,
    /// The test driver forgets everything whenever its last connection closes.
    _keeps_the_state: RpcClient,
}

fn domain_xml(name: &str, more: &str) -> String {
    format!(
        "<domain type='test'><name>{name}</name><memory>65536</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os>{more}</domain>"
    )
}

fn policy(dir: &Path, upstream: &Path, access: &str) -> String {
    format!(
        "{}identities: {{ acme: {{ unix: {{ uid: \"*\" }} }} }}\n{}{}",
        listeners(dir, ""),
        every_route_to(upstream, ""),
        access.replace("$DIR", &dir.display().to_string()),
    )
}

impl Host {
    #[track_caller]
    fn start(access: &str) -> Self {
        let daemon = Libvirtd::start();
        let keeps_the_state = RpcClient::opened(&daemon.socket(), URI);
        let builder = ProxyBuilder::new(|dir| policy(dir, &daemon.socket(), access));
        let proxy = builder.start();
        let host = Self {
            proxy,
            daemon,
            _keeps_the_state: keeps_the_state,
        };
        for name in ["acme-web1", "globex-db1"] {
            let file = host.file(name, &domain_xml(name, ""));
            virsh(&host.daemon.uri(URI), &["define", &file]).run().ok();
        }
        host
    }

    /// A file with this text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.proxy.dir().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// `virsh` of the tenant.
    fn virsh(&self, args: &[&str]) -> Output {
        virsh(&self.proxy.uri(URI, MAIN), args).run()
    }

    fn audit_file(&self) -> PathBuf {
        self.proxy.dir().join("audit.jsonl")
    }

    /// The records in the file, once there are as many.
    #[track_caller]
    fn records(&self, count: usize) -> Vec<Value> {
        let mut records = Vec::new();
        eventually("the records are written", || {
            records = records_in(&self.audit_file());
            records.len() >= count
        });
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// `virtproxyd explain`, with the proxy's policy.
    fn explain(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_virtproxyd"))
            .args(["explain", "-f"])
            .arg(self.proxy.policy())
            .args(args)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn explained(&self, args: &[&str]) -> String {
        let output = self.explain(args);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// The id in an error of `virsh`.
#[track_caller]
fn id_in(error: &str) -> String {
    let id = error
        .split_once("(refusal ")
        .and_then(|(_, rest)| rest.split_once(')'));
    id.unwrap_or_else(|| panic!("no id in: {error}"))
        .0
        .to_owned()
}

#[test]
fn a_refusal_is_found_by_the_id_that_the_client_was_told() {
    let host = Host::start(ACCESS);
    let error = host.virsh(&["start", "acme-web1"]).failed();
    assert!(
        error.contains("access denied: domain:start is not allowed (refusal "),
        "{error}"
    );
    let id = id_in(&error);
    let record = host.records(1).remove(0);
    assert_eq!(record["id"], *id);
    assert_eq!(record["verdict"], "refused");
    assert_eq!(record["identities"], serde_json::json!(["acme"]));
    assert_eq!(record["listener"], "main");
    assert_eq!(record["upstream"], "daemon");
    assert_eq!(record["procedure"], "DOMAIN_CREATE");
    assert_eq!(record["permission"], "domain:start");
    let object = record["object"].as_str().unwrap();
    assert!(object.starts_with("domain acme-web1 "), "{object}");
    assert!(object.ends_with(" (as the client names it)"), "{object}");
    assert_eq!(record["cause"], "not-allowed");
    assert_eq!(
        (&record["generation"], &record["count"]),
        (&1.into(), &1.into())
    );
    assert_eq!(record["client"]["uid"], rustix::process::geteuid().as_raw());
    assert!(id.starts_with(record["connection"].as_str().unwrap()));
    let time = record["time"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    assert_eq!(host.audit_file().metadata().unwrap().mode() & 0o7777, 0o600);

    let text = host.explained(&[&id]);
    assert!(
        text.starts_with(&format!("refusal {id}: the call was refused\n")),
        "{text}"
    );
    for part in [
        "DOMAIN_CREATE",
        "identities: acme\n",
        "rule:       none\n",
        "needed:     a rule that allows domain:start on this object to acme",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let json: Value = serde_json::from_str(&host.explained(&["--format", "json", &id])).unwrap();
    assert_eq!(json["records"][0], record);
    assert_eq!(json["policy_unchanged"], true);

    let unknown = host.explain(&["00000000-1-1"]);
    assert_eq!(unknown.status.code(), Some(1));
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(
        error.contains("no record of refusal 00000000-1-1: looked in "),
        "{error}"
    );
    // The record says who it was, so that nobody else can be asked about with it.
    for wrong in [
        &["no-id"][..],
        &[&id, "--as", "user=ann"],
        &["domain:start"],
    ] {
        assert_eq!(host.explain(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn the_rule_that_denied_is_shown_as_it_is_written_unless_the_policy_has_changed() {
    let deny = "  - who: \"*\"\n    deny: domain:suspend   # nobody\n";
    let access = format!(
        "{}{deny}",
        ACCESS.replace("domain:save", "domain:save, domain:suspend")
    );
    let mut host = Host::start(&access);
    let id = id_in(&host.virsh(&["suspend", "acme-web1"]).failed());
    let record = host.records(1).remove(0);
    let line = record["rule"].as_u64().unwrap();
    let policy = fs::read_to_string(host.proxy.policy()).unwrap();
    let line_text = policy.lines().nth(line as usize - 1).unwrap();
    assert_eq!(line_text, "  - who: \"*\"");
    let text = host.explained(&[&id]);
    let place = format!("rule:       {}:{line}\n", host.proxy.policy().display());
    assert!(text.contains(&place), "{text}");
    let shown = "              | who: \"*\"\n              | deny: domain:suspend   # nobody\n";
    assert!(text.contains(shown), "{text}");
    assert!(
        text.contains(&format!("needed:     a narrower rule in line {line}")),
        "{text}"
    );

    fs::write(host.proxy.policy(), policy.replace("# nobody", "# no one")).unwrap();
    host.proxy.reload();
    let text = host.explained(&[&id]);
    assert!(text.contains("has changed since"), "{text}");
    assert!(!text.contains("no one"), "{text}");
}

#[test]
fn a_hidden_object_is_recorded_and_the_client_sees_only_the_daemons_not_found() {
    let host = Host::start(ACCESS);
    let hidden = host.virsh(&["dominfo", "globex-db1"]).failed();
    let absent = virsh(&host.daemon.uri(URI), &["dominfo", "globex-db2"])
        .run()
        .failed();
    assert_eq!(hidden, absent.replace("globex-db2", "globex-db1"));
    // virsh tries a name as an id and a UUID first where it may be one.
    let record = host.records(1).remove(0);
    assert_eq!(record["verdict"], "hidden");
    assert!(
        record["object"]
            .as_str()
            .unwrap()
            .starts_with("domain globex-db1")
    );
    assert_eq!(record["procedure"], "DOMAIN_LOOKUP_BY_NAME");
    let text = host.explained(&[record["id"].as_str().unwrap()]);
    assert!(
        text.contains("the client was told that there is no such object"),
        "{text}"
    );
}

#[test]
fn allowed_calls_of_the_named_classes_are_recorded_and_others_are_not() {
    let host = Host::start(ACCESS);
    host.virsh(&["dumpxml", "acme-web1"]).ok();
    let file = host.file("new.xml", &domain_xml("acme-new", ""));
    host.virsh(&["define", &file]).ok();
    let record = host.records(1).remove(0);
    assert_eq!(record["verdict"], "allowed");
    assert_eq!(record["permission"], "domain:write");
    assert_eq!(record["object"], "domain acme-new");
    let policy = fs::read_to_string(host.proxy.policy()).unwrap();
    let line = record["rule"].as_u64().unwrap();
    assert_eq!(
        policy.lines().nth(line as usize - 1).unwrap(),
        "  - who: acme"
    );
    assert_eq!(record.get("id"), None);
}

#[test]
fn no_secret_and_no_xml_is_ever_recorded() {
    const SECRET: &str = "correct-horse";
    let guards = "    guards: { host_paths: [/srv/acme], monitor_commands: [\"query-*\"] }\n";
    let host = Host::start(&format!("{ACCESS}{guards}"));
    let graphics = format!("<devices><graphics type='vnc' passwd='{SECRET}'/></devices>");
    let disk = format!(
        "<devices><graphics type='vnc' passwd='{SECRET}'/><disk type='file'>\
         <source file='/srv/globex/disk'/><target dev='vda'/></disk></devices>"
    );
    let mut error = String::new();
    for (name, xml) in [
        ("other.xml", domain_xml("globex-new", &graphics)),
        ("guarded.xml", domain_xml("acme-new", &disk)),
        ("broken.xml", format!("<domain><a>{SECRET}</domain>")),
        ("good.xml", domain_xml("acme-new", &graphics)),
    ] {
        let file = host.file(name, &xml);
        let output = host.virsh(&["define", &file]);
        if name == "good.xml" {
            output.ok();
        } else {
            error += &output.failed();
        }
    }
    let command = format!("set_password vnc {SECRET}");
    error += &host
        .virsh(&["qemu-monitor-command", "acme-web1", "--hmp", &command])
        .failed();
    let verdicts: Vec<_> = host
        .records(5)
        .iter()
        .map(|it| it["verdict"].clone())
        .collect();
    assert_eq!(
        verdicts,
        ["refused", "refused", "refused", "allowed", "refused"]
    );
    let text = fs::read_to_string(host.audit_file()).unwrap();
    for part in [SECRET, "<domain", "passwd", "<name>"] {
        assert!(!text.contains(part), "{part} in:\n{text}");
    }
    assert!(text.contains("/srv/globex/disk"), "{text}");
    assert!(!error.contains(SECRET), "{error}");
    let log = host.proxy.process().stderr().lines().join("\n");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn repeated_refusals_are_counted() {
    let host = Host::start(ACCESS);
    let commands = ["start acme-web1"; 6].join("; ");
    let error = host.virsh(&[&commands]).failed();
    let ids: Vec<_> = error
        .match_indices("(refusal ")
        .map(|(at, _)| id_in(&error[at..]))
        .collect();
    assert_eq!(ids.len(), 6, "{error}");
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let counts: Vec<_> = host
        .records(4)
        .iter()
        .map(|it| it["count"].clone())
        .collect();
    assert_eq!(counts, [1, 2, 4, 6], "the last when the client has left");
    assert!(host.explained(&[&ids[0]]).contains("6 times at least"));
}

#[test]
fn the_last_count_is_recorded_of_a_client_that_tears_its_connection_down() {
    const DOMAIN_CREATE: i32 = 9;
    let host = Host::start(ACCESS);
    let mut client = RpcClient::opened(&host.proxy.socket(), URI);
    let calls = (0..5).flat_map(|_| client.prepare(DOMAIN_CREATE, Vec::new()).encode());
    let calls: Vec<u8> = calls.collect();
    client.send_bytes(&calls);
    // Its answers are left unread, so that the kernel resets the connection.
    host.records(3);
    drop(client);
    let counts: Vec<_> = host
        .records(4)
        .iter()
        .map(|it| it["count"].clone())
        .collect();
    assert_eq!(counts, [1, 2, 4, 5]);
}

#[test]
fn in_shadow_a_call_passes_and_is_recorded() {
    let access = ACCESS.replace("access:", "access:\n  mode: shadow");
    let host = Host::start(&access);
    host.virsh(&["start", "acme-web1"]).ok();
    let record = host.records(1).remove(0);
    assert_eq!(record["verdict"], "shadow");
    assert_eq!(record["permission"], "domain:start");
    assert_eq!(record["cause"], "not-allowed");
}

#[test]
fn records_follow_the_file_through_rotation_and_into_another() {
    let mut host = Host::start(ACCESS);
    let first = id_in(&host.virsh(&["start", "acme-web1"]).failed());
    host.records(1);
    let rotated = host.proxy.dir().join("audit.jsonl.1");
    fs::rename(host.audit_file(), &rotated).unwrap();
    host.proxy.reload();
    let second = id_in(&host.virsh(&["start", "acme-web1"]).failed());
    assert_eq!(host.records(1)[0]["id"], *second);
    assert_eq!(records_in(&rotated)[0]["id"], *first);
    for id in [&first, &second] {
        assert!(host.explained(&[id]).contains("DOMAIN_CREATE"));
    }

    // A broken policy keeps the rules, and the file is followed all the same.
    let policy = fs::read_to_string(host.proxy.policy()).unwrap();
    fs::write(host.proxy.policy(), "listeners: [").unwrap();
    fs::rename(host.audit_file(), host.proxy.dir().join("audit.jsonl.2")).unwrap();
    host.proxy.reload();
    host.records(0);

    let other = policy.replace("/audit.jsonl", "/other.jsonl");
    fs::write(host.proxy.policy(), other).unwrap();
    host.proxy.reload();
    host.virsh(&["start", "acme-web1"]).failed();
    let other = host.proxy.dir().join("other.jsonl");
    eventually("the record is in the other file", || {
        records_in(&other).len() == 1
    });
    host.records(0);
}

#[test]
fn a_policy_whose_records_could_not_be_written_is_refused() {
    let mut host = Host::start(ACCESS);
    let policy = fs::read_to_string(host.proxy.policy()).unwrap();
    let target = host.file("target", "");
    std::os::unix::fs::symlink(&target, host.proxy.dir().join("link.jsonl")).unwrap();
    for (path, why) in [
        ("/link.jsonl", "it is a symbolic link"),
        ("/missing/audit.jsonl", "No such file or directory"),
    ] {
        let broken = policy.replace("/audit.jsonl", path);
        fs::write(host.proxy.policy(), &broken).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_virtproxyd"))
            .arg("check")
            .arg(host.proxy.policy())
            .output()
            .unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert!(
            report.contains("cannot append to ") && report.contains(why),
            "{report}"
        );
        let line = broken
            .lines()
            .position(|line| line.contains("audit:"))
            .unwrap()
            + 1;
        assert!(report.contains(&format!("routes.yaml:{line}:")), "{report}");
        let messages = host.proxy.reload();
        let failed = |message: &String| message.contains("reload failed: ");
        assert!(messages.iter().any(failed), "{messages:?}");
    }
    // What was in force stays, with its file.
    host.virsh(&["start", "acme-web1"]).failed();
    host.records(1);
}

#[test]
fn without_a_file_or_the_journal_the_log_has_a_line_per_refusal() {
    let access = ACCESS.replace("file: $DIR/audit.jsonl, ", "");
    let host = Host::start(&access);
    let id = id_in(&host.virsh(&["start", "acme-web1"]).failed());
    let line = host
        .proxy
        .process()
        .stderr()
        .wait_for(&format!("id={id:?}"));
    assert!(line.contains("refused: DOMAIN_CREATE"), "{line}");
    let unknown = host.explain(&[&id]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(error.contains("the policy writes no records"), "{error}");

    // With the journal, which the log stands in for here, it has the whole record, whatever else
    // is logged.
    let daemon = Libvirtd::start();
    let access = access.replace("journal: false, ", "");
    let builder = ProxyBuilder::new(|dir| policy(dir, &daemon.socket(), &access));
    let proxy = builder.env("VIRTPROXYD_LOG", "error").start();
    virsh(&proxy.uri(URI, MAIN), &["start", "test"])
        .run()
        .failed();
    let line = proxy.process().stderr().wait_for("verdict=\"hidden\"");
    for part in [
        "virtproxyd::audit: hidden: DOMAIN_LOOKUP_BY_NAME",
        "identities=\"acme\"",
        "count=1",
    ] {
        assert!(line.contains(part), "no {part} in: {line}");
    }
}
