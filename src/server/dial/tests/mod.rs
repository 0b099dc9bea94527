//! Real sockets and programs on this host.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]

mod programs;
mod tls;

use std::collections::VecDeque;
use std::fs;
use std::future::poll_fn;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::*;
use crate::server::audit::{Audit, Sinks};
use crate::server::auth::certificates::Certificates;
use crate::server::health::Ailing;

/// A policy's upstream `u`, and what dials to it share.
struct Scene {
    dir: tempfile::TempDir,
    shared: Context,
}

impl Scene {
    /// `upstream`: what it has in the policy, from the scene's directory.
    fn new(upstream: impl FnOnce(&Path) -> String) -> Self {
        Self::with(tempfile::tempdir().unwrap(), upstream)
    }

    fn with(dir: tempfile::TempDir, upstream: impl FnOnce(&Path) -> String) -> Self {
        let text = format!(
            "version: 1\nlisteners: {{l: {{unix: /run/l}}}}\n\
             upstreams: {{u: {{{}}}}}\nroutes: [{{uri: x, upstream: u}}]\n",
            upstream(dir.path())
        );
        let loaded = crate::policy::load("f", &text, &|_| None);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render_human(false)));
        let mut findings = Vec::new();
        let certificates = Certificates::load(&loaded.policy, SystemTime::now(), &mut findings);
        let certificates = certificates.unwrap_or_else(|| panic!("{findings:?}"));
        let audit = Audit::start(Sinks::default()).unwrap();
        let shared = Context::new("f".into(), loaded.policy, certificates, audit);
        Self { dir, shared }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, readonly: bool) -> Dialling<'_> {
        let upstream = Arc::clone(&self.shared.policy.load().policy.upstreams[0]);
        Dialling::new(&upstream, readonly, &self.shared)
    }

    async fn dial(&self) -> Result<Dialled, String> {
        let mut dialling = self.start(false);
        let outcome = poll_fn(|cx| dialling.poll(cx));
        tokio::time::timeout(Duration::from_secs(30), outcome)
            .await
            .unwrap()
    }

    async fn failure(&self) -> String {
        self.dial().await.err().unwrap()
    }

    fn down(&self) -> Vec<Ailing> {
        self.shared.health.snapshot(Instant::now())
    }

    /// The line in a file, once it is there as a whole: a shell makes the file first.
    async fn read(&self, name: &str) -> String {
        eventually(|| {
            let text = fs::read_to_string(self.path(name)).ok();
            text.filter(|text| text.ends_with('\n'))
        })
        .await
    }
}

async fn eventually<T>(mut what: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = what() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never");
}

async fn send(transport: &mut Transport, bytes: &[u8]) {
    let sent = poll_fn(|cx| transport.poll_send(cx, bytes)).await;
    assert_eq!(sent.unwrap(), bytes.len());
    poll_fn(|cx| transport.poll_flush(cx)).await.unwrap();
}

async fn receive(transport: &mut Transport) -> io::Result<Vec<u8>> {
    let (mut buffer, mut descriptors) = ([0; 256], VecDeque::new());
    let count = poll_fn(|cx| transport.poll_recv(cx, &mut buffer, &mut descriptors)).await?;
    Ok(buffer[..count].to_vec())
}

/// A socket whose queue is full.
fn full(path: &Path) -> Vec<rustix::fd::OwnedFd> {
    let make = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    let address = SocketAddrUnix::new(path).unwrap();
    let listener = make();
    net::bind(&listener, &address).unwrap();
    net::listen(&listener, 0).unwrap();
    let mut all = vec![listener];
    loop {
        let socket = make();
        if net::connect(socket.as_fd(), &address).is_err() {
            return all;
        }
        all.push(socket);
    }
}

#[tokio::test]
async fn a_local_socket_that_refuses_is_known_and_tried_again_at_once() {
    let scene = Scene::new(|dir| format!("unix: {0}/rw, unix_ro: {0}/ro", dir.display()));
    let absent = scene.failure().await;
    assert!(absent.starts_with("No such file"), "{absent}");
    assert!(scene.down()[0].is_absent);
    drop(UnixListener::bind(scene.path("rw")).unwrap());
    let refused = scene.failure().await;
    assert!(refused.starts_with("Connection refused"), "{refused}");
    assert!(!scene.down()[0].is_absent);

    fs::remove_file(scene.path("rw")).unwrap();
    let listener = UnixListener::bind(scene.path("rw")).unwrap();
    let dialled = scene.dial().await.unwrap();
    listener.accept().unwrap();
    assert!(dialled.transport.carries_descriptors());
    // Whether it is well is for the session to say.
    assert_eq!(scene.down().len(), 1);
    dialled.standing.opened();
    assert_eq!(scene.down(), []);

    let readonly = UnixListener::bind(scene.path("ro")).unwrap();
    let mut dialling = scene.start(true);
    assert!(poll_fn(|cx| dialling.poll(cx)).await.is_ok());
    readonly.accept().unwrap();
}

#[tokio::test]
async fn a_queue_that_is_full_is_waited_for_and_its_time_counts() {
    let scene = Scene::new(|dir| format!("unix: {}/s, connect_timeout: 300ms", dir.display()));
    let held = full(&scene.path("s"));
    let pending = async |dialling: &mut Dialling<'_>, time| {
        let outcome = poll_fn(|cx| dialling.poll(cx));
        let waited = tokio::time::timeout(Duration::from_millis(time), outcome).await;
        assert!(waited.is_err());
    };
    // The client leaves.
    let mut dialling = scene.start(false);
    pending(&mut dialling, 50).await;
    drop(dialling);
    assert_eq!(scene.down(), []);
    // The session gives it up.
    let mut dialling = scene.start(false);
    pending(&mut dialling, 300).await;
    drop(dialling);
    let down = scene.down();
    assert_eq!(down[0].why, "its queue of connections is full");
    let refusal = scene.failure().await;
    assert!(refusal.contains("is down since 0 s"), "{refusal}");
    drop(held);
}

#[tokio::test]
async fn several_addresses_are_tried_in_turn_each_with_its_share_of_the_time() {
    let scene = Scene::new(|dir| {
        let dir = dir.display();
        format!("unix: [{dir}/full, {dir}/none, {dir}/good], connect_timeout: 600ms")
    });
    let _held = full(&scene.path("full"));
    let good = UnixListener::bind(scene.path("good")).unwrap();
    let begun = Instant::now();
    let dialled = scene.dial().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        dialled.standing.address().unwrap().to_string(),
        scene.path("good").display().to_string()
    );
    good.accept().unwrap();
    assert_eq!(scene.down().len(), 2);
    // What is well is first now.
    for _ in 0..4 {
        assert_eq!(scene.start(false).order[0], 2);
        scene.dial().await.unwrap();
    }
    fs::remove_file(scene.path("good")).unwrap();
    let why = scene.failure().await;
    let parts: Vec<&str> = why.split("; ").collect();
    assert!(parts.len() >= 3, "{why}");
    assert!(why.contains("/good: No such file"), "{why}");
    assert!(why.contains("/full is down since"), "{why}");
}

#[tokio::test]
async fn tcp_by_name_takes_whichever_address_of_the_host_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scene = Scene::new(|_| format!("tcp: \"localhost:{}\"", address.port()));
    let Dialled {
        mut transport,
        standing,
    } = scene.dial().await.unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    assert!(!transport.carries_descriptors());
    io::Write::write_all(&mut peer, b"hello").unwrap();
    assert_eq!(receive(&mut transport).await.unwrap(), b"hello");
    send(&mut transport, b"good day").await;
    let mut said = [0; 8];
    io::Read::read_exact(&mut peer, &mut said).unwrap();
    assert_eq!(&said, b"good day");

    standing.unwell("no answer to pings");
    let why = scene.failure().await;
    assert!(
        why.contains("is down since 0 s: no answer to pings; tried again in"),
        "{why}"
    );
    drop((standing, listener));
    scene
        .shared
        .health
        .reconsider(&scene.shared.policy.load().policy, Instant::now());
    let why = scene.failure().await;
    assert!(why.starts_with("Connection refused"), "{why}");
    assert_eq!(scene.down()[0].failures, 2);
}

#[tokio::test]
async fn a_name_that_nobody_has_is_said() {
    let scene = Scene::new(|_| "tcp: no-such-host.invalid, unsafe_plain_tcp: true".to_owned());
    let why = scene.failure().await;
    assert!(
        why.starts_with("cannot look up no-such-host.invalid: "),
        "{why}"
    );
}
