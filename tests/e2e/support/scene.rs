//! The proxy between a scripted client and a daemon, and what is counted of it.

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::fake_upstream::{FakeUpstream, Next};
use super::process::Process;
use super::proxy::{Proxy, ProxyBuilder};
use super::rpc_client::RpcClient;
use super::wait::eventually;
use super::wire::{Frame, FrameStream, status};

/// The URI that every scene routes.
pub(crate) const URI: &str = "test:///default";

/// A plain call, whose arguments the proxy does not look at, and
/// that a good [`FakeUpstream`] answers by the body it was sent.
pub(crate) const ECHO: i32 = 100;

/// A running proxy with one listener, `sock`, and one upstream.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) proxy: Proxy,
    fds: usize,
}

/// How to make one.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Inside `daemon:`.
    pub(crate) daemon: &'static str,
    /// Inside the upstream, behind its path.
    pub(crate) upstream: &'static str,
    /// Inside the listener, behind its path.
    pub(crate) listener: &'static str,
}

impl Default for Settings {
    /// No pings, which would come between what a test expects, and time enough for a slow machine.
    fn default() -> Self {
        Self {
            daemon: "workers: 2",
            upstream: "connect_timeout: 60s, keepalive: { interval: never }",
            listener: "keepalive: { interval: never }",
        }
    }
}

impl Settings {
    /// The policy for an upstream at `socket`.
    pub(crate) fn policy(&self, dir: &Path, socket: &Path) -> String {
        let Self {
            daemon,
            upstream,
            listener,
        } = self;
        let (dir, socket) = (dir.display(), socket.display());
        format!(
            "version: 1\n\
             daemon: {{ {daemon} }}\n\
             listeners:\n  main: {{ unix: {dir}/sock, {listener} }}\n\
             upstreams:\n  daemon: {{ unix: {socket}, {upstream} }}\n\
             routes:\n  - {{ uri: \"{URI}\", upstream: daemon }}\n"
        )
    }
}

impl Scene {
    /// The proxy before a good upstream.
    pub(crate) fn before(upstream: &FakeUpstream) -> Self {
        Self::new(&upstream.socket(), &Settings::default())
    }

    /// The proxy before whatever listens at `upstream`, or nothing.
    #[track_caller]
    pub(crate) fn new(upstream: &Path, settings: &Settings) -> Self {
        let proxy = ProxyBuilder::new(|dir| settings.policy(dir, upstream)).start();
        let fds = proxy.process().open_fds();
        Self { proxy, fds }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.proxy.dir().join("sock")
    }

    pub(crate) fn process(&self) -> &Process {
        self.proxy.process()
    }

    /// A client that has connected and opened.
    #[track_caller]
    pub(crate) fn opened(&self) -> RpcClient {
        RpcClient::opened(&self.socket(), URI)
    }

    /// A client that has only connected.
    #[track_caller]
    pub(crate) fn connected(&self) -> RpcClient {
        RpcClient::connect(&self.socket())
    }

    /// What the proxy has warned of so far.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut lines = self.process().stderr().lines();
        lines.retain(|line| line.contains(" WARN ") || line.contains("ERROR"));
        lines
    }

    /// Descriptors that the proxy has open beyond those it had at the start.
    pub(crate) fn more_fds(&self) -> usize {
        self.process().open_fds().saturating_sub(self.fds)
    }

    /// Waits until the proxy has no more descriptors than before its first client.
    #[track_caller]
    pub(crate) fn expect_no_fds(&self) {
        eventually("every descriptor is closed", || self.more_fds() == 0);
    }

    /// Runs `fault`, which must cost nobody anything but its own connection: a client that was
    /// there before is served after it, a new one too, every descriptor is closed in the end, and
    /// the log has exactly one new warning for each of `warnings`, that contains it.
    #[track_caller]
    pub(crate) fn costs_nobody_else(&self, warnings: &[&str], fault: impl FnOnce(&Self)) {
        let before = self.warnings().len();
        let mut bystander = self.opened();
        assert_served(&mut bystander);
        fault(self);
        assert_served(&mut bystander);
        assert_served(&mut self.opened());
        drop(bystander);
        self.expect_no_fds();
        let logged = || self.warnings().split_off(before);
        eventually("the warnings are logged", || {
            logged().len() >= warnings.len()
        });
        let logged = logged();
        assert_eq!(logged.len(), warnings.len(), "{logged:#?}");
        for text in warnings {
            assert!(
                logged.iter().any(|line| line.contains(text)),
                "no warning of {text:?}: {logged:#?}"
            );
        }
    }

    /// Waits until the proxy uses no processor time. On a machine that is busy otherwise this may
    /// come too early.
    #[track_caller]
    pub(crate) fn wait_until_quiet(&self) {
        eventually("the proxy has nothing to do", || {
            self.ticks_in(Duration::from_millis(100)) == 0
        });
    }

    /// Shows that the proxy uses no processor time once it has done what there was to do.
    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        self.wait_until_quiet();
        // A length of time to measure over, not one to wait for: a loop uses a hundred.
        let used = self.ticks_in(Duration::from_secs(1));
        assert!(used <= 2, "{used} ticks in an idle second");
    }

    fn ticks_in(&self, time: Duration) -> u64 {
        let before = self.process().cpu_ticks();
        thread::sleep(time);
        self.process().cpu_ticks() - before
    }
}

/// An answer of a good upstream.
#[track_caller]
pub(crate) fn assert_served(client: &mut RpcClient) {
    let answer = client.call(ECHO, b"ping".to_vec());
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (status::OK, &b"ping"[..])
    );
}

/// Sends `bytes` again and again until the other side takes none any more, and returns how many it
/// took. What counts as "none any more" errs towards sending less.
pub(crate) fn send_until_stuck(socket: &UnixStream, bytes: &[u8], most: usize) -> usize {
    const STUCK: Duration = Duration::from_millis(500);
    let mut writer = socket;
    socket.set_nonblocking(true).unwrap();
    let (mut sent, mut last) = (0, Instant::now());
    while sent < most && last.elapsed() < STUCK {
        match writer.write(&bytes[sent % bytes.len()..]) {
            Ok(count) => {
                sent += count;
                last = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("the proxy does not take more than {sent} bytes: {error}"),
        }
    }
    socket.set_nonblocking(false).unwrap();
    sent
}

/// A daemon that is asked `script` first for calls of `procedure`, and else is good.
pub(crate) fn daemon_with(
    procedure: i32,
    script: impl Fn(&FrameStream, &Frame) -> Next + Send + Sync + 'static,
) -> FakeUpstream {
    FakeUpstream::scripted(move |stream, frame| {
        if frame.procedure == procedure {
            script(stream, frame)
        } else {
            Next::Standard
        }
    })
}
