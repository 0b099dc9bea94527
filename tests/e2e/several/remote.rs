//! Daemons that are reached by TLS, by TCP and through programs: whom the proxy trusts, what it shows
//! and proves, and what clients and the log hear where that is not enough.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::{ADDRESS, at, by_tls, certificates, helper, tcp_conf};
use crate::support::account::Account;
use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::free_port;
use crate::support::policy::{CONNECT, listeners};
use crate::support::process::{Output, find_program};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::rpc_client::RpcClient;
use crate::support::scene::assert_served;
use crate::support::tool::virsh;
use crate::support::wait::eventually;
use crate::support::wire::{Frame, RpcError, kind, procedure, status};
use crate::support::workdir::{WorkDir, give, make_dir};
use crate::support::xdr::{Reader, Writer};

/// The proxy before upstreams that clients choose by `?to=NAME`.
pub(super) struct Choice {
    pub(super) proxy: Proxy,
}

impl Choice {
    pub(super) fn of(upstreams: &[(&str, String)]) -> Self {
        Self::with(upstreams, |builder| builder)
    }

    fn with(upstreams: &[(&str, String)], how: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Self {
        let builder = ProxyBuilder::new(|dir| {
            let mut policy = listeners(dir, "") + "upstreams:\n";
            for (name, upstream) in upstreams {
                policy += &format!("  {name}: {{ {upstream}, {CONNECT} }}\n");
            }
            policy += "routes:\n";
            for (name, _) in upstreams {
                policy += &format!("  - {{ uri: \"*:///*?to={name}\", upstream: {name} }}\n");
            }
            policy
        });
        Self {
            proxy: how(builder).start(),
        }
    }

    fn list(&self, name: &str) -> Output {
        let uri = format!("test:///default?to={name}");
        virsh(&self.proxy.uri(&uri, "sock"), &["list", "--name"]).run()
    }

    #[track_caller]
    pub(super) fn serves(&self, name: &str) {
        assert_eq!(self.list(name).ok().trim(), "test", "{name}");
    }

    /// The client and the log are told why not, in these words.
    #[track_caller]
    pub(super) fn refuses(&self, name: &str, why: &str) {
        let error = self.list(name).failed();
        let expected = format!("upstream '{name}': ");
        assert!(
            error.contains(&expected) && error.contains(why),
            "{why:?} of {name}: {error}"
        );
        let log = self.proxy.process().stderr();
        let is_told = |line: &String| {
            line.contains("WARN") && line.contains(why) && line.contains(&format!("\"{name}\""))
        };
        eventually(&format!("the log says {why:?} of {name}"), || {
            log.lines().iter().any(is_told)
        });
    }
}

#[test]
fn certificates_that_do_not_do_are_told_of_in_clear_words() {
    let dir = WorkDir::new();
    let pki = certificates(&dir);
    pki.ca("others", "Other CA");
    pki.client("stranger", "others", "");
    let past =
        "activation_date = \"2019-01-01 00:00:00\"\nexpiration_date = \"2020-01-01 00:00:00\"\n";
    pki.daemon("expired", ADDRESS, past);
    pki.revoke(&["daemon"]);
    let (port, expired_port) = (free_port(), free_port());
    let conf = pki.libvirtd_conf("daemon", ADDRESS, port)
        + "tls_allowed_dn_list = [\"O=Acme,CN=gateway\"]\n";
    pki.client("not-on-the-list", "ca", "");
    let _daemon = Libvirtd::listening(&conf);
    let conf =
        pki.libvirtd_conf("expired", ADDRESS, expired_port) + "tls_no_sanity_certificate = 1\n";
    let _expired = Libvirtd::listening(&conf);

    let old_port = free_port();
    let conf = pki.libvirtd_conf("daemon", ADDRESS, old_port)
        + "tls_priority = \"NORMAL:-VERS-ALL:+VERS-TLS1.2\"\n";
    let _old = Libvirtd::listening(&conf);

    let to = |keys: String| format!("tls: \"{ADDRESS}:{port}\", {keys}");
    let to_old = |keys: String| format!("tls: \"{ADDRESS}:{old_port}\", {keys}");
    let good = pki.upstream("ca", "gateway");
    let ca = pki.path("ca.pem");
    let scene = Choice::of(&[
        ("good", to(good.clone())),
        ("new", to(format!("{good}, min_version: \"1.3\""))),
        (
            "by-name",
            format!("tls: \"localhost:{port}\", {good}, server_name: {ADDRESS}"),
        ),
        ("old", to_old(good.clone())),
        ("too-old", to_old(format!("{good}, min_version: \"1.3\""))),
        ("old-stranger", to_old(pki.upstream("ca", "stranger"))),
        ("stranger", to(pki.upstream("ca", "stranger"))),
        ("unlisted", to(pki.upstream("ca", "not-on-the-list"))),
        ("nobody", to(format!("ca: {}, cert: none", ca.display()))),
        ("name", to(format!("{good}, server_name: hv.example.com"))),
        ("localhost", format!("tls: \"localhost:{port}\", {good}")),
        ("distrusted", to(pki.upstream("others", "gateway"))),
        (
            "revoked",
            to(format!("{good}, crl: {}", pki.path("crl.pem").display())),
        ),
        (
            "expired",
            format!("tls: \"{ADDRESS}:{expired_port}\", {good}"),
        ),
    ]);
    for name in ["good", "new", "by-name", "old"] {
        scene.serves(name);
    }
    for (name, why) in [
        ("stranger", "the daemon refused our certificate"),
        ("old-stranger", "the daemon refused our certificate"),
        ("too-old", "TLS: peer is incompatible"),
        ("unlisted", "the daemon refused our certificate"),
        ("nobody", "the daemon refused us, who show no certificate"),
        ("name", "hv.example.com"),
        ("localhost", "localhost"),
        ("distrusted", "UnknownIssuer"),
        ("revoked", "evoked"),
        ("expired", "expired"),
    ] {
        scene.refuses(name, why);
    }
    scene.serves("good");
}

/// What makes a daemon ask for a password, which alice has; and its environment.
fn passwords(dir: &Path) -> String {
    let account = Account::unprivileged();
    let sasl = dir.join("sasl");
    make_dir(&sasl, &account);
    let database = sasl.join("passwords.db");
    let mut command = Command::new(find_program("saslpasswd2"));
    command
        .args(["-p", "-c", "-a", "libvirt", "-f"])
        .arg(&database)
        .arg("alice");
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"pencil").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    give(&database, &account);
    let text = format!(
        "mech_list: SCRAM-SHA-256 SCRAM-SHA-512 PLAIN\nsasldb_path: {}\n",
        database.display()
    );
    fs::write(sasl.join("libvirt.conf"), text).unwrap();
    sasl.display().to_string()
}

#[test]
fn a_password_is_proven_to_a_daemon_that_asks_for_it() {
    let dir = WorkDir::new();
    let pki = certificates(&dir);
    let sasl = passwords(dir.path());
    let port = free_port();
    let conf = pki.libvirtd_conf("daemon", ADDRESS, port)
        + "auth_tls = \"sasl\"\nauth_unix_rw = \"sasl\"\n";
    let _daemon = Libvirtd::listening_with(&conf, &[("SASL_CONF_PATH", &sasl)], None);
    for (name, password) in [("right", "pencil"), ("wrong", "crayon")] {
        fs::write(dir.join(name), format!("{password}\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let to = |user: &str, password: &str, more: &str| {
        format!(
            "tls: \"{ADDRESS}:{port}\", {}, sasl: {{ user: {user}, password_file: {}{more} }}",
            pki.upstream("ca", "gateway"),
            dir.join(password).display()
        )
    };
    let scene = Choice::of(&[
        ("any", to("alice", "right", "")),
        (
            "short",
            to("alice", "right", ", mechanisms: [SCRAM-SHA-256]"),
        ),
        ("plain", to("alice", "right", ", mechanisms: [PLAIN]")),
        ("wrong", to("alice", "wrong", "")),
        ("unknown", to("bob", "right", "")),
        (
            "silent",
            format!(
                "tls: \"{ADDRESS}:{port}\", {}",
                pki.upstream("ca", "gateway")
            ),
        ),
    ]);
    for name in ["any", "short", "plain"] {
        scene.serves(name);
    }
    scene.refuses("wrong", "authentication failed");
    scene.refuses("unknown", "authentication failed");
    scene.refuses(
        "silent",
        "the daemon asks for SASL, and the policy names no `sasl` for it",
    );
    scene.serves("any");
    // A new password is read when it is next asked for.
    fs::write(dir.join("wrong"), "pencil\n").unwrap();
    scene.serves("wrong");
}

#[test]
fn plain_tcp_serves_on_this_host() {
    let port = free_port();
    let _daemon = Libvirtd::listening(&tcp_conf(ADDRESS, port, "none"));
    let nobody = free_port();
    let scene = Choice::of(&[
        ("by-address", format!("tcp: \"{ADDRESS}:{port}\"")),
        ("by-name", format!("tcp: \"localhost:{port}\"")),
        ("nobody", format!("tcp: \"{ADDRESS}:{nobody}\"")),
    ]);
    scene.serves("by-address");
    scene.serves("by-name");
    scene.refuses("nobody", "Connection refused");
}

#[test]
fn daemons_at_ipv6_addresses_serve_by_tcp_and_tls() {
    let dir = WorkDir::new();
    let pki = certificates(&dir);
    pki.daemon("six", "::1", "");
    let (tcp, tls) = (free_port(), free_port());
    let _by_tcp = Libvirtd::listening(&tcp_conf("::1", tcp, "none"));
    let _by_tls = Libvirtd::listening(&pki.libvirtd_conf("six", "::1", tls));
    let keys = pki.upstream("ca", "gateway");
    let scene = Choice::of(&[
        ("tcp", format!("tcp: \"[::1]:{tcp}\"")),
        ("tls", format!("tls: \"[::1]:{tls}\", {keys}")),
        (
            "other",
            format!("tls: \"[::1]:{tls}\", {keys}, server_name: \"::2\""),
        ),
    ]);
    scene.serves("tcp");
    scene.serves("tls");
    scene.refuses("other", "::2");
}

/// In a view of the files that has names of its own.
#[test]
fn a_name_is_looked_up_for_each_connection_and_its_addresses_are_tried_in_turn() {
    const DEAD: &str = "127.0.0.23";
    let port = free_port();
    let addresses = ["127.0.0.21", "127.0.0.22"];
    let daemons = addresses.map(|address| {
        let daemon = Libvirtd::listening(&tcp_conf(address, port, "none"));
        daemon.dir_pool(address);
        daemon
    });
    let dir = WorkDir::new();
    let names = dir.join("hosts");
    let has = |addresses: &[&str]| {
        let lines = addresses.iter().map(|it| format!("{it} hv.test\n"));
        fs::write(&names, lines.collect::<String>()).unwrap();
    };
    has(&[]);
    let upstream = format!("tcp: \"hv.test:{port}\", unsafe_plain_tcp: true");
    let scene = Choice::with(&[("hv", upstream)], |builder| {
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let names = names.to_str().unwrap();
        let proxy = env!("CARGO_BIN_EXE_virtproxyd");
        builder.program(
            find_program("unshare"),
            &["--mount", "sh", "-c", script, names, proxy],
        )
    });
    let uri = scene.proxy.uri("qemu:///session?to=hv", "sock");
    let pools = || virsh(&uri, &["pool-list", "--name"]).run();
    for address in addresses {
        has(&[address]);
        assert_eq!(pools().ok().trim(), address);
    }
    has(&[addresses[0]]);
    for order in [[DEAD, addresses[1]], [addresses[1], DEAD]] {
        has(&order);
        assert_eq!(pools().ok().trim(), addresses[1]);
    }
    drop(daemons);
    let refused = pools().failed();
    assert!(refused.contains("Connection refused"), "{refused}");
}

/// A daemon behind a program that answers `CONNECT_SET_IDENTITY` by libvirt's own refusal.
#[test]
fn a_remote_that_takes_no_identity_is_used_as_the_policy_says() {
    let daemon = FakeUpstream::scripted(|stream, frame| {
        if frame.procedure != procedure::CONNECT_SET_IDENTITY {
            return Next::Standard;
        }
        let error = RpcError {
            code: 88,
            domain: 55,
            message: "access denied: 'connect' denied".to_owned(),
            level: 2,
        };
        stream.send(&frame.error_reply(&error)).unwrap();
        Next::Done
    });
    let (_dir, command) = behind_helper(&daemon);
    let upstreams =
        ["require", "try", "never"].map(|how| (how, format!("{command}, identity: {how}")));
    let scene = Choice::of(&upstreams);
    let open = |name: &str| {
        let mut client = RpcClient::connect(&scene.proxy.socket());
        client.auth_list();
        client.open(Some(&format!("test:///default?to={name}")), 0)
    };
    let error = open("require").unwrap_err();
    assert!(
        error.message.contains("upstream 'require': access denied"),
        "{error:?}"
    );
    assert_eq!(daemon.identities().len(), 1);
    open("try").unwrap();
    assert_eq!(daemon.identities().len(), 2);
    scene
        .proxy
        .process()
        .stderr()
        .wait_for("identity refused upstream=\"try\"");
    open("never").unwrap();
    assert_eq!(daemon.identities().len(), 2);
}

/// A scripted daemon behind libvirt's own helper, which passes bytes on and no descriptors.
fn behind_helper(daemon: &FakeUpstream) -> (WorkDir, String) {
    let dir = WorkDir::new();
    // Where it makes a file of its own.
    make_dir(&dir.join("libvirt"), &Account::unprivileged());
    symlink(daemon.socket(), dir.join("libvirt/libvirt-sock")).unwrap();
    let command = helper(dir.path(), "qemu:///session");
    (dir, command)
}

/// What asks for it, on a connection that is open.
fn passes_descriptors(socket: &Path, uri: &str) -> bool {
    let mut client = RpcClient::opened(socket, uri);
    let answer = client.call(
        procedure::CONNECT_SUPPORTS_FEATURE,
        Writer::new().i32(8).end(),
    );
    Reader::new(&answer.body).i32() == 1
}

#[test]
fn descriptors_are_announced_where_both_ends_pass_them() {
    let dir = WorkDir::new();
    let (daemon, far) = by_tls(&certificates(&dir));
    let program = helper(&daemon.dir().join("run"), "qemu:///session");
    let scene = Choice::of(&[("unix", at(&daemon)), ("tls", far), ("program", program)]);
    for (name, expected) in [("unix", true), ("tls", false), ("program", false)] {
        let uri = format!("test:///default?to={name}");
        assert_eq!(
            passes_descriptors(&scene.proxy.socket(), &uri),
            expected,
            "{name}"
        );
        let uri = format!("qemu:///session?to={name}");
        assert_eq!(
            passes_descriptors(&scene.proxy.socket(), &uri),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_far_daemon_that_promises_descriptors_breaks_the_protocol_alone() {
    let daemon = FakeUpstream::scripted(|stream, frame| {
        if frame.procedure != procedure::CONNECT_GET_HOSTNAME {
            return Next::Standard;
        }
        let file = fs::File::open("/dev/null").unwrap();
        let body = Writer::new().string("with-a-gift").end();
        stream
            .send(&frame.reply_with_fds(body, vec![file.into()]))
            .unwrap();
        Next::Done
    });
    let (_dir, command) = behind_helper(&daemon);
    let scene = Choice::of(&[("program", command)]);
    let uri = "test:///default?to=program";
    let mut bystander = RpcClient::opened(&scene.proxy.socket(), uri);
    let mut client = RpcClient::opened(&scene.proxy.socket(), uri);
    let error = client
        .call(procedure::CONNECT_GET_HOSTNAME, Vec::new())
        .error();
    assert!(
        error
            .message
            .contains("upstream 'program': the daemon broke the protocol"),
        "{error:?}"
    );
    client.expect_closed();
    assert_served(&mut bystander);
}

#[test]
fn a_call_with_descriptors_for_a_far_daemon_fails_alone() {
    let dir = WorkDir::new();
    let (_daemon, far) = by_tls(&certificates(&dir));
    let scene = Choice::of(&[("tls", far)]);
    let before = scene.proxy.process().open_fds();
    let mut client = RpcClient::opened(&scene.proxy.socket(), "test:///default?to=tls");
    let file = fs::File::open("/dev/null").unwrap();
    let call = client.prepare(procedure::CONNECT_GET_HOSTNAME, Vec::new());
    let call = Frame {
        kind: kind::CALL_WITH_FDS,
        fds: vec![Arc::new(file.into())],
        ..call
    };
    let error = client.exchange(&call).error();
    assert!(error.message.contains("escriptor"), "{error:?}");
    let answer = client.call(procedure::CONNECT_GET_HOSTNAME, Vec::new());
    assert_eq!(answer.status, status::OK);
    drop(client);
    eventually("nothing is left open", || {
        scene.proxy.process().open_fds() <= before
    });
}

/// Certificates are files that are renewed; whoever mends them need not wait for anything.
#[test]
fn a_new_certificate_of_the_proxys_is_shown_and_tried_at_once() {
    let dir = WorkDir::new();
    let pki = certificates(&dir);
    pki.client("mistaken", "ca", "");
    let port = free_port();
    let conf = pki.libvirtd_conf("daemon", ADDRESS, port)
        + "tls_allowed_dn_list = [\"O=Acme,CN=gateway\"]\n";
    let _daemon = Libvirtd::listening(&conf);
    let show = |name: &str| {
        for kind in ["key", "pem"] {
            let file = |name: &str| pki.path(&format!("{name}.{kind}"));
            fs::copy(file(name), file("new")).unwrap();
            fs::rename(file("new"), file("shown")).unwrap();
        }
    };
    show("mistaken");
    let keys = pki.upstream("ca", "shown");
    let scene = Choice::of(&[("hv", format!("tls: \"{ADDRESS}:{port}\", {keys}"))]);
    scene.refuses("hv", "the daemon refused our certificate");
    // It is left alone for longer each time.
    eventually("it was tried more than once", || {
        let error = scene.list("hv").failed();
        error.contains("tried again in 4 s")
    });
    show("gateway");
    let log = scene.proxy.process().stderr();
    log.wait_for("certificates and passwords read again");
    eventually("it is used", || scene.list("hv").status.success());
    show("mistaken");
    eventually("the new one is shown", || {
        !scene.list("hv").status.success()
    });
}
