//! Who is who, and who is sent where: identities, routes, their explanation, and the store.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtproxyd::policy;
use virtproxyd::policy::facts::ClientFacts;
use virtproxyd::policy::model::{
    Address, Auth, ClientCert, Crl, Daemon, ExternalUser, ForwardIdentity, Keepalive,
    ListenAddress, Listener, Mechanism, Policy, Routed, Sasl, Tls, TlsVersion, Upstream,
};
use virtproxyd::policy::store::Store;

const HEAD: &str = "version: 1
listeners:
  main: { unix: /run/main }
  ro: { unix: /run/ro, readonly: true }
upstreams:
  one: { unix: /run/one, unix_ro: /run/one-ro }
  two: { unix: /run/two }
";

fn load(tail: &str) -> Policy {
    match policy::load("routes.yaml", &format!("{HEAD}{tail}"), &|_| None) {
        Ok(loaded) => loaded.policy,
        Err(report) => panic!("{}", report.render_human(false)),
    }
}

fn client(listener: &str, unix: &str) -> ClientFacts {
    ClientFacts {
        listener: listener.into(),
        readonly: listener == "ro",
        unix: Some(unix.parse().unwrap()),
        ..ClientFacts::default()
    }
}

/// "upstream uri@line" of each target, in order.
fn routed(policy: &Policy, client: &ClientFacts, uri: &str) -> Vec<String> {
    match policy.route(client, uri) {
        Routed::NoRoute => Vec::new(),
        Routed::Try(targets) => {
            assert!(!targets.is_empty());
            let show = |target: &policy::model::Target| {
                format!(
                    "{} {}@{}",
                    target.upstream.name, target.open_uri, target.line
                )
            };
            targets.iter().map(show).collect()
        }
    }
}

#[test]
fn defaults_are_libvirts() {
    let policy = load("routes: [{uri: x, upstream: one}, {uri: y, upstream: two}]\n");
    let seconds = std::time::Duration::from_secs;
    let keepalive = Keepalive {
        interval: Some(seconds(5)),
        count: 5,
    };
    assert_eq!(
        policy.daemon,
        Daemon {
            watch: false,
            drain: seconds(30),
            workers: None,
            max_clients: 5000,
            max_unauthenticated: 500
        }
    );
    let listener = |name: &str, path: &str, mode, readonly| Listener {
        name: name.into(),
        address: ListenAddress::Unix {
            path: path.into(),
            mode,
            group: None,
        },
        readonly,
        keepalive,
        auth: Auth::None,
        tls: None,
        sasl: None,
        proxy_protocol: Vec::new(),
        handshake_timeout: seconds(10),
        auth_timeout: seconds(60),
        unsafe_plain_tcp: false,
    };
    let listeners: Vec<&Listener> = policy
        .listeners
        .iter()
        .map(|listener| &**listener)
        .collect();
    assert_eq!(
        listeners,
        [
            &listener("main", "/run/main", 0o600, false),
            &listener("ro", "/run/ro", 0o666, true)
        ]
    );
    assert_eq!(
        *policy.upstreams.last().map(Arc::clone).unwrap(),
        Upstream {
            name: "two".into(),
            addresses: vec![Address::Unix {
                path: "/run/two".into(),
                readonly: None,
            }],
            connect_timeout: seconds(5),
            keepalive,
            identity: ForwardIdentity::Require,
            reconnect: false,
            sasl: None,
            start: None,
        }
    );
}

#[test]
fn what_the_file_says_is_what_is_compiled() {
    let text = include_str!("fixtures/policy/good/full.yaml");
    let env = |_: &str| Some("/run/user/7".to_owned());
    let policy = policy::load("full.yaml", text, &env).unwrap().policy;
    let seconds = std::time::Duration::from_secs;
    let millis = std::time::Duration::from_millis;
    assert_eq!(
        policy.daemon,
        Daemon {
            watch: false,
            drain: seconds(0),
            workers: Some(2),
            max_clients: 5000,
            max_unauthenticated: 7
        }
    );
    let ListenAddress::Unix { path, mode, group } = &policy.listeners.first().unwrap().address
    else {
        panic!("a UNIX socket")
    };
    assert_eq!(
        (path.to_str().unwrap(), *mode),
        ("/run/libvirt/libvirt-sock", 0o660)
    );
    assert_eq!(group.as_deref(), Some("libvirt"));
    let ro = &policy.listeners[1];
    let ListenAddress::Unix { path, mode, group } = &ro.address else {
        panic!("a UNIX socket")
    };
    assert_eq!(
        (path.to_str().unwrap(), *mode),
        ("/run/user/7/libvirt-sock-ro", 0o666)
    );
    let tls = &policy.listeners[4];
    assert_eq!(
        tls.tls,
        Some(Tls {
            cert: "/etc/tls/cert.pem".into(),
            key: "/etc/tls/key.pem".into(),
            ca: "/etc/tls/ca.pem".into(),
            crl: Crl::File("/etc/tls/crl.pem".into()),
            client_cert: ClientCert::Required,
            min_version: TlsVersion::Tls13,
        })
    );
    assert_eq!(
        tls.sasl,
        Some(Sasl {
            mechanisms: vec![Mechanism::External, Mechanism::Gssapi],
            passwords: None,
            external_user: ExternalUser::Dn,
            min_ssf: 128,
        })
    );
    assert_eq!(
        (tls.proxy_protocol.len(), tls.handshake_timeout),
        (2, seconds(5))
    );
    assert_eq!(
        policy.listeners[5].tls,
        Some(Tls {
            cert: "/etc/pki/libvirt/servercert.pem".into(),
            key: "/etc/pki/libvirt/private/serverkey.pem".into(),
            ca: "/etc/pki/CA/cacert.pem".into(),
            crl: Crl::IfPresent("/etc/pki/CA/cacrl.pem".into()),
            client_cert: ClientCert::Required,
            min_version: TlsVersion::Tls12,
        })
    );
    let timeouts = policy
        .listeners
        .iter()
        .map(|listener| listener.auth_timeout);
    let timeouts: Vec<u64> = timeouts.map(|timeout| timeout.as_secs()).collect();
    assert_eq!(timeouts, [60, 60, 30, 300, 60, 60, 60]);
    assert_eq!(
        (group, ro.keepalive),
        (
            &None,
            Keepalive {
                interval: None,
                count: 5
            }
        )
    );
    let upstreams: Vec<_> = policy
        .upstreams
        .iter()
        .take(3)
        .map(|upstream| (&*upstream.name, upstream.connect_timeout, upstream.identity))
        .collect();
    assert_eq!(
        upstreams,
        [
            ("qemu", millis(500), ForwardIdentity::Try),
            ("lxc", seconds(120), ForwardIdentity::Never),
            ("hv2", seconds(3600), ForwardIdentity::Require),
        ]
    );
    let qemu = policy.upstreams.first().unwrap();
    assert_eq!(
        qemu.keepalive,
        Keepalive {
            interval: None,
            count: 0
        }
    );
    let place = qemu.addresses.first().unwrap().place(true);
    assert_eq!(place, "/run/libvirt/virtqemud-sock-ro");
}

#[test]
fn identities_match_what_is_proven() {
    let root = "user=root,group=root,uid=0,gid=0,pid=1";
    let alice = "user=alice,group=users,group=libvirt,uid=1000,gid=100,gid=64055,pid=42,selinux=u:r:virt_t:s0:c1,c2";
    let nameless = "uid=5";
    for (rule, listener, unix, expected) in [
        ("unix: {user: root}", "main", root, true),
        ("unix: {user: root}", "main", alice, false),
        ("unix: {user: [root, alice]}", "main", alice, true),
        ("unix: {user: \"al*\"}", "main", alice, true),
        ("unix: {user: \"regex:al.*|bob\"}", "main", alice, true),
        ("unix: {user: \"regex:li\"}", "main", alice, false),
        // A name that the host does not know matches nothing, not even everything.
        ("unix: {user: \"*\"}", "main", nameless, false),
        ("unix: {group: \"*\"}", "main", nameless, false),
        ("unix: {selinux: \"*\"}", "main", nameless, false),
        ("unix: {pid: \"*\"}", "main", nameless, false),
        ("unix: {pid: 0}", "main", nameless, false),
        // Primary and supplementary groups.
        ("unix: {group: users}", "main", alice, true),
        ("unix: {group: libvirt}", "main", alice, true),
        ("unix: {group: wheel}", "main", alice, false),
        ("unix: {gid: 100}", "main", alice, true),
        ("unix: {gid: [1, 64055]}", "main", alice, true),
        ("unix: {gid: 64056}", "main", alice, false),
        ("unix: {uid: 0}", "main", root, true),
        ("unix: {uid: 0}", "main", "user=alice", false),
        ("unix: {uid: \"1000\"}", "main", alice, true),
        ("unix: {uid: \"10??\"}", "main", alice, true),
        ("unix: {uid: \"10?\"}", "main", alice, false),
        ("unix: {pid: 42}", "main", alice, true),
        ("unix: {selinux: \"*:virt_t:*\"}", "main", alice, true),
        // All keys of one leaf.
        ("unix: {user: alice, group: libvirt}", "main", alice, true),
        ("unix: {user: alice, group: wheel}", "main", alice, false),
        ("listener: main", "main", alice, true),
        ("listener: [ro, main]", "main", alice, true),
        ("listener: \"r*\"", "main", alice, false),
        ("not: {unix: {user: root}}", "main", alice, true),
        ("not: {unix: {user: root}}", "main", root, false),
        (
            "any: [{unix: {user: root}}, {listener: ro}]",
            "ro",
            alice,
            true,
        ),
        (
            "any: [{unix: {user: root}}, {listener: ro}]",
            "main",
            alice,
            false,
        ),
        (
            "all: [{unix: {user: alice}}, {listener: ro}]",
            "ro",
            alice,
            true,
        ),
        (
            "all: [{unix: {user: alice}}, {listener: ro}]",
            "main",
            alice,
            false,
        ),
        (
            "all: [{not: {any: [{unix: {user: bob}}]}}, {unix: {gid: 100}}]",
            "main",
            alice,
            true,
        ),
        // `later` comes after in the file.
        ("identity: later", "main", alice, true),
        ("not: {identity: later}", "main", alice, false),
    ] {
        let policy = load(&format!(
            "identities:\n  it: {{ {rule} }}\n  later: {{ unix: {{ user: alice }} }}\n\
             routes: [{{uri: x, clients: [it, later], upstream: one}}]\n"
        ));
        let set = policy.identities_of(&client(listener, unix));
        assert_eq!(set.contains(0), expected, "{rule} by {listener} of {unix}");
        assert_eq!(set.iter().any(|index| index == 0), expected);
    }
}

#[test]
fn a_client_without_credentials_has_no_unix_identity() {
    let policy = load(
        "identities:\n  u: { unix: { uid: \"*\" } }\n  l: { listener: main }\n\
         routes: [{uri: x, clients: [u, l], upstream: one}]\n",
    );
    let facts = ClientFacts {
        listener: "main".into(),
        readonly: false,
        unix: None,
        ..ClientFacts::default()
    };
    assert_eq!(policy.identities_of(&facts).iter().collect::<Vec<_>>(), [1]);
}

#[test]
fn sets_hold_more_identities_than_a_word_has_bits() {
    let mut text = String::from("identities:\n");
    for index in 0..130 {
        text.push_str(&format!("  i{index}: {{ unix: {{ uid: {index} }} }}\n"));
    }
    text.push_str("routes: [{uri: x, clients: i129, upstream: one}]\n");
    let policy = load(&text);
    for uid in [0, 63, 64, 127, 128, 129] {
        let set = policy.identities_of(&client("main", &format!("uid={uid}")));
        assert_eq!(set.iter().collect::<Vec<_>>(), [uid]);
        assert!(!set.contains(uid + 1) && !set.contains(1000));
    }
}

const ROUTES: &str = "identities:
  root: { unix: { user: root } }
  alice: { unix: { user: alice } }
routes:
  - { uri: \"qemu:///system?host=hv2\", clients: root, upstream: two }
  - { uri: \"qemu:///system?host=hv3\", upstream: two, open: \"qemu:///elsewhere\" }
  - { uri: \"qemu:///system\", clients: alice, upstream: two }
  - { uri: \"qemu:///system\", listeners: main, upstream: one }
  - { uri: [\"lxc:///\", \"lxc:///system?*\"], listeners: [ro], upstream: one }
  - { uri: \"\", clients: alice, probe: [\"xen:///\", \"qemu:///system\", \"lxc:///\"] }
  - { uri: \"\", upstream: one }
  - { uri: \"xen:///\", clients: root, upstream: one }
";

#[test]
fn the_first_route_that_matches_wins() {
    let policy = load(ROUTES);
    for (listener, unix, uri, expected) in [
        (
            "main",
            "user=root",
            "qemu:///system?host=hv2",
            &["two qemu:///system@12"][..],
        ),
        // A client that asks for another host never lands on the local daemon.
        ("main", "user=bob", "qemu:///system?host=hv2", &[]),
        (
            "main",
            "user=bob",
            "qemu:///system?host=hv3",
            &["two qemu:///elsewhere@13"],
        ),
        ("main", "user=bob", "qemu:///system?host=hv4", &[]),
        (
            "main",
            "user=alice",
            "qemu:///system",
            &["two qemu:///system@14"],
        ),
        (
            "main",
            "user=bob",
            "qemu:///system",
            &["one qemu:///system@15"],
        ),
        ("ro", "user=bob", "qemu:///system", &[]),
        (
            "ro",
            "user=bob",
            "lxc:///system?a=1&b=2",
            &["one lxc:///system?a=1&b=2@16"],
        ),
        ("main", "user=bob", "lxc:///", &[]),
        ("elsewhere", "user=bob", "qemu:///system", &[]),
        // Probing: alice has no route for xen, and lxc only by `ro`.
        ("main", "user=alice", "", &["two qemu:///system@14"]),
        (
            "ro",
            "user=alice",
            "",
            &["two qemu:///system@14", "one lxc:///@16"],
        ),
        ("main", "user=bob", "", &["one @18"]),
        ("main", "user=root", "xen:///", &["one xen:///@19"]),
        ("main", "user=bob", "xen:///", &[]),
        ("main", "user=root", "nothing:///", &[]),
        ("main", "user=root", "qemu:///system\0", &[]),
        ("main", "user=root", "qemu:///system?host=hv2&host=hv2", &[]),
    ] {
        let client = client(listener, unix);
        assert_eq!(
            routed(&policy, &client, uri),
            expected,
            "{unix} by {listener} to {uri}"
        );
    }
}

#[test]
fn a_huge_uri_has_no_route() {
    let policy = load("routes: [{uri: \"*?*\", upstream: one}]\n");
    let facts = client("main", "uid=0");
    assert!(matches!(
        policy.route(&facts, &"a".repeat(4096)),
        Routed::Try(_)
    ));
    assert_eq!(policy.route(&facts, &"a".repeat(4 << 20)), Routed::NoRoute);
}

/// What is explained is what is done.
#[test]
fn explanations_agree_with_decisions() {
    use policy::explain::{Outcome, Step};
    fn targets(step: &Step) -> Vec<String> {
        match &step.outcome {
            Outcome::NoRoute => Vec::new(),
            Outcome::Open(opened) => {
                vec![format!(
                    "{} {}@{}",
                    opened.upstream, opened.uri, opened.line
                )]
            }
            Outcome::Probe(steps) => steps.iter().flat_map(targets).collect(),
        }
    }
    let policy = load(ROUTES);
    for listener in ["main", "ro", "elsewhere"] {
        for unix in ["user=root", "user=alice", "user=bob", ""] {
            let client = client(listener, unix);
            for uri in [
                "",
                "qemu:///system",
                "qemu:///system?host=hv2",
                "lxc:///",
                "xen:///",
                "\n",
            ] {
                let explained = policy.explain(&client, uri);
                assert_eq!(targets(&explained.asked), routed(&policy, &client, uri));
            }
        }
    }
}

#[test]
fn an_explanation_reads_well() {
    let policy = load(ROUTES);
    let text = policy
        .explain(&client("ro", "user=alice,uid=1000"), "")
        .to_string();
    assert_eq!(
        text,
        "client: by listener `ro`, read-only, user `alice`
identities: `alice`
no URI:
  line 12, `qemu:///system?host=hv2`: the URI does not match
  line 13, `qemu:///system?host=hv3`: the URI does not match
  line 14, `qemu:///system`: the URI does not match
  line 15, `qemu:///system`: the URI does not match
  line 16, `lxc:///`, `lxc:///system?*`: the URI does not match
  line 17, ``: matches
  => the first of these whose daemon is alive
    URI `xen:///`:
      line 12, `qemu:///system?host=hv2`: the URI does not match
      line 13, `qemu:///system?host=hv3`: the URI does not match
      line 14, `qemu:///system`: the URI does not match
      line 15, `qemu:///system`: the URI does not match
      line 16, `lxc:///`, `lxc:///system?*`: the URI does not match
      line 17, ``: the URI does not match
      line 18, ``: the URI does not match
      line 19, `xen:///`: the client is not `root`
      => no route
    URI `qemu:///system`:
      line 12, `qemu:///system?host=hv2`: the URI lacks the parameter `host`
      line 13, `qemu:///system?host=hv3`: the URI lacks the parameter `host`
      line 14, `qemu:///system`: matches
      => upstream `two` at /run/two, read-only, opening `qemu:///system`
    URI `lxc:///`:
      line 12, `qemu:///system?host=hv2`: the URI does not match
      line 13, `qemu:///system?host=hv3`: the URI does not match
      line 14, `qemu:///system`: the URI does not match
      line 15, `qemu:///system`: the URI does not match
      line 16, `lxc:///`, `lxc:///system?*`: matches
      => upstream `one` at /run/one-ro, read-only, opening `lxc:///`
"
    );
    let text = policy
        .explain(&client("main", "user=bob"), "qemu:///system?host=hv4")
        .to_string();
    assert_eq!(
        text,
        "client: by listener `main`, user `bob`
identities: none
URI `qemu:///system?host=hv4`:
  line 12, `qemu:///system?host=hv2`: the parameter `host` does not match
  line 13, `qemu:///system?host=hv3`: the parameter `host` does not match
  line 14, `qemu:///system`: the URI has the parameter `host`, which the route does not name
  line 15, `qemu:///system`: the URI has the parameter `host`, which the route does not name
  line 16, `lxc:///`, `lxc:///system?*`: the URI does not match
  line 17, ``: the URI does not match
  line 18, ``: the URI does not match
  line 19, `xen:///`: the URI does not match
  => no route
"
    );
    let text = policy
        .explain(&client("main", ""), "a:///?x=1&x=2")
        .to_string();
    assert!(
        text.ends_with("  => no route: its query names a parameter twice\n"),
        "{text}"
    );
}

#[test]
fn an_explanation_is_data_too() {
    let policy = load(ROUTES);
    let explained = policy.explain(&client("main", "user=bob,uid=7"), "qemu:///system");
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json.pointer("/client/unix/uid"), Some(&7.into()));
    assert_eq!(json.pointer("/asked/uri"), Some(&"qemu:///system".into()));
    assert_eq!(json.pointer("/asked/routes/0/line"), Some(&12.into()));
    assert_eq!(
        json.pointer("/asked/routes/2/mismatch"),
        Some(&"the client is not `alice`".into())
    );
    assert_eq!(
        json.pointer("/asked/routes/3/mismatch"),
        Some(&serde_json::Value::Null)
    );
    let opened = serde_json::json!({
        "line": 15, "upstream": "one", "at": ["/run/one"], "readonly": false, "uri": "qemu:///system",
    });
    assert_eq!(json.pointer("/asked/outcome/open"), Some(&opened));
}

#[test]
fn a_swap_puts_the_next_generation_in_force() {
    let route = |uri: &str| load(&format!("routes: [{{uri: {uri}, upstream: one}}]\n"));
    let store = Store::new("a.yaml", route("x"));
    let old = store.load();
    assert_eq!(
        (old.number, old.file.as_str(), store.generation()),
        (1, "a.yaml", 1)
    );
    assert_eq!(store.swap("b.yaml", route("y")), 2);
    assert_eq!((store.load().number, store.generation()), (2, 2));
    assert_eq!(store.peek().file, "b.yaml");
    // Who holds the old one decides by the old one, whole.
    let facts = client("main", "uid=0");
    assert!(matches!(old.policy.route(&facts, "x"), Routed::Try(_)));
    assert_eq!(store.load().policy.route(&facts, "x"), Routed::NoRoute);
}

#[test]
fn readers_never_see_a_generation_older_than_its_number() {
    let route = || load("routes: [{uri: x, upstream: one}]\n");
    let store = Store::new("a.yaml", route());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let number = store.generation();
                    let held = store.load().number;
                    assert!(held >= number && number >= last);
                    last = number;
                }
            });
        }
        let writers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    (0..50)
                        .map(|_| store.swap("a.yaml", route()))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        let mut numbers: Vec<u64> = written.into_iter().flat_map(Result::unwrap).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (2..=101).collect::<Vec<u64>>());
    });
}

/// Whether a client with these facts has the identity `it` that is defined as `rule`.
fn is(rule: &str, client: &str) -> bool {
    let tail = format!(
        "  three: {{ unix: /run/three }}\nidentities:\n  it: {rule}\n\
         routes: [{{uri: x, clients: it, upstream: one}}, {{uri: x, upstream: two}}, \
         {{uri: y, upstream: three}}]\n"
    );
    let head = HEAD.replace(
        "upstreams:",
        "  tls: { tcp: '[::]:16514', tls: {}, auth: sasl, sasl: { mechanisms: [GSSAPI] } }\nupstreams:",
    );
    let loaded = policy::load("routes.yaml", &format!("{head}{tail}"), &|_| None);
    let policy = loaded
        .unwrap_or_else(|report| panic!("{}", report.render_human(false)))
        .policy;
    let facts = ClientFacts {
        listener: "tls".into(),
        ..client.parse().unwrap()
    };
    policy.identities_of(&facts).contains(0)
}

#[test]
fn certificates_match_by_their_parts() {
    let client = concat!(
        r#"dn="CN=ci,OU=Ops,OU=Build,O=Acme\, Inc,C=DE,EMAIL=ci@acme.example","#,
        "x509.dns=CI.acme.example,x509.ip=2001:db8::1,x509.uri=spiffe://acme.example/ci,",
        "x509.san_email=root@acme.example,x509.fingerprint=",
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff,",
        r#"x509.issuer="CN=Acme CA",x509.serial=0aff"#
    );
    for (rule, expected) in [
        ("{ x509: { cn: ci } }", true),
        ("{ x509: { cn: CI } }", false),
        ("{ x509: { o: 'Acme, Inc', c: DE, cn: 'c?' } }", true),
        ("{ x509: { o: 'Acme, Inc', c: FR, cn: 'c?' } }", false),
        ("{ x509: { ou: Build } }", true),
        ("{ x509: { ou: [Sales, Ops] } }", true),
        ("{ x509: { ou: Sales } }", false),
        ("{ x509: { l: '*' } }", false),
        ("{ x509: { email: '*@acme.example' } }", true),
        ("{ x509: { san_email: '*@acme.example' } }", true),
        ("{ x509: { san_email: 'ci@acme.example' } }", false),
        ("{ x509: { dns: '*.ACME.example' } }", true),
        ("{ x509: { dns: 'regex:ci[.].*' } }", true),
        ("{ x509: { ip: '2001:db8::/32' } }", true),
        ("{ x509: { ip: 192.0.2.0/24 } }", false),
        ("{ x509: { uri: 'spiffe://acme.example/*' } }", true),
        (r"{ x509: { dn: 'CN=ci,*,O=Acme\, Inc,*' } }", true),
        ("{ x509: { dn: 'CN=ci' } }", false),
        ("{ x509: { issuer: 'CN=Acme CA' } }", true),
        ("{ x509: { serial: '00:0A:FF' } }", true),
        ("{ x509: { serial: 'aff' } }", true),
        ("{ x509: { serial: 'ff' } }", false),
        (
            "{ x509: { fingerprint: '00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF' } }",
            true,
        ),
        (
            "{ x509: { fingerprint: '00112233445566778899aabbccddeeff00112233445566778899aabbccddee00' } }",
            false,
        ),
        ("{ unix: { uid: 0 } }", false),
        ("{ not: { unix: { uid: 0 } } }", true),
        ("{ sasl: { user: '*' } }", false),
        ("{ address: '::/0' }", false),
    ] {
        assert_eq!(is(rule, client), expected, "{rule}");
    }
    assert!(
        !is("{ x509: { dn: '*' } }", "x509.cn=ci"),
        "no name is known"
    );
    assert!(
        !is("{ x509: { cn: '*' } }", "user=root,uid=0"),
        "no certificate"
    );
}

#[test]
fn sasl_users_and_addresses_match() {
    let client = "sasl=alice@EXAMPLE.COM,sasl.mechanism=GSSAPI,address=192.0.2.7";
    for (rule, expected) in [
        ("{ sasl: { user: '*@EXAMPLE.COM' } }", true),
        ("{ sasl: { user: alice } }", false),
        ("{ sasl: { user: 'alice@*', mechanism: GSSAPI } }", true),
        ("{ sasl: { user: 'alice@*', mechanism: PLAIN } }", false),
        ("{ sasl: { mechanism: [PLAIN, GSSAPI] } }", true),
        ("{ address: [10.0.0.0/8, 192.0.2.0/29] }", true),
        ("{ address: 192.0.2.8 }", false),
        ("{ address: '::/0' }", false),
        (
            "{ all: [{ address: 192.0.2.7 }, { sasl: { user: 'a*' } }] }",
            true,
        ),
        ("{ x509: { cn: '*' } }", false),
    ] {
        assert_eq!(is(rule, client), expected, "{rule}");
    }
}

#[test]
fn only_trusted_clients_may_forward() {
    let text = "identities: { gw: { unix: { user: gw } }, web: { identity: gw } }
trusted_forwarders: web
routes: [{uri: x, upstream: one}, {uri: y, upstream: two}]
";
    let policy = load(text);
    let facts = |client: &str| client.parse::<ClientFacts>().unwrap();
    assert!(policy.may_forward(&facts("user=gw")));
    assert!(!policy.may_forward(&facts("user=root,uid=0")));
    assert!(!policy.may_forward(&ClientFacts::default()));
    let nobody = load("routes: [{uri: x, upstream: one}, {uri: y, upstream: two}]\n");
    assert!(!nobody.may_forward(&facts("user=root,uid=0")));
}

#[test]
fn a_client_whose_groups_cannot_be_known_gets_no_route_if_an_identity_asks_for_them() {
    let table = "routes: [{uri: x, clients: [some], upstream: one}, {uri: x, upstream: two}]\n";
    let gone = |policy: &Policy| {
        let mut client = client("main", "user=ann");
        client.unix.as_mut().unwrap().unproven = true;
        routed(policy, &client, "x")
    };
    // Neither past the route meant for its group, nor through a `not`.
    for rule in [
        "{unix: {group: students}}",
        "{not: {unix: {group: students}}}",
        "{any: [{unix: {gid: 7}}, {unix: {user: ann}}]}",
        "{unix: {selinux: \"*\"}}",
        "{unix: {pid: 7}}",
    ] {
        let policy = load(&format!("identities: {{some: {rule}}}\n{table}"));
        assert_eq!(gone(&policy), [] as [&str; 0], "{rule}");
    }
    let policy = load(&format!(
        "identities: {{some: {{unix: {{user: bob}}}}}}\n{table}"
    ));
    assert_eq!(gone(&policy), ["two x@9"]);
}
