//! Where daemons are reached, whose drivers they serve, and which of a fleet a client gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::sync::Arc;

use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::{Address, Crl, Mechanism, Policy, Routed, Target, TlsVersion};
use virtproxyd::policy::report::Severity;
use virtproxyd::policy::{self, FileOwner, Loaded};
use virtproxyd::protocol::driver::Driver;

fn loaded(tail: &str) -> Loaded {
    let text = format!("version: 1\nlisteners: {{ main: {{ unix: /run/main }} }}\n{tail}");
    let env = |name: &str| (name == "BRACES").then(|| "{host}".to_owned());
    policy::load("test.yaml", &text, &env)
        .unwrap_or_else(|report| panic!("{}", report.render_human(false)))
}

fn load(tail: &str) -> Policy {
    loaded(tail).policy
}

fn client() -> ClientFacts {
    ClientFacts {
        listener: "main".into(),
        unix: Some("user=alice".parse::<UnixFacts>().unwrap()),
        ..ClientFacts::default()
    }
}

fn target(policy: &Policy, uri: &str) -> Option<Target> {
    match policy.route(&client(), uri) {
        Routed::NoRoute => None,
        Routed::Try(mut targets) => {
            assert_eq!(targets.len(), 1);
            targets.pop()
        }
    }
}

/// Name, addresses and URI of where a client lands.
fn lands(policy: &Policy, uri: &str) -> Option<(String, Vec<String>, String)> {
    let target = target(policy, uri)?;
    let addresses = target.upstream.addresses.iter();
    Some((
        target.upstream.name.to_string(),
        addresses.map(Address::to_string).collect(),
        target.open_uri,
    ))
}

#[test]
fn addresses_have_libvirts_ports_and_files() {
    let policy = load(
        "upstreams:
  tls: { tls: [hv1.example.com, \"[2001:db8::1]:1\"] }
  tcp: { tcp: localhost }
  command: { command: [ssh, hv1, virt-ssh-helper, \"qemu:///system\"] }
  unix: { unix: [/run/a, /run/b], reconnect: true, start: [virtqemud, --timeout=120] }
  anonymous: { tls: hv2, ca: /ca, cert: none, min_version: \"1.3\", server_name: hv.example.com }
  sealed: { tcp: 192.0.2.1, sasl: {} }
  password: { tls: hv3, sasl: { user: proxy, password_file: /password } }
routes:
  - { uri: \"a:///\", upstream: tls }
  - { uri: \"b:///\", upstream: tcp }
  - { uri: \"c:///\", upstream: command }
  - { uri: \"d:///\", upstream: unix }
  - { uri: \"e:///\", upstream: anonymous }
  - { uri: \"f:///\", upstream: sealed }
  - { uri: \"g:///\", upstream: password }
",
    );
    for (uri, expected) in [
        (
            "a:///",
            &["tls:hv1.example.com:16514", "tls:[2001:db8::1]:1"][..],
        ),
        ("b:///", &["tcp:localhost:16509"]),
        ("c:///", &["ssh hv1 virt-ssh-helper qemu:///system"]),
        ("d:///", &["/run/a", "/run/b"]),
        ("f:///", &["tcp:192.0.2.1:16509"]),
    ] {
        assert_eq!(lands(&policy, uri).unwrap().1, expected, "{uri}");
    }
    let unix = target(&policy, "d:///").unwrap().upstream;
    let start = ["virtqemud".to_owned(), "--timeout=120".to_owned()];
    assert!(unix.reconnect && unix.start.as_deref() == Some(&start));
    let files: Vec<_> = policy.upstream_tls().collect();
    let names: Vec<&str> = files.iter().map(|(name, _)| &***name).collect();
    assert_eq!(names, ["tls", "anonymous", "password"]);
    let (tls, anonymous) = (files[0].1, files[1].1);
    let (cert, key) = tls.identity.as_ref().unwrap();
    assert_eq!(tls.ca.to_str(), Some("/etc/pki/CA/cacert.pem"));
    assert_eq!(cert.to_str(), Some("/etc/pki/libvirt/clientcert.pem"));
    assert_eq!(key.to_str(), Some("/etc/pki/libvirt/private/clientkey.pem"));
    assert_eq!(tls.crl, Crl::IfPresent("/etc/pki/CA/cacrl.pem".into()));
    assert_eq!((&anonymous.identity, &anonymous.crl), (&None, &Crl::None));
    assert_eq!(anonymous.min_version, TlsVersion::Tls13);
    assert_eq!(anonymous.server_name.as_deref(), Some("hv.example.com"));
    let sasl: Vec<_> = policy
        .upstream_sasl()
        .map(|(name, sasl)| (&**name, sasl.mechanisms.clone()))
        .collect();
    let scram = vec![Mechanism::ScramSha512, Mechanism::ScramSha256];
    assert_eq!(
        sasl,
        [("sealed", vec![Mechanism::Gssapi]), ("password", scram)]
    );
}

#[test]
fn problems_with_files_are_shown_where_they_are_named() {
    let mut loaded = loaded(
        "upstreams:
  one: { tls: hv1, ca: /ca, sasl: { user: me, password_file: /password } }
routes: [ { uri: \"a:///\", upstream: one } ]
",
    );
    let owner = FileOwner::Upstream("one".into());
    for key in ["ca", "cert", "key", "crl", "password_file"] {
        loaded.add_file_problem(&owner, key, Severity::Error, key, None);
    }
    let report = loaded.without_errors().unwrap_err();
    let shown = report.render_human(false);
    for (key, place) in [
        ("ca", "4:24"),
        ("cert", "4:10"),
        ("crl", "4:10"),
        ("password_file", "4:62"),
    ] {
        let expected = format!("error[file]: {key}\n --> test.yaml:{place}\n");
        assert!(shown.contains(&expected), "{expected}{shown}");
    }
}

const DRIVERS: &str = "
upstreams:
  qemu: { unix: /run/qemu, unix_ro: /run/qemu-ro }
  network: { unix: /run/network, unix_ro: /run/network-ro }
  storage: { tls: nas.example.com }
routes:
  - uri: qemu:///*
    upstream: qemu
    drivers:
      network: network
      storage: { upstream: storage, open: \"storage:///far\", fallback: true }
  - { uri: \"lxc:///system\", upstream: qemu }
  - { uri: \"\", probe: [\"qemu:///system\", \"lxc:///system\"] }
";

#[test]
fn drivers_have_daemons_and_uris_of_their_own() {
    let policy = load(DRIVERS);
    let target = target(&policy, "qemu:///session").unwrap();
    let drivers = target.drivers.as_ref().unwrap();
    let network = drivers.of(Driver::Network).unwrap();
    assert_eq!(&*network.upstream.name, "network");
    assert!(!network.fallback);
    assert_eq!(network.open_uri, "network:///session");
    let storage = drivers.of(Driver::Storage).unwrap();
    assert!(storage.fallback);
    assert_eq!(storage.open_uri, "storage:///far");
    assert!(drivers.of(Driver::Secret).is_none());
    let Routed::Try(probed) = policy.route(&client(), "") else {
        panic!("nothing is probed")
    };
    let with_drivers: Vec<bool> = probed.iter().map(|it| it.drivers.is_some()).collect();
    assert_eq!(with_drivers, [true, false]);
}

#[test]
fn an_explanation_shows_the_drivers() {
    let policy = load(DRIVERS);
    let mut client = client();
    client.readonly = true;
    let explained = policy.explain(&client, "qemu:///system");
    let text = explained.to_string();
    let expected = "  => upstream `qemu` at /run/qemu-ro, read-only, opening `qemu:///system`
     network: upstream `network` at /run/network-ro, read-only, opening `network:///system`
     storage: upstream `storage` at tls:nas.example.com:16514, read-only, opening `storage:///far`; \
where it cannot be reached, as the rest
";
    assert!(text.ends_with(expected), "{text}");
    let json = serde_json::to_value(&explained).unwrap();
    let expected = serde_json::json!({
        "driver": "network", "upstream": "network", "at": ["/run/network-ro"],
        "uri": "network:///system", "fallback": false,
    });
    assert_eq!(
        json.pointer("/asked/outcome/open/drivers/0"),
        Some(&expected)
    );
    let without = serde_json::to_value(policy.explain(&client, "lxc:///system")).unwrap();
    assert_eq!(without.pointer("/asked/outcome/open/drivers"), None);
}

const FLEET: &str = "
upstreams:
  fleet:
    tls: [\"{host}.{zone}.example.com\", \"{host}-b.example.com:1\"]
    server_name: \"{host}.example.com\"
    values: { host: [\"hv*\", \"regex:kvm[0-9]+\"], zone: [a, b] }
    reconnect: true
  network: { unix: \"/run/{host}/network\", values: { host: [\"hv*\"] } }
  jump: { command: [ssh, \"{host}\", awk, \"{ print }\"], values: { host: \"hv*\" } }
  local: { unix: \"/run/${BRACES}\", values: { host: \"hv*\" } }
  rest: { unix: /run/rest }
routes:
  - { uri: \"qemu:///system?host=*&zone=*\", upstream: fleet, drivers: { network: network } }
  - { uri: \"regex:qemu:///(?P<host>[^/?]+)\", upstream: jump, open: \"qemu:///system\" }
  - { uri: \"local:///?host=*&*\", upstream: local }
  - { uri: \"*?*\", upstream: rest }
";

#[test]
fn a_template_becomes_the_daemon_that_the_client_asks_for() {
    let policy = load(FLEET);
    let found = lands(&policy, "qemu:///system?zone=a&host=hv12");
    let expected = (
        "fleet/hv12,a".to_owned(),
        vec![
            "tls:hv12.a.example.com:16514".to_owned(),
            "tls:hv12-b.example.com:1".to_owned(),
        ],
        "qemu:///system".to_owned(),
    );
    assert_eq!(found, Some(expected));
    let target = target(&policy, "qemu:///system?host=hv12&zone=b").unwrap();
    assert!(target.upstream.reconnect);
    let tls = target.upstream.tls().unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("hv12.example.com"));
    let (_, shared) = policy.upstream_tls().next().unwrap();
    assert_eq!(shared.ca, tls.ca);
    let network = target.drivers.as_ref().unwrap().of(Driver::Network);
    assert_eq!(
        network.unwrap().upstream.addresses[0].to_string(),
        "/run/hv12/network"
    );
    let (name, addresses, uri) = lands(&policy, "qemu:///hv7").unwrap();
    assert_eq!((&*name, &*uri), ("jump/hv7", "qemu:///system"));
    assert_eq!(addresses, ["ssh hv7 awk { print }"]);
    let (_, addresses, uri) = lands(&policy, "local:///?host=%68v1&x=1").unwrap();
    assert_eq!((&*addresses[0], &*uri), ("/run/hv1", "local:///?x=1"));
    // Equal values make equal daemons, for those that keep something by daemon.
    let again = |uri| self::target(&policy, uri).unwrap().upstream;
    let uri = "qemu:///system?host=hv12&zone=b";
    assert!(!Arc::ptr_eq(&again(uri), &again(uri)) && again(uri) == again(uri));
    // So do those that are one name to DNS: quotas are by address.
    let small = again("qemu:///system?host=hvab&zone=b");
    let large = again("qemu:///system?host=hvAB&zone=b");
    assert_eq!(small.addresses, large.addresses);
    let (_, addresses, _) = lands(&policy, "local:///?host=hvAB&x=1").unwrap();
    assert_eq!(addresses, ["/run/hvAB"]);
}

/// The last route takes every URI, and must not take these.
#[test]
fn who_asks_for_what_is_not_allowed_gets_nothing_rather_than_another_daemon() {
    let policy = load(FLEET);
    assert_eq!(lands(&policy, "qemu:///system?x=1").unwrap().0, "rest");
    for host in [
        "evil",
        "",
        "HV1",
        "hv1/../../x",
        "hv..1",
        "hv1.",
        "hv1:22",
        "hv1%20-oProxyCommand=x",
        "hv%2f",
        "hv1@x",
        "hv{zone}",
        // No network of that name: not the daemon without it either.
        "kvm3",
        &format!("hv{}", "a".repeat(252)),
        // Too long only where it is put.
        &format!("hv{}", "a".repeat(250)),
    ] {
        let uri = format!("qemu:///system?host={host}&zone=a");
        assert_eq!(lands(&policy, &uri), None, "{uri}");
    }
    for uri in [
        "qemu:///system?host=hv1&zone=c",
        "qemu:///-oProxyCommand=hv1",
        "qemu:///evil",
    ] {
        assert_eq!(lands(&policy, uri), None, "{uri}");
    }
    let explained = policy.explain(&client(), "qemu:///system?host=evil&zone=a");
    let text = explained.to_string();
    let expected = "  => no route: `evil` is no `host` that the upstream `network` has\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn a_template_that_is_used_gives_no_warning_and_one_that_is_not_does() {
    let unused = "
upstreams:
  fleet: { tls: \"{host}\", values: { host: [hv1, hv2] } }
  driver: { unix: /run/driver }
  rest: { unix: /run/rest }
routes:
  - { uri: \"*\", upstream: rest, drivers: { secret: driver } }
";
    let warnings = loaded(unused).warnings;
    assert_eq!(warnings.problems().len(), 1);
    assert!(warnings.one_line().contains("`fleet`"));
}
