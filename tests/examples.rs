//! Every example policy loads, without a warning, and does what it says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is the failed test"
)]

use std::path::{Path, PathBuf};

use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::{ListenAddress, Policy, Routed};
use virtproxyd::policy::{self, Report};

fn env(name: &str) -> Option<String> {
    match name {
        "XDG_RUNTIME_DIR" => Some("/run/user/1000".into()),
        "DEMO" => Some("/tmp/demo".into()),
        _ => None,
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load(name: &str) -> Policy {
    let text = std::fs::read_to_string(directory().join(name)).unwrap();
    let show = |report: &Report| report.render_human(false);
    match policy::load(name, &text, &env) {
        Err(report) => panic!("{}", show(&report)),
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{}", show(&loaded.warnings));
            loaded.policy
        }
    }
}

fn client(policy: &Policy, listener: &str, unix: &str) -> ClientFacts {
    let listener = policy
        .listeners
        .iter()
        .find(|known| *known.name == *listener)
        .unwrap();
    ClientFacts {
        listener: listener.name.clone(),
        readonly: listener.readonly,
        unix: Some(unix.parse::<UnixFacts>().unwrap()),
        ..ClientFacts::default()
    }
}

/// Names of the upstreams and the URIs opened there, in order.
fn routed(policy: &Policy, listener: &str, unix: &str, uri: &str) -> Vec<(String, String)> {
    match policy.route(&client(policy, listener, unix), uri) {
        Routed::NoRoute => Vec::new(),
        Routed::Try(targets) => targets
            .into_iter()
            .map(|target| (target.upstream.name.to_string(), target.open_uri))
            .collect(),
    }
}

fn to(upstream: &str, uri: &str) -> Vec<(String, String)> {
    vec![(upstream.to_owned(), uri.to_owned())]
}

#[test]
fn all_examples_are_tested_here() {
    let mut names: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "demo.yaml",
            "modular.yaml",
            "monitoring.yaml",
            "monolithic.yaml",
            "session.yaml"
        ],
        "a new example needs a test below"
    );
    for name in names {
        let text = std::fs::read_to_string(directory().join(&name)).unwrap();
        let first = text.lines().next().unwrap();
        assert_eq!(
            first, "# yaml-language-server: $schema=../schemas/routes.schema.json",
            "{name}"
        );
    }
}

#[test]
fn modular_sends_each_uri_to_its_daemon() {
    let policy = load("modular.yaml");
    for (uri, upstream) in [
        ("qemu:///system", "qemu"),
        ("lxc:///system", "lxc"),
        ("xen:///system", "xen"),
        ("vbox:///system", "vbox"),
        ("vz:///system", "vz"),
        ("ch:///system", "ch"),
        ("network:///system", "network"),
        ("storage:///system", "storage"),
        ("nodedev:///system", "nodedev"),
        ("nwfilter:///system", "nwfilter"),
        ("secret:///system", "secret"),
        ("interface:///system", "interface"),
    ] {
        assert_eq!(
            routed(&policy, "main", "user=root,uid=0", uri),
            to(upstream, uri)
        );
    }
    assert_eq!(routed(&policy, "main", "user=root", "qemu:///session"), []);
    assert_eq!(
        routed(&policy, "main", "user=root", "qemu:///system?host=hv2"),
        []
    );
    let probed: Vec<String> = routed(&policy, "ro", "", "")
        .into_iter()
        .map(|(upstream, _)| upstream)
        .collect();
    assert_eq!(probed, ["xen", "qemu", "lxc", "vbox", "vz"]);
}

#[test]
fn modular_leaves_its_read_write_socket_to_root() {
    let policy = load("modular.yaml");
    for listener in &policy.listeners {
        let ListenAddress::Unix { mode, .. } = listener.address;
        assert_eq!(mode, if listener.readonly { 0o666 } else { 0o600 });
    }
}

#[test]
fn session_stays_within_the_runtime_directory() {
    let policy = load("session.yaml");
    for listener in &policy.listeners {
        let ListenAddress::Unix { path, .. } = &listener.address;
        assert!(path.starts_with("/run/user/1000/libvirt"));
    }
    for upstream in &policy.upstreams {
        assert!(upstream.unix.starts_with("/run/user/1000/libvirt"));
    }
    assert_eq!(
        routed(&policy, "main", "user=alice", "qemu:///session"),
        to("qemu", "qemu:///session")
    );
    assert_eq!(routed(&policy, "main", "user=alice", "qemu:///system"), []);
}

#[test]
fn monolithic_sends_every_driver_to_the_one_daemon() {
    let policy = load("monolithic.yaml");
    for uri in ["qemu:///system", "network:///system", "test:///default", ""] {
        assert_eq!(
            routed(&policy, "main", "user=root", uri),
            to("libvirtd", uri)
        );
    }
    assert_eq!(routed(&policy, "main", "user=root", "esx://elsewhere/"), []);
}

#[test]
fn monitoring_lets_monitors_look_and_refuses_strangers() {
    let policy = load("monitoring.yaml");
    let qemu = to("qemu", "qemu:///system");
    assert_eq!(
        routed(
            &policy,
            "main",
            "user=alice,group=users,group=libvirt",
            "qemu:///system"
        ),
        qemu
    );
    assert_eq!(
        routed(&policy, "ro", "user=telegraf", "qemu:///system"),
        qemu
    );
    assert_eq!(routed(&policy, "ro", "user=collectd-2", ""), qemu);
    assert_eq!(
        routed(&policy, "main", "user=telegraf", "qemu:///system"),
        []
    );
    assert_eq!(routed(&policy, "ro", "user=mallory", "qemu:///system"), []);
}

#[test]
fn demo_routes_the_test_driver() {
    let policy = load("demo.yaml");
    assert!(policy.daemon.watch);
    let expected = to("libvirtd", "test:///default");
    assert_eq!(
        routed(&policy, "main", "user=alice", "test:///default"),
        expected
    );
    assert_eq!(routed(&policy, "ro", "user=alice", ""), expected);
}
