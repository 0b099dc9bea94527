//! SASL with libvirt's own clients: passwords over UNIX sockets and TLS, certificates, and the file
//! of passwords while the daemon runs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::libvirtd::Libvirtd;
use crate::support::passwords::{auth_conf, set_password};
use crate::support::pki::{Pki, free_port};
use crate::support::process::Output;
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::remote::by_tls;
use crate::support::rpc_client::RpcClient;
use crate::support::tool::virsh;
use crate::support::wait::eventually;
use crate::support::wire::{Frame, RpcError, procedure, status};
use crate::support::xdr::{Reader, Writer};

/// What a client hears, whatever was wrong.
const FAILED: &str = "authentication failed: authentication failed";

/// A real daemon; the proxy before it, with a UNIX socket for SCRAM-SHA-256 and one for
/// SCRAM-SHA-512, and TLS with every mechanism; `alice` with her password `pencil`.
struct Scene {
    proxy: Proxy,
    pki: Pki,
    tls: u16,
    _daemon: Libvirtd,
}

impl Scene {
    fn start() -> Self {
        let daemon = Libvirtd::start();
        let tls = free_port();
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            set_password(&dir.join("passwords"), "alice", "pencil");
            let made = Pki::new(&dir.join("pki"));
            made.client("ci", "ca", "");
            pki = Some(made);
            let sasl = |mechanisms: &str| {
                format!(
                    "auth: sasl, sasl: {{ mechanisms: [{mechanisms}], passwords: {}/passwords }}",
                    dir.display()
                )
            };
            let (sha256, sha512) = (sasl("SCRAM-SHA-256"), sasl("SCRAM-SHA-512"));
            let all = sasl("SCRAM-SHA-256, SCRAM-SHA-512, PLAIN, EXTERNAL");
            let (dir, socket) = (dir.display(), daemon.socket());
            format!(
                "version: 1
listeners:
  main: {{ unix: {dir}/sock, {sha256} }}
  long: {{ unix: {dir}/long, {sha512} }}
  tls:
    {{ tcp: \"127.0.0.1:{tls}\", {all},
      tls: {{ cert: {dir}/pki/server.pem, key: {dir}/pki/server.key, ca: {dir}/pki/ca.pem,
             client_cert: optional }} }}
upstreams:
  daemon: {{ unix: {}, connect_timeout: 60s }}
identities:
  ours: {{ sasl: {{ user: [alice, ci] }} }}
routes:
  - {{ uri: \"test:///default\", clients: ours, upstream: daemon }}
",
                socket.display()
            )
        });
        Self {
            proxy: builder.args(&["--verbose"]).start(),
            pki: pki.unwrap(),
            tls,
            _daemon: daemon,
        }
    }

    fn auth_conf(&self, user: &str, password: &str) -> String {
        let path = auth_conf(self.proxy.dir(), user, password);
        format!("&authfile={}", path.display())
    }

    fn list(&self, uri: &str) -> Output {
        virsh(uri, &["list", "--name"]).run()
    }

    fn unix(&self, socket: &str, more: &str) -> Output {
        self.list(&format!(
            "{}{more}",
            self.proxy.uri("test:///default", socket)
        ))
    }

    fn tls(&self, client: Option<&str>, more: &str) -> Output {
        let (port, pkipath) = (self.tls, self.pki.pkipath(client));
        self.list(&format!(
            "test+tls://localhost:{port}/default?pkipath={pkipath}{more}"
        ))
    }

    fn passwords(&self) -> PathBuf {
        self.proxy.dir().join("passwords")
    }

    /// A line of the log with `text`.
    #[track_caller]
    fn logged(&self, text: &str) -> String {
        self.proxy.process().stderr().wait_for(text)
    }
}

fn is_listed(output: Output) -> bool {
    output.status.success() && output.ok().trim() == "test"
}

/// What is behind an optional message of SASL: a word that says whether there is none, a count, a
/// word for each byte.
fn message(writer: Writer, data: Option<&[u8]>) -> Writer {
    let bytes = data.unwrap_or_default();
    let count = u32::try_from(bytes.len()).unwrap();
    let head = writer.u32(data.is_none().into()).u32(count);
    bytes
        .iter()
        .fold(head, |writer, byte| writer.u32((*byte).into()))
}

fn sasl_start(client: &mut RpcClient, mechanism: &str, data: Option<&[u8]>) -> Frame {
    let body = message(Writer::new().string(mechanism), data).end();
    client.call(procedure::AUTH_SASL_START, body)
}

fn sasl_init(client: &mut RpcClient) -> Frame {
    client.call(procedure::AUTH_SASL_INIT, Vec::new())
}

fn mechanisms(client: &mut RpcClient) -> String {
    Reader::new(&sasl_init(client).body).string()
}

fn failed() -> RpcError {
    RpcError {
        code: 45,
        domain: 7,
        message: FAILED.to_owned(),
        level: 2,
    }
}

#[test]
fn a_right_password_is_let_in_over_unix_sockets_and_tls() {
    let scene = Scene::start();
    let alice = scene.auth_conf("alice", "pencil");
    assert!(is_listed(scene.unix("sock", &alice)));
    assert!(is_listed(scene.unix("long", &alice)));
    let by = |mechanism: &str| scene.logged(&format!("sasl.mechanism={mechanism}"));
    assert!(by("SCRAM-SHA-512").contains("sasl=alice"));
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
        let more = format!("{alice}&auth=sasl.{mechanism}");
        assert!(is_listed(scene.tls(None, &more)), "{mechanism}");
        let log = scene.proxy.process().stderr().lines();
        let expected = format!("sasl=alice,sasl.mechanism={mechanism},address=127.0.0.1:");
        assert!(log.iter().any(|line| line.contains(&expected)), "{log:#?}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_hear_the_same_and_the_log_tells_them_apart() {
    let scene = Scene::start();
    let wrong = scene.auth_conf("alice", "crayon");
    let unknown = scene.auth_conf("mallory", "pencil");
    let over_tls = scene.tls(None, &wrong).failed();
    assert!(over_tls.contains(FAILED), "{over_tls}");
    for (more, why) in [
        (&wrong, "wrong password for user"),
        (&unknown, "unknown user"),
    ] {
        let error = scene.unix("sock", more).failed();
        assert!(error.contains(FAILED), "{error}");
        assert!(!error.contains("user"), "{error}");
        // The reason stands beside who it was.
        let log = scene.proxy.process().stderr();
        log.wait_for(why);
        let parts = [
            "WARN",
            "authentication failed",
            "listener=\"main\"",
            why,
            "client=user=",
        ];
        let has_all = |line: &String| parts.iter().all(|part| line.contains(part));
        assert!(log.lines().iter().any(has_all), "{:#?}", log.lines());
    }
    let remote = scene.logged("authentication failed listener=\"tls\"");
    assert!(remote.contains("client=address=127.0.0.1:"), "{remote}");
    // Leaving without a word is no fault.
    assert_eq!(scene.proxy.process().stderr().count("cannot receive"), 0);
    let alice = scene.auth_conf("alice", "pencil");
    assert!(is_listed(scene.unix("sock", &alice)));
}

#[test]
fn a_mechanism_that_is_not_offered_is_refused_at_both_ends() {
    let scene = Scene::start();
    let plain = format!("{}&auth=sasl.PLAIN", scene.auth_conf("alice", "pencil"));
    let error = scene.unix("sock", &plain).failed();
    assert!(error.contains("PLAIN not supported"), "{error}");

    let mut client = RpcClient::connect(&scene.proxy.socket());
    assert_eq!(mechanisms(&mut client), "SCRAM-SHA-256");
    let answer = sasl_start(&mut client, "PLAIN", Some(b"\0alice\0pencil"));
    assert_eq!(answer.error(), failed());
    scene.logged("the mechanism \\\"PLAIN\\\" is not offered");
    // It is not in by that.
    let open = client.open(Some("test:///default"), 0).unwrap_err();
    assert_eq!(open.message, "authentication required");
}

#[test]
fn no_password_is_taken_on_plain_tcp() {
    let refused = |listener: &str, mechanism: &str| {
        let builder = ProxyBuilder::new(|dir| {
            let dir = dir.display();
            format!(
                "version: 1
listeners:
  tcp: {{ {listener}, auth: sasl,
         sasl: {{ mechanisms: [{mechanism}], passwords: {dir}/passwords }} }}
upstreams:
  daemon: {{ unix: {dir}/daemon }}
routes:
  - {{ uri: \"test:///default\", upstream: daemon }}
"
            )
        });
        builder.run().failed()
    };
    let port = free_port();
    for listener in [
        format!("tcp: \"127.0.0.1:{port}\""),
        format!("tcp: \"0.0.0.0:{port}\", unsafe_plain_tcp: true"),
    ] {
        let error = refused(&listener, "PLAIN");
        assert!(
            error.contains("PLAIN would send passwords readable"),
            "{error}"
        );
        for scram in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let error = refused(&listener, scram);
            assert!(error.contains("clients refuse it on plain TCP"), "{error}");
        }
    }
}

#[test]
fn a_certificate_is_a_proof_too() {
    let scene = Scene::start();
    let mut client = by_tls(scene.tls, &scene.pki, Some("ci"));
    assert_eq!(
        mechanisms(&mut client),
        "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,EXTERNAL"
    );
    let answer = sasl_start(&mut client, "EXTERNAL", Some(b""));
    assert_eq!(
        (answer.status, &answer.body[..4]),
        (status::OK, &[0, 0, 0, 1][..])
    );
    client.open(Some("test:///default"), 0).unwrap();
    let line = scene.logged("sasl=ci,sasl.mechanism=EXTERNAL");
    assert!(line.contains("dn=\"CN=ci,O=Acme\""), "{line}");

    // Nobody else's, and not without one.
    let mut client = by_tls(scene.tls, &scene.pki, Some("ci"));
    let answer = sasl_start(&mut client, "EXTERNAL", Some(b"alice"));
    assert_eq!(answer.error(), failed());
    let mut client = by_tls(scene.tls, &scene.pki, None);
    assert_eq!(mechanisms(&mut client), "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN");
    let answer = sasl_start(&mut client, "EXTERNAL", Some(b""));
    assert_eq!(answer.error(), failed());
}

#[test]
fn new_passwords_hold_from_the_next_connection_on() {
    let scene = Scene::start();
    let (old, new) = (
        scene.auth_conf("alice", "pencil"),
        scene.auth_conf("alice", "crayon"),
    );
    let uri = format!("{}{old}", scene.proxy.uri("test:///default", "sock"));
    let mut open = virsh(&uri, &["event", "--all", "--loop"]).start();
    scene.logged("client authenticated");

    set_password(&scene.passwords(), "alice", "crayon");
    let bob = scene.auth_conf("bob", "brush");
    set_password(&scene.passwords(), "bob", "brush");
    eventually("the new password is taken", || {
        is_listed(scene.unix("sock", &new))
    });
    scene.unix("sock", &old).failed();
    // bob is somebody now, but nobody with a route.
    eventually("the new user is known", || {
        let error = scene.unix("sock", &bob).failed();
        error.contains("no connection driver") || !error.contains(FAILED)
    });
    scene.logged("no route");

    let log = scene.proxy.process().stderr();
    fs::write(scene.passwords(), "alice:rubbish\n").unwrap();
    log.wait_for("the certificates and passwords in force stay");
    assert!(is_listed(scene.unix("sock", &new)));
    scene.unix("sock", &old).failed();
    assert_eq!(open.exit_status(), None, "{}", open.report());
    open.kill();
}

#[test]
fn a_failure_takes_its_time_and_the_third_closes() {
    let scene = Scene::start();
    let mut client = RpcClient::connect(&scene.proxy.socket());
    let timed = |ask: &mut dyn FnMut()| {
        let begun = Instant::now();
        ask();
        begun.elapsed()
    };
    let answered = (0..5).map(|_| timed(&mut || drop(mechanisms(&mut client))));
    let fastest: Duration = answered.min().unwrap();
    for _ in 0..3 {
        let taken = timed(&mut || {
            let answer = sasl_start(&mut client, "PLAIN", None);
            assert_eq!(answer.error(), failed());
        });
        assert!(taken > 10 * fastest, "{taken:?} and {fastest:?}");
    }
    client.expect_closed();
    // For another one it is the first again.
    let mut client = RpcClient::connect(&scene.proxy.socket());
    assert_eq!(sasl_start(&mut client, "PLAIN", None).error(), failed());
    assert_eq!(mechanisms(&mut client), "SCRAM-SHA-256");
}
