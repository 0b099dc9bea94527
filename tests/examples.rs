//! Every example policy loads, without a warning, and does what it says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::path::{Path, PathBuf};

use virtproxyd::policy::access::{Gate, Owner, Permission, Subject};
use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::{Auth, ListenAddress, Policy, Routed};
use virtproxyd::policy::{self, Report};
use virtproxyd::protocol::driver::Driver;
use virtproxyd::protocol::header::Program;
use virtproxyd::protocol::object::Class;
use virtproxyd::protocol::table::remote;

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
    compile(
        name,
        &std::fs::read_to_string(directory().join(name)).unwrap(),
    )
}

fn compile(name: &str, text: &str) -> Policy {
    let show = |report: &Report| report.render_human(false);
    match policy::load(name, text, &env) {
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
            "fleet.yaml",
            "front-doors.yaml",
            "modular.yaml",
            "monitoring.yaml",
            "monolithic.yaml",
            "remote.yaml",
            "sasl.yaml",
            "session.yaml",
            "stateless.yaml",
            "tenants.yaml"
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

/// The drivers that have a daemon of their own, and what is opened there.
fn drivers(policy: &Policy, client: &str, uri: &str) -> Vec<(String, String)> {
    let Routed::Try(targets) = policy.route(&self::client(policy, "main", client), uri) else {
        panic!("{uri} has no route")
    };
    let drivers = targets[0].drivers.iter().flat_map(|drivers| drivers.iter());
    let drivers = drivers.map(|(_, it)| {
        assert!(it.fallback);
        (it.upstream.name.to_string(), it.open_uri.clone())
    });
    drivers.collect()
}

#[test]
fn modular_sends_calls_of_each_driver_straight_to_its_daemon() {
    let policy = load("modular.yaml");
    let all = Driver::ALL.map(|driver| {
        let name = driver.scheme();
        (name.to_owned(), format!("{name}:///system"))
    });
    for uri in ["qemu:///system", "lxc:///", "xen:///", "ch:///system"] {
        assert_eq!(drivers(&policy, "user=root", uri), all, "{uri}");
    }
    for uri in ["vbox:///system", "network:///system"] {
        assert_eq!(drivers(&policy, "user=root", uri), [], "{uri}");
    }
    let mut upstreams = policy.upstreams.iter();
    assert!(upstreams.all(|it| it.reconnect || matches!(&*it.name, "vbox" | "vz")));
}

#[test]
fn fleet_reaches_the_hosts_that_its_values_name() {
    let policy = load("fleet.yaml");
    let operator = "dn=\"CN=eve,OU=Ops,O=Example\"";
    let place = |client: &str, uri: &str| {
        let facts = ClientFacts {
            listener: "tls".into(),
            ..client.parse().unwrap()
        };
        match policy.route(&facts, uri) {
            Routed::Try(targets) => {
                let address = targets[0].upstream.addresses[0].to_string();
                Some((address, targets[0].open_uri.clone()))
            }
            Routed::NoRoute => None,
        }
    };
    let system = |address: &str| Some((address.to_owned(), "qemu:///system".to_owned()));
    assert_eq!(
        place(operator, "qemu:///system?host=kvm7"),
        system("tls:kvm7.example.com:16514")
    );
    assert_eq!(
        place(operator, "qemu:///lab/mill"),
        system("ssh -oBatchMode=yes proxy@mill.lab.example.com virt-ssh-helper qemu:///system")
    );
    for uri in [
        "qemu:///system?host=kvm1234",
        "qemu:///system?host=hv1.evil.test:22/",
        "qemu:///system?host=hv1&x=1",
        "qemu:///lab/evil",
    ] {
        assert_eq!(place(operator, uri), None, "{uri}");
    }
    let files: Vec<&str> = policy.upstream_tls().map(|(name, _)| &**name).collect();
    assert_eq!(files, ["production"]);
}

#[test]
fn stateless_sends_named_hosts_to_the_daemon_that_has_their_driver() {
    let policy = load("stateless.yaml");
    let esx = "user=alice,group=esx";
    for uri in [
        "test:///default",
        "esx://vc1.example.com/dc1",
        "vpx://vc1.example.com/dc1/esx7.example.com",
    ] {
        assert_eq!(routed(&policy, "main", esx, uri), to("stateless", uri));
    }
    for uri in [
        "esx://elsewhere/dc1",
        "esx://vc1.example.com.evil.test/dc1",
        "esx://vc1.example.com/dc1?no_verify=1",
        "esx://root@vc1.example.com/dc1",
        "test:///etc/passwd",
    ] {
        assert_eq!(routed(&policy, "main", esx, uri), [], "{uri}");
    }
}

#[test]
fn modular_leaves_its_read_write_socket_to_polkit() {
    let policy = load("modular.yaml");
    for listener in &policy.listeners {
        let ListenAddress::Unix { mode, .. } = listener.address else {
            panic!("only UNIX sockets")
        };
        assert_eq!(mode, 0o666);
        let auth = if listener.readonly {
            Auth::None
        } else {
            Auth::Polkit
        };
        assert_eq!(listener.auth, auth);
    }
}

fn described(policy: &Policy, listener: &str, client: &str, uri: &str) -> Vec<(String, String)> {
    let facts = ClientFacts {
        listener: listener.into(),
        ..client.parse().unwrap()
    };
    match policy.route(&facts, uri) {
        Routed::NoRoute => Vec::new(),
        Routed::Try(targets) => targets
            .into_iter()
            .map(|target| (target.upstream.name.to_string(), target.open_uri))
            .collect(),
    }
}

#[test]
fn remote_sends_clients_by_what_their_certificates_say() {
    let policy = load("remote.yaml");
    let qemu = to("qemu", "qemu:///system");
    let lxc = to("lxc", "lxc:///system");
    let tls = |client: &str, uri: &str| described(&policy, "tls", client, uri);
    for dn in ["CN=eve,OU=Ops,O=Acme", "O=Acme,C=DE,OU=Ops,CN=eve"] {
        assert_eq!(tls(&format!("dn=\"{dn}\""), "qemu:///system"), qemu);
    }
    assert_eq!(tls("dn=\"CN=eve,OU=Ops,O=Globex\"", "qemu:///system"), []);
    let ci = "dn=\"CN=ci-1,O=Acme\"";
    assert_eq!(
        tls(&format!("{ci},address=198.51.100.7"), "lxc:///system"),
        lxc
    );
    assert_eq!(
        tls(&format!("{ci},address=203.0.113.7"), "lxc:///system"),
        []
    );
    assert_eq!(
        tls(&format!("{ci},address=198.51.100.7"), "qemu:///system"),
        []
    );
    let gateway = "x509.uri=spiffe://acme.example/gateway";
    assert_eq!(tls(gateway, "qemu:///system"), qemu);
    assert!(policy.may_forward(&gateway.parse().unwrap()));
    assert!(!policy.may_forward(&ci.parse().unwrap()));
    assert_eq!(
        described(&policy, "main", "user=alice", "qemu:///system"),
        qemu
    );
}

#[test]
fn sasl_sends_clients_by_their_names() {
    let policy = load("sasl.yaml");
    let qemu = to("qemu", "qemu:///system");
    let asks =
        |listener: &str, client: &str| described(&policy, listener, client, "qemu:///system");
    assert_eq!(asks("tls", "sasl=alice"), qemu);
    assert_eq!(asks("tls", "sasl=mallory"), []);
    assert_eq!(asks("tls", "dn=CN=alice"), []);
    assert_eq!(asks("tcp", "sasl=root/admin@EXAMPLE.COM"), qemu);
    assert_eq!(asks("tcp", "sasl=bob@EXAMPLE.COM,address=192.0.2.1"), qemu);
    assert_eq!(asks("tcp", "sasl=bob@EXAMPLE.COM,address=192.0.3.1"), []);
    let tcp = policy.listeners.last().unwrap();
    assert!(tcp.sasl.as_ref().unwrap().is_sealed() && !tcp.is_loopback_only());
}

#[test]
fn session_stays_within_the_runtime_directory() {
    let policy = load("session.yaml");
    for listener in &policy.listeners {
        let ListenAddress::Unix { path, .. } = &listener.address else {
            panic!("only UNIX sockets")
        };
        assert!(path.starts_with("/run/user/1000/libvirt"));
    }
    for upstream in &policy.upstreams {
        let place = upstream.addresses.first().unwrap().place(false);
        assert!(place.starts_with("/run/user/1000/libvirt"));
        let start = upstream.start.as_ref().unwrap();
        let daemon = format!("virt{}d", upstream.name);
        assert_eq!(**start, [daemon, "--timeout=120".to_owned()]);
    }
    let drivers = drivers(&policy, "user=alice", "qemu:///session");
    assert_eq!(drivers.len(), 5);
    assert!(drivers.iter().all(|(_, uri)| uri.ends_with(":///session")));
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
    for uri in [
        "esx://elsewhere/",
        "qemu+ssh://elsewhere/system",
        "qemu+ssh://elsewhere/x:///system",
    ] {
        assert_eq!(routed(&policy, "main", "user=root", uri), []);
    }
}

/// The example has tests of its own for what its rules say.
#[test]
fn front_doors_listens_wherever_clients_go_and_lets_the_daemons_through() {
    let policy = load("front-doors.yaml");
    let upstreams: Vec<&str> = policy.upstreams.iter().map(|it| &*it.name).collect();
    let secondary = Driver::ALL.map(Driver::scheme);
    assert_eq!(upstreams, [&["qemu"][..], &secondary].concat());
    // Each daemon is behind the socket that its clients know.
    let doors = policy.upstreams.iter().flat_map(|upstream| {
        let address = upstream.addresses.first().unwrap();
        let door = |readonly| address.place(readonly).replace("/driver/", "/");
        [door(false), door(true)].map(PathBuf::from)
    });
    let listeners = policy
        .listeners
        .iter()
        .map(|listener| match &listener.address {
            ListenAddress::Unix { path, .. } => path.clone(),
            ListenAddress::Tcp { .. } => panic!("only UNIX sockets"),
        });
    let legacy = ["/run/libvirt/libvirt-sock", "/run/libvirt/libvirt-sock-ro"].map(PathBuf::from);
    let expected = legacy.into_iter().chain(doors);
    assert_eq!(listeners.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for listener in &policy.listeners {
        assert_eq!(listener.readonly, listener.name.ends_with("ro"));
    }
    // Where the hypervisor's daemon would only ask at these same doors, there is nothing to fall
    // back to.
    let Routed::Try(targets) =
        policy.route(&client(&policy, "main", "user=root"), "qemu:///system")
    else {
        panic!("no route")
    };
    let drivers = targets[0].drivers.as_ref().unwrap();
    assert_eq!(drivers.iter().count(), Driver::ALL.len());
    assert!(drivers.iter().all(|(_, it)| !it.fallback));
    for upstream in &policy.upstreams {
        for readonly in [false, true] {
            let place = upstream.addresses.first().unwrap().place(readonly);
            assert!(place.starts_with("/run/libvirt/driver/virt"), "{place}");
        }
    }
    for (listener, uri, upstream) in [
        ("virtqemud", "qemu:///system", "qemu"),
        ("virtnetworkd", "network:///system", "network"),
        ("virtstoraged", "storage:///system", "storage"),
        ("virtnodedevd", "nodedev:///system", "nodedev"),
        ("virtnwfilterd", "nwfilter:///system", "nwfilter"),
        ("virtsecretd", "secret:///system", "secret"),
        ("virtinterfaced", "interface:///system", "interface"),
    ] {
        let facts = client(&policy, listener, "user=root,uid=0");
        let root = routed(&policy, listener, "user=root,uid=0", uri);
        assert_eq!(root, to(upstream, uri));
        assert!(policy.may_forward(&facts));
        let write = Permission::find(Class::Network, "write").unwrap();
        assert_eq!(policy.access(&facts).grants(write).count(), 1);
    }
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

/// The example has tests of its own; here, that they are real ones, and what they cannot say.
#[test]
fn tenants_touch_what_is_theirs_and_see_nothing_else() {
    let text = std::fs::read_to_string(directory().join("tenants.yaml")).unwrap();
    let policy = compile("tenants.yaml", &text);
    for (rule, without) in [
        (
            "deny: [domain:core_dump, domain:mem_read]",
            "deny: [domain:mem_read]",
        ),
        (
            "who: helpdesk, allow: [operator]",
            "who: helpdesk, allow: [owner]",
        ),
        (
            "storage_vol: { pool: images }",
            "storage_vol: { pool: \"*\" }",
        ),
        ("allow: [tenant]", "allow: [viewer]"),
        ("user: [telegraf, node-exporter]", "user: node-exporter"),
    ] {
        let changed = text.replacen(rule, without, 1);
        assert_ne!(changed, text, "{rule}");
        let report = policy::load("tenants.yaml", &changed, &env).unwrap_err();
        assert!(
            report
                .problems()
                .iter()
                .any(|problem| problem.code == "test"),
            "{without}: {}",
            report.one_line()
        );
    }
    let table = |who: &str| {
        let facts = ClientFacts {
            listener: "tls".into(),
            ..who.parse().unwrap()
        };
        policy.access(&facts)
    };
    let acme = table("x509.o=Acme,x509.cn=ci.acme.example");
    let write = Permission::find(Class::Domain, "write").unwrap();
    let unowned = Subject {
        owner: Owner::None,
        ..Subject::of(Class::Domain)
    };
    assert_eq!(acme.stamp(write, &unowned), Some("acme"));
    let has_guards = acme.grants(write).any(|rule| rule.guards.is_some());
    assert!(!acme.sees_all(Class::Domain) && has_guards);
    assert_eq!(acme.quotas().count(), 1);
    let gate = |procedure| acme.gate(Program::REMOTE, procedure);
    assert_eq!(gate(remote::NODE_GET_INFO), Gate::Relay);
    assert_eq!(gate(remote::CONNECT_LIST_ALL_DOMAINS), Gate::Judge);
    assert!(matches!(gate(remote::SECRET_GET_VALUE), Gate::Refuse(_)));
    let operators = table("x509.o=Example,x509.ou=Ops");
    assert!(
        Class::ALL
            .into_iter()
            .all(|class| operators.sees_all(class))
    );
    assert!(policy.audit().file.is_some());
}

/// The policy that the README shows, and what the commands below it there say.
#[test]
fn the_readme_shows_a_policy_that_does_what_it_says() {
    let readme = directory().join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = readme.split_once("```yaml\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let policy = compile("README.md", text);
    let upstream = |client: &ClientFacts| match policy.route(client, "qemu:///system") {
        Routed::Try(targets) => targets[0].upstream.name.to_string(),
        Routed::NoRoute => "none".to_owned(),
    };
    let student = client(&policy, "main", "user=ann,group=students");
    assert_eq!(upstream(&student), "lab");
    assert_eq!(upstream(&client(&policy, "main", "user=bob")), "qemu");
    let remote = |dn: &str| ClientFacts {
        listener: "tls".into(),
        ..format!("dn=\"{dn}\"").parse().unwrap()
    };
    assert_eq!(upstream(&remote("CN=ci,OU=Ops,O=Example")), "qemu");
    assert_eq!(upstream(&remote("CN=a.students.example,O=Example")), "lab");
    assert_eq!(upstream(&remote("CN=ci,O=Elsewhere")), "none");
    // Its own tests say what students may do; a file that fails them does not load.
    let spoiled = text.replace("web-1", "lab-8");
    assert_ne!(spoiled, text);
    assert!(policy::load("README.md", &spoiled, &|_| None).is_err());
}
