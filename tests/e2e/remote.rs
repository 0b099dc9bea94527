//! Remote clients beyond the handshake: whole volumes, load balancers, inherited sockets, who is
//! sent where, and certificates that change under them.

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::Signal;

use crate::support::fake_upstream::{FakeUpstream, Next};
use crate::support::libvirtd::Libvirtd;
use crate::support::pki::{Pki, free_port};
use crate::support::policy::CONNECT;
use crate::support::process::{Output, Process, command};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::scripts::HALTED_DOWNLOADS;
use crate::support::tool::{python, virsh};
use crate::support::wait::eventually;
use crate::support::wire::{Frame, procedure};
use crate::support::xdr::Writer;

/// The proxy with certificates, and addresses that were free a moment ago.
struct Scene {
    proxy: Proxy,
    pki: Pki,
    ports: [u16; 2],
}

impl Scene {
    /// With what `policy` writes for the proxy's directory and two ports. `prepare` makes more
    /// certificates; there is a client `ci`.
    fn start(prepare: impl FnOnce(&Pki), policy: impl FnOnce(&str, [u16; 2]) -> String) -> Self {
        Self::launch(prepare, policy, |builder, _| builder)
    }

    /// The same; `how` says more of how it is started.
    fn launch(
        prepare: impl FnOnce(&Pki),
        policy: impl FnOnce(&str, [u16; 2]) -> String,
        how: impl FnOnce(ProxyBuilder, [u16; 2]) -> ProxyBuilder,
    ) -> Self {
        let ports = free_ports();
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            let made = Pki::new(&dir.join("pki"));
            made.client("ci", "ca", "");
            prepare(&made);
            pki = Some(made);
            policy(&dir.display().to_string(), ports)
        });
        Self {
            proxy: how(builder.args(&["--verbose"]), ports).start(),
            pki: pki.unwrap(),
            ports,
        }
    }

    /// A URI by TLS for a client of this name.
    fn uri(&self, driver: &str, client: &str, host: &str, port: u16, more: &str) -> String {
        let (scheme, path) = driver.split_once("://").unwrap();
        let pkipath = self.pki.pkipath(Some(client));
        format!("{scheme}+tls://{host}:{port}{path}?pkipath={pkipath}{more}")
    }

    #[track_caller]
    fn wait_for_log(&self, text: &str) -> String {
        self.proxy.process().stderr().wait_for(text)
    }

    /// What a new handshake shows of the server's certificate.
    fn shown(&self) -> String {
        let mut command = command("gnutls-cli", None);
        command
            .args(["--port", &self.ports[0].to_string(), "--x509cafile"])
            .arg(self.pki.path("ca.pem"))
            .args(["--logfile", "/dev/stderr", "localhost"]);
        let output = Process::start("gnutls-cli", command).finish();
        let line = output.stderr.lines().find(|line| line.contains("serial"));
        line.unwrap_or_else(|| panic!("{output:?}")).to_owned()
    }
}

fn free_ports() -> [u16; 2] {
    [free_port(), free_port()]
}

/// A listener `tls` at the first port of both kinds of address.
fn tls_listener(dir: &str, ports: [u16; 2], tls: &str, more: &str) -> String {
    let port = ports[0];
    format!(
        "version: 1
listeners:
  tls:
    tcp: [\"127.0.0.1:{port}\", \"[::1]:{port}\"]
    tls: {{ cert: {dir}/pki/server.pem, key: {dir}/pki/server.key, ca: {dir}/pki/ca.pem, {tls} }}
{more}"
    )
}

fn upstream(name: &str, daemon: &Libvirtd) -> String {
    let socket = daemon.socket();
    format!(
        "  {name}: {{ unix: \"{}\", {CONNECT} }}\n",
        socket.display()
    )
}

/// Everything for everybody.
fn one_daemon(daemon: &Libvirtd) -> String {
    let upstream = upstream("daemon", daemon);
    format!("upstreams:\n{upstream}routes:\n  - {{ uri: [\"*?*\", \"\"], upstream: daemon }}\n")
}

fn nothing_more(_: &Pki) {}

/// Content that repeats nowhere within a frame, so that a frame out of place is seen.
fn content(dir: &Path, mib: usize) -> (PathBuf, Vec<u8>) {
    let words =
        (0_u64..).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let data: Vec<u8> = words.take(mib << 20).collect();
    let path = dir.join("content");
    fs::write(&path, &data).unwrap();
    (path, data)
}

#[test]
fn a_volume_of_64_mib_goes_up_and_comes_down_unchanged_by_either_version_of_tls() {
    let daemon = Libvirtd::start();
    let target = daemon.dir_pool("pool");
    let scene = Scene::start(nothing_more, |dir, ports| {
        tls_listener(dir, ports, "", "") + &one_daemon(&daemon)
    });
    let (up, data) = content(scene.proxy.dir(), 64);
    for version in ["1.2", "1.3"] {
        let priority = format!("&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS{version}");
        let uri = scene.uri(
            "qemu:///session",
            "ci",
            "localhost",
            scene.ports[0],
            &priority,
        );
        let down = scene.proxy.dir().join(format!("down-{version}"));
        let run = |args: &[&str]| virsh(&uri, args).run().ok();
        run(&["vol-create-as", "pool", version, "64MiB"]);
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        run(&["vol-upload", version, &path(&up), "--pool", "pool"]);
        run(&["vol-download", version, &path(&down), "--pool", "pool"]);
        // Not `assert_eq`: it would print them.
        assert!(
            fs::read(target.join(version)).unwrap() == data,
            "{version}: stored as sent"
        );
        assert!(
            fs::read(&down).unwrap() == data,
            "{version}: received as stored"
        );
    }
}

/// libvirt's client takes one frame at a time from GnuTLS and then waits for the socket, so that what
/// else was in the same record would lie there until more comes.
#[test]
fn a_reply_that_comes_together_with_an_event_is_not_kept_waiting() {
    const DOMAIN_EVENT_LIFECYCLE: i32 = 107;
    let daemon = FakeUpstream::scripted(|stream, frame| {
        if frame.procedure != procedure::CONNECT_GET_HOSTNAME {
            return Next::Standard;
        }
        let domain = Writer::new().string("guest").u64(0).u64(0).i32(-1);
        let event = Frame::event(DOMAIN_EVENT_LIFECYCLE, domain.i32(0).i32(0).end());
        let reply = frame.reply(Writer::new().string("the-daemon").end());
        let together = [event.encode(), event.encode(), reply.encode()].concat();
        stream.send_bytes(&together).unwrap();
        Next::Done
    });
    let scene = Scene::start(nothing_more, |dir, ports| {
        let socket = daemon.socket().display().to_string();
        // A ping would free it.
        tls_listener(dir, ports, "", "    keepalive: { interval: never }\n")
            + &format!(
                "upstreams:\n  daemon: {{ unix: \"{socket}\", {CONNECT} }}
routes:\n  - {{ uri: \"test:///default\", upstream: daemon }}\n"
            )
    });
    for version in ["1.2", "1.3"] {
        let priority = format!("&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS{version}");
        let uri = scene.uri(
            "test:///default",
            "ci",
            "localhost",
            scene.ports[0],
            &priority,
        );
        assert_eq!(
            virsh(&uri, &["-k0", "hostname"]).run().ok().trim(),
            "the-daemon"
        );
    }
}

#[test]
fn fifty_streaming_clients_do_not_feel_a_new_certificate_and_the_next_one_sees_it() {
    let daemon = Libvirtd::start();
    let target = daemon.dir_pool("pool");
    // More than all the buffers on the way hold.
    daemon.volume("pool", "volume", 16);
    let scene = Scene::start(nothing_more, |dir, ports| {
        tls_listener(dir, ports, "", "") + &one_daemon(&daemon)
    });
    let (file, data) = content(scene.proxy.dir(), 16);
    fs::write(target.join("volume"), data).unwrap();
    let uri = scene.uri("qemu:///session", "ci", "localhost", scene.ports[0], "");
    let file = file.to_str().unwrap();
    let mut clients = python(HALTED_DOWNLOADS, &[&uri, "pool", "volume", file, "50"]).start();
    clients.wait_for("50 streaming");

    let before = scene.shown();
    let good = fs::read(scene.pki.path("server.pem")).unwrap();
    fs::write(scene.pki.path("server.pem"), "rubbish").unwrap();
    scene.wait_for_log("the certificates and passwords in force stay");
    assert_eq!(scene.shown(), before, "a broken one keeps the old");
    // One that is good but not that key's.
    fs::copy(scene.pki.path("ci.pem"), scene.pki.path("server.pem")).unwrap();
    scene.wait_for_log("is not the key of the certificate");
    assert_eq!(scene.shown(), before, "one that does not fit keeps the old");

    fs::write(scene.pki.path("server.pem"), good).unwrap();
    scene.pki.sign(
        "renewed",
        "ca",
        "cn = localhost\ndns_name = localhost\ntls_www_server\nencryption_key\nsigning_key\n",
    );
    // The proxy may look at any moment between the two, and must not mind.
    for kind in ["key", "pem"] {
        fs::rename(
            scene.pki.path(&format!("renewed.{kind}")),
            scene.pki.path(&format!("server.{kind}")),
        )
        .unwrap();
    }
    let renewed = scene.pki.describe("server");
    eventually("the new one is shown", || {
        scene.shown() != before && renewed.contains("Subject: CN=localhost")
    });
    clients.signal(Signal::USR1);
    assert_eq!(clients.finish().ok(), "50 streaming\n50 equal");
}

#[test]
fn a_client_that_is_revoked_before_the_start_is_never_let_in() {
    let daemon = Libvirtd::start();
    let revoke = |pki: &Pki| {
        pki.client("other", "ca", "");
        pki.revoke(&["ci"]);
    };
    let scene = Scene::start(revoke, |dir, ports| {
        let crl = format!("crl: {dir}/pki/crl.pem");
        tls_listener(dir, ports, &crl, "") + &one_daemon(&daemon)
    });
    let list = |client: &str, version: &str| {
        let priority = format!("&tls_priority=NORMAL:-VERS-ALL:%2BVERS-TLS{version}");
        let uri = scene.uri(
            "test:///default",
            client,
            "localhost",
            scene.ports[0],
            &priority,
        );
        virsh(&uri, &["list", "--name"]).run()
    };
    for (refusals, version) in [(1, "1.2"), (2, "1.3")] {
        let error = list("ci", version).failed();
        assert!(error.contains("failed to connect"), "{error}");
        scene.wait_for_log("Revoked");
        assert_eq!(scene.proxy.process().stderr().count("Revoked"), refusals);
        assert_eq!(list("other", version).ok().trim(), "test");
    }
}

#[test]
fn two_distinguished_names_lead_to_two_daemons() {
    let (blue, red) = (Libvirtd::start(), Libvirtd::start());
    blue.dir_pool("blue-pool");
    red.dir_pool("red-pool");
    let more_clients = |pki: &Pki| {
        for (name, unit) in [("of-blue", "Blue"), ("of-red", "Red"), ("of-none", "Green")] {
            pki.client(name, "ca", &format!("unit = {unit}\n"));
        }
    };
    let scene = Scene::start(more_clients, |dir, ports| {
        let (of_blue, of_red) = (upstream("blue", &blue), upstream("red", &red));
        tls_listener(dir, ports, "", "")
            + &format!(
                "upstreams:\n{of_blue}{of_red}
identities:
  blue: {{ x509: {{ o: Acme, ou: Blue }} }}
  red: {{ x509: {{ ou: Red, o: Acme }} }}
routes:
  - {{ uri: \"qemu:///session\", clients: blue, upstream: blue }}
  - {{ uri: \"qemu:///session\", clients: red, upstream: red }}
"
            )
    });
    let pools = |client: &str| {
        let uri = scene.uri("qemu:///session", client, "localhost", scene.ports[0], "");
        virsh(&uri, &["pool-list", "--name"]).run()
    };
    assert_eq!(pools("of-blue").ok().trim(), "blue-pool");
    assert_eq!(pools("of-red").ok().trim(), "red-pool");
    let error = pools("of-none").failed();
    assert!(error.contains("failed to connect"), "{error}");
}

/// A load balancer on a port of its own: what comes there goes on to `to` behind `header`.
fn balancer(to: String, header: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(mut server) = TcpStream::connect(&to) else {
                continue;
            };
            // Who is refused may be gone by now.
            _ = server.write_all(&header);
            for (mut from, mut into) in [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ] {
                thread::spawn(move || {
                    _ = io::copy(&mut from, &mut into);
                    _ = into.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

/// A header of the PROXY protocol, version 2, for a client of this address.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1, 0x12, 0x34, 0x40, 0x82]);
    header
}

#[test]
fn a_load_balancer_tells_the_clients_address_and_nobody_else_can() {
    let daemon = Libvirtd::start();
    let scene = Scene::start(nothing_more, |dir, ports| {
        let (_, plain) = (ports[0], ports[1]);
        let more = format!(
            "    proxy_protocol: 127.0.0.1
  plain: {{ tcp: [\"127.0.0.1:{plain}\", \"[::1]:{plain}\"], proxy_protocol: [127.0.0.1] }}
"
        );
        let daemon = upstream("daemon", &daemon);
        tls_listener(dir, ports, "", &more)
            + &format!(
                "upstreams:\n{daemon}
identities:
  branch: {{ address: 192.0.2.0/24 }}
routes:
  - {{ uri: \"test:///default\", clients: branch, upstream: daemon }}
"
            )
    });
    let [tls, plain] = scene.ports;
    let by_tls = |port: u16| -> Output {
        let uri = scene.uri("test:///default", "ci", "localhost", port, "");
        virsh(&uri, &["list", "--name"]).run()
    };
    let by_tcp = |port: u16| -> Output {
        virsh(
            &format!("test+tcp://127.0.0.1:{port}/default"),
            &["list", "--name"],
        )
        .run()
    };
    let from = |host: &str, port: u16, client: [u8; 4]| {
        balancer(format!("{host}:{port}"), proxy_header(client))
    };
    let branch = [192, 0, 2, 7];

    // From an address that may speak for others.
    assert_eq!(by_tls(from("127.0.0.1", tls, branch)).ok().trim(), "test");
    assert_eq!(by_tcp(from("127.0.0.1", plain, branch)).ok().trim(), "test");
    scene.wait_for_log("address=192.0.2.7:4660");
    let error = by_tls(from("127.0.0.1", tls, [198, 51, 100, 1])).failed();
    assert!(error.contains("failed to connect"), "{error}");
    scene.wait_for_log("address=198.51.100.1:4660");

    // It must speak for somebody.
    by_tls(tls).failed();
    scene.wait_for_log("no PROXY header");

    // From one that may not: its header is rubbish, and without one it is who it is.
    let known = |text: &str| scene.proxy.process().stderr().count(text);
    let before = known("address=192.0.2.7:4660");
    by_tls(from("[::1]", tls, branch)).failed();
    by_tcp(from("[::1]", plain, branch)).failed();
    scene.wait_for_log("TLS: ");
    by_tls(balancer(format!("[::1]:{tls}"), Vec::new())).failed();
    scene.wait_for_log("address=[::1]:");
    assert_eq!(known("address=192.0.2.7:4660"), before);
}

#[test]
fn inherited_sockets_are_served_by_their_names_with_and_without_tls() {
    let daemon = Libvirtd::start();
    let scene = Scene::launch(
        nothing_more,
        |dir, _| {
            // Where they would listen by themselves; the names decide.
            let elsewhere = free_ports();
            let port = elsewhere[1];
            let more = format!("  tcp: {{ tcp: \"127.0.0.1:{port}\" }}\n");
            tls_listener(dir, elsewhere, "", &more) + &one_daemon(&daemon)
        },
        |builder, [tls, tcp]| {
            builder
                .activated_at("tls", &format!("[::1]:{tls}"))
                .activated_at("tcp", &format!("127.0.0.1:{tcp}"))
        },
    );
    let [tls, tcp] = scene.ports;
    let list = |uri: &str| virsh(uri, &["list", "--name"]).run();
    let by_tls = scene.uri("test:///default", "ci", "[::1]", tls, "");
    let by_tcp = format!("test+tcp://127.0.0.1:{tcp}/default");
    assert_eq!(list(&by_tls).ok().trim(), "test");
    assert_eq!(list(&by_tcp).ok().trim(), "test");
    // Each is what its name says.
    list(&format!("test+tcp://[::1]:{tls}/default")).failed();
    let crossed = scene.uri("test:///default", "ci", "127.0.0.1", tcp, "");
    list(&crossed).failed();
    assert_eq!(scene.proxy.process().stderr().count("listening"), 0);
}
