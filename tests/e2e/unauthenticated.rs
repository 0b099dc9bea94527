//! What a client can do, and cost, before it has proven who it is.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::fake_upstream::FakeUpstream;
use crate::support::libvirtd::Libvirtd;
use crate::support::passwords::set_password;
use crate::support::pki::{Pki, free_port};
use crate::support::proxy::{Proxy, ProxyBuilder};
use crate::support::remote::by_tls;
use crate::support::rpc_client::RpcClient;
use crate::support::scene::assert_served;
use crate::support::wait::eventually;
use crate::support::wire::{Frame, procedure, status};
use crate::support::xdr::Writer;

const URI: &str = "test:///default";

/// A proxy with a socket `sock` that asks for a password, one `open` that asks for nothing, and a
/// port by TLS that asks for a password too.
struct Scene {
    proxy: Proxy,
    pki: Pki,
    port: u16,
    fds: usize,
    _upstream: FakeUpstream,
}

impl Scene {
    /// With more keys of `daemon` and of the listeners that ask for a proof.
    fn start(daemon: &str, listener: &str) -> Self {
        let upstream = FakeUpstream::start();
        let port = free_port();
        let mut pki = None;
        let builder = ProxyBuilder::new(|dir| {
            pki = Some(Pki::new(&dir.join("pki")));
            set_password(&dir.join("passwords"), "alice", "pencil");
            let (dir, socket) = (dir.display(), upstream.socket());
            let sasl = format!("auth: sasl, sasl: {{ passwords: {dir}/passwords }}, {listener}");
            format!(
                "version: 1
daemon: {{ workers: 2, {daemon} }}
listeners:
  main: {{ unix: {dir}/sock, {sasl} }}
  tls:
    {{ tcp: \"127.0.0.1:{port}\", tls: {{ cert: {dir}/pki/server.pem, key: {dir}/pki/server.key,
      ca: {dir}/pki/ca.pem, client_cert: optional }}, {sasl} }}
  open: {{ unix: {dir}/open }}
upstreams:
  daemon: {{ unix: {}, connect_timeout: 60s }}
routes:
  - {{ uri: \"{URI}\", upstream: daemon }}
",
                socket.display()
            )
        });
        let proxy = builder.start();
        let fds = proxy.process().open_fds();
        Self {
            proxy,
            pki: pki.unwrap(),
            port,
            fds,
            _upstream: upstream,
        }
    }

    fn connect(&self) -> RpcClient {
        RpcClient::connect(&self.proxy.socket())
    }

    fn connect_remote(&self) -> RpcClient {
        by_tls(self.port, &self.pki, None)
    }

    fn opened(&self) -> RpcClient {
        RpcClient::opened(&self.proxy.dir().join("open"), URI)
    }

    #[track_caller]
    fn expect_no_fds(&self) {
        eventually("every descriptor is closed", || {
            self.proxy.process().open_fds() <= self.fds
        });
    }
}

fn is_served(client: &mut RpcClient) {
    // It asks for SASL.
    assert_eq!(client.auth_list(), [1]);
}

#[test]
fn calls_are_refused_as_libvirtd_refuses_them() {
    let daemon = Libvirtd::configured("auth_unix_rw = \"sasl\"\n", &[]);
    let scene = Scene::start("", "");
    let ask = |mut client: RpcClient| {
        assert_eq!(client.auth_list(), [1]);
        let open = Writer::new().optional(Some(URI)).u32(0).end();
        let feature = |number: i32| Writer::new().i32(number).end();
        let calls = [
            (procedure::CONNECT_OPEN, open),
            (procedure::CONNECT_SUPPORTS_FEATURE, feature(10)),
            (procedure::CONNECT_GET_VERSION, Vec::new()),
            (procedure::CONNECT_SET_IDENTITY, vec![0; 8]),
            (procedure::STORAGE_VOL_UPLOAD, Vec::new()),
            (procedure::CONNECT_CLOSE, Vec::new()),
        ];
        calls.map(|(procedure, body)| (procedure, client.call(procedure, body).error()))
    };
    let errors = ask(scene.connect());
    assert_eq!(errors[0].1.message, "authentication required");
    assert_eq!(errors, ask(RpcClient::connect(&daemon.socket())));
}

#[test]
fn a_large_frame_closes() {
    let scene = Scene::start("", "");
    let mut bystander = scene.opened();
    for procedure in [procedure::AUTH_SASL_START, procedure::CONNECT_OPEN] {
        let client = scene.connect();
        // Its length alone is enough.
        let large = Frame::call(procedure, 0, vec![0; 1 << 20]).encode();
        client.send_bytes(&large[..64]);
        client.expect_closed();
    }
    let log = scene.proxy.process().stderr();
    eventually("both are logged", || {
        log.count("the client broke the protocol") == 2
    });
    assert_served(&mut bystander);
    // The same length is fine on an open connection.
    let answer = bystander.call(crate::support::scene::ECHO, vec![0; 1 << 20]);
    assert_eq!(answer.status, status::OK);
    drop(bystander);
    scene.expect_no_fds();
}

#[test]
fn a_silent_client_is_closed_in_time() {
    let scene = Scene::start("", "auth_timeout: 1s");
    let mut bystander = scene.opened();
    let (local, remote) = (scene.connect(), scene.connect_remote());
    // One that goes on asking is no better.
    let mut asking = scene.connect();
    is_served(&mut asking);
    for client in [&local, &remote, &asking] {
        client.expect_closed();
    }
    scene
        .proxy
        .process()
        .stderr()
        .wait_for("did not authenticate in time");
    assert_served(&mut bystander);
    drop((bystander, local, remote, asking));
    scene.expect_no_fds();
}

#[test]
fn too_many_push_out_the_oldest_of_their_kind() {
    let scene = Scene::start("max_unauthenticated: 2", "");
    let mut bystander = scene.opened();
    let connect = |connected: RpcClient| {
        let mut client = connected;
        is_served(&mut client);
        client
    };
    let mut local: Vec<_> = (0..2).map(|_| connect(scene.connect())).collect();
    let mut remote: Vec<_> = (0..2).map(|_| connect(scene.connect_remote())).collect();
    for _ in 0..3 {
        remote.push(connect(scene.connect_remote()));
        remote.remove(0).expect_closed();
    }
    // Not one of the local clients had to go for that.
    local.iter_mut().for_each(is_served);
    local.push(connect(scene.connect()));
    local.remove(0).expect_closed();
    local.iter_mut().for_each(is_served);
    remote.iter_mut().for_each(is_served);
    let log = scene.proxy.process().stderr();
    eventually("each is logged", || {
        log.count("too many are not authenticated") == 4
    });
    assert_served(&mut bystander);
    drop((bystander, local, remote));
    scene.expect_no_fds();
}

#[test]
fn a_thousand_that_say_nothing_keep_nobody_out() {
    let scene = Scene::start("max_unauthenticated: 20", "");
    let mut bystander = scene.opened();
    let silent: Vec<_> = (0..1000)
        .map(|number| {
            if number % 100 == 0 {
                assert_served(&mut bystander);
                assert_served(&mut scene.opened());
            }
            TcpStream::connect(("127.0.0.1", scene.port)).unwrap()
        })
        .collect();
    // All but the last are closed by the proxy, before its clients close them. Every one has to be
    // accepted first: one that still waits would push the next one out, which is of the same address.
    // Descriptors do not tell: there are few as well while most of them wait.
    let log = scene.proxy.process().stderr();
    eventually("those pushed out are closed", || {
        log.count("too many are not authenticated") == 1000 - 20
    });
    is_served(&mut scene.connect_remote());
    for socket in &silent[..900] {
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        assert_eq!(std::io::Read::read(&mut &*socket, &mut [0]).unwrap(), 0);
    }
    drop((silent, bystander));
    scene.expect_no_fds();
}
