//! What is measured: everything that can stand between a client and a daemon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;

use super::process::Process;
use super::tls::{CIPHER, Tls};
use super::upstream::{Upstream, await_answer, unprivileged, work_dir};
use super::wire::Client;

/// Connections that a peer is set up to hold: as many as there are descriptors for, two each, and
/// some to spare.
pub(crate) fn connections() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit.saturating_sub(400) / 2).min(12_000)
}

/// Something between a client and a daemon.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Direct,
    /// This project's proxy, from the build at the path.
    Ours(PathBuf),
    /// The same with access rules that look at every domain's name.
    Ruled(PathBuf),
    /// HAProxy in TCP mode.
    Haproxy,
    /// socat, one process for each connection.
    Socat,
    /// stunnel, which takes clients by TLS only.
    Stunnel,
    /// libvirt's own proxy, at the path.
    Libvirt(PathBuf),
    /// A second libvirtd, which passes on what the daemon owns.
    Forwarding,
    /// This project's proxy, which sends everything to a second libvirtd but for what the daemon
    /// owns.
    Routed(PathBuf),
    /// This project's proxy, which sends everything to [`Self::Forwarding`].
    BeforeForwarding(PathBuf),
}

impl Kind {
    /// Those of the rows about routing by driver; `super::drivers` starts them.
    pub(crate) fn has_second_daemon(&self) -> bool {
        matches!(
            self,
            Self::Forwarding | Self::Routed(_) | Self::BeforeForwarding(_)
        )
    }
}

/// What a peer is set up with beyond the rest.
#[derive(Clone, Copy, Default)]
pub(crate) struct More<'a> {
    /// A listener by TLS.
    pub(crate) tls: Option<&'a Tls>,
    /// Lines in the policy of this project's proxy.
    pub(crate) upstreams: &'a str,
    /// Before the route for everything.
    pub(crate) routes: &'a str,
}

/// A program that runs a peer and counts what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracer {
    Callgrind,
    Strace,
}

/// A running peer: where clients connect.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    /// None where clients go straight to the daemon.
    pub(crate) process: Option<Process>,
    pub(crate) dir: TempDir,
}

/// A daemon that clients go to, as what is measured.
impl From<Upstream> for Running {
    fn from(daemon: Upstream) -> Self {
        Self {
            socket: daemon.socket,
            process: Some(daemon.process),
            dir: daemon.dir,
        }
    }
}

impl Peer {
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self.kind,
            Kind::Ours(_) | Kind::Ruled(_) | Kind::Routed(_) | Kind::BeforeForwarding(_)
        )
    }

    /// Starts it before a daemon, and waits until it has answered a call.
    pub(crate) fn start(&self, upstream: &Upstream) -> io::Result<Running> {
        self.start_with(upstream, &More::default(), None)
    }

    /// With more than the usual, and under a tracer.
    pub(crate) fn start_with(
        &self,
        upstream: &Upstream,
        more: &More<'_>,
        tracer: Option<Tracer>,
    ) -> io::Result<Running> {
        let dir = work_dir()?;
        let Some((program, args, socket)) = self.command(dir.path(), &upstream.socket, more)?
        else {
            let (socket, process) = (upstream.socket.clone(), None);
            return Ok(Running {
                socket,
                process,
                dir,
            });
        };
        let mut command = match tracer {
            None => Command::new(&program),
            Some(Tracer::Callgrind) => {
                let mut command = Command::new("valgrind");
                command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
                command.arg(&program);
                command
            }
            Some(Tracer::Strace) => {
                let mut command = Command::new("strace");
                command
                    .args(["-f", "-c", "-o"])
                    .arg(dir.path().join("strace"));
                command.arg(&program);
                command
            }
        };
        command.args(args).env("XDG_RUNTIME_DIR", dir.path());
        if let Kind::Libvirt(_) = self.kind {
            unprivileged(&mut command, dir.path())?;
        }
        let mut process = Process::start(command, &dir.path().join("log"))?;
        match more.tls {
            None => await_answer(
                || Client::open(&socket, upstream.uri),
                &mut process,
                dir.path(),
            )?,
            Some(tls) => await_answer(|| tls.open(upstream.uri), &mut process, dir.path())?,
        }
        if tracer == Some(Tracer::Strace) {
            process.look_behind_tracer()?;
        }
        let process = Some(process);
        Ok(Running {
            socket,
            process,
            dir,
        })
    }

    /// Program, arguments and the socket that it will have.
    fn command(
        &self,
        dir: &Path,
        upstream: &Path,
        more: &More<'_>,
    ) -> io::Result<Option<(PathBuf, Vec<String>, PathBuf)>> {
        let socket = dir.join("sock");
        let (from, to) = (socket.display(), upstream.display());
        Ok(Some(match &self.kind {
            // Nothing more is started where clients go to a daemon.
            Kind::Direct | Kind::Forwarding => return Ok(None),
            Kind::Ours(program)
            | Kind::Ruled(program)
            | Kind::Routed(program)
            | Kind::BeforeForwarding(program) => {
                let file = dir.join("routes.yaml");
                let rules = match self.kind {
                    Kind::Ruled(_) => RULES,
                    _ => "",
                };
                fs::write(&file, policy(&socket, upstream, more) + rules)?;
                let args = vec!["-f".to_owned(), file.display().to_string()];
                (program.clone(), args, socket)
            }
            Kind::Haproxy => {
                let file = dir.join("haproxy.cfg");
                let bind = more.tls.map(|tls| {
                    format!(
                        " bind 127.0.0.1:{} ssl crt {} ca-file {} verify required \
                         ssl-min-ver TLSv1.3 ciphersuites {CIPHER}\n",
                        tls.port,
                        tls.file("both.pem").display(),
                        tls.file("ca.pem").display(),
                    )
                });
                fs::write(
                    &file,
                    format!(
                        "global\n maxconn {}\n\
                         defaults\n mode tcp\n timeout connect 60s\n timeout client 1h\n timeout server 1h\n\
                         frontend clients\n bind unix@{from} mode 666\n{} default_backend daemon\n\
                         backend daemon\n server daemon unix@{to}\n",
                        connections(),
                        bind.unwrap_or_default(),
                    ),
                )?;
                let args = vec![
                    "-db".to_owned(),
                    "-f".to_owned(),
                    file.display().to_string(),
                ];
                ("haproxy".into(), args, socket)
            }
            Kind::Socat => {
                let listen = format!("UNIX-LISTEN:{from},fork,backlog=1024");
                (
                    "socat".into(),
                    vec![listen, format!("UNIX-CONNECT:{to}")],
                    socket,
                )
            }
            Kind::Stunnel => {
                let tls = more.tls.ok_or(io::ErrorKind::Unsupported)?;
                let file = dir.join("stunnel.conf");
                fs::write(
                    &file,
                    format!(
                        "foreground = yes\npid =\ndebug = err\n\
                         socket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n\
                         [clients]\naccept = 127.0.0.1:{}\nconnect = {to}\n\
                         cert = {}\nCAfile = {}\nverifyChain = yes\nrequireCert = yes\n\
                         sslVersionMin = TLSv1.3\nciphersuites = {CIPHER}\n",
                        tls.port,
                        tls.file("both.pem").display(),
                        tls.file("ca.pem").display(),
                    ),
                )?;
                ("stunnel".into(), vec![file.display().to_string()], socket)
            }
            // It finds its daemons by the names of their sockets. As an ordinary user's, since
            // root's would use the machine's own directories.
            Kind::Libvirt(program) => {
                let run = dir.join("libvirt");
                fs::create_dir(&run)?;
                std::os::unix::fs::symlink(upstream, run.join("virtqemud-sock"))?;
                let socket = run.join("libvirt-sock");
                (program.clone(), Vec::new(), socket)
            }
        }))
    }
}

/// A policy that sends every client and URI to `upstream`.
fn policy(socket: &Path, upstream: &Path, more: &More<'_>) -> String {
    let tls = more.tls.map(|tls| {
        format!(
            "  tls:\n    tcp: \"127.0.0.1:{}\"\n    \
             tls: {{ ca: {:?}, cert: {:?}, key: {:?}, client_cert: required }}\n",
            tls.port,
            tls.file("ca.pem"),
            tls.file("server.pem"),
            tls.file("server.key"),
        )
    });
    format!(
        "version: 1\n\
         daemon: {{ max_clients: {} }}\n\
         listeners:\n  main: {{ unix: \"{}\", mode: \"0666\" }}\n{}\
         upstreams:\n  daemon: {{ unix: \"{}\", connect_timeout: 60s }}\n{}\
         routes:\n{}  - {{ uri: [\"*?*\", \"\"], upstream: daemon }}\n",
        connections(),
        socket.display(),
        tls.unwrap_or_default(),
        upstream.display(),
        more.upstreams,
        more.routes,
    )
}

/// Rules under which half of the 500 domains are hidden, and the test driver's own is not.
const RULES: &str = "access:\n\
    \x20 - who: \"*\"\n\
    \x20   allow: [\"connect:*\", \"domain:*\"]\n\
    \x20   on: { domain: { name: [\"acme-*\", \"test\"] } }\n";
