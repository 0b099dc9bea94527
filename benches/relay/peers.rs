//! What is measured: the proxies, and the daemons behind them.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use tempfile::TempDir;

use super::echo::{DOMAINS, name};
use super::process::Process;
use super::wire::{Client, PATIENCE, small_call};

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
    /// libvirt's own proxy, at the path.
    Libvirt(PathBuf),
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

impl Peer {
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.kind, Kind::Ours(_) | Kind::Ruled(_))
    }

    /// Starts it before a daemon, and waits until it has answered a call.
    pub(crate) fn start(&self, upstream: &Upstream) -> io::Result<Running> {
        self.start_with(upstream, "", None)
    }

    /// With more routes in its policy if it is ours, and under a tracer.
    pub(crate) fn start_with(
        &self,
        upstream: &Upstream,
        routes: &str,
        tracer: Option<Tracer>,
    ) -> io::Result<Running> {
        let dir = work_dir()?;
        let Some((program, args, socket)) = self.command(dir.path(), &upstream.socket, routes)?
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
        await_answer(&socket, upstream.uri, &mut process, dir.path())?;
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
        routes: &str,
    ) -> io::Result<Option<(PathBuf, Vec<String>, PathBuf)>> {
        let socket = dir.join("sock");
        let (from, to) = (socket.display(), upstream.display());
        Ok(Some(match &self.kind {
            Kind::Direct => return Ok(None),
            Kind::Ours(program) | Kind::Ruled(program) => {
                let file = dir.join("routes.yaml");
                let rules = match self.kind {
                    Kind::Ruled(_) => RULES,
                    _ => "",
                };
                fs::write(&file, policy(&socket, upstream, routes) + rules)?;
                let args = vec!["-f".to_owned(), file.display().to_string()];
                (program.clone(), args, socket)
            }
            Kind::Haproxy => {
                let file = dir.join("haproxy.cfg");
                fs::write(
                    &file,
                    format!(
                        "global\n maxconn {}\n\
                         defaults\n mode tcp\n timeout connect 60s\n timeout client 1h\n timeout server 1h\n\
                         frontend clients\n bind unix@{from} mode 666\n default_backend daemon\n\
                         backend daemon\n server daemon unix@{to}\n",
                        connections(),
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

/// A policy that sends every client and URI to `upstream`; `routes` come before that.
pub(crate) fn policy(socket: &Path, upstream: &Path, routes: &str) -> String {
    format!(
        "version: 1\n\
         daemon: {{ max_clients: {} }}\n\
         listeners:\n  main: {{ unix: \"{}\", mode: \"0666\" }}\n\
         upstreams:\n  daemon: {{ unix: \"{}\", connect_timeout: 60s }}\n\
         routes:\n{routes}  - {{ uri: [\"*?*\", \"\"], upstream: daemon }}\n",
        connections(),
        socket.display(),
        upstream.display(),
    )
}

/// Rules under which half of the 500 domains are hidden, and the test driver's own is not.
const RULES: &str = "access:\n\
    \x20 - who: \"*\"\n\
    \x20   allow: [\"connect:*\", \"domain:*\"]\n\
    \x20   on: { domain: { name: [\"acme-*\", \"test\"] } }\n";

/// A daemon behind the peers.
pub(crate) struct Upstream {
    pub(crate) socket: PathBuf,
    pub(crate) uri: &'static str,
    /// A URI under which there are 500 domains.
    pub(crate) many_domains: String,
    _process: Process,
    _dir: TempDir,
}

impl Upstream {
    /// The echo upstream: this program again.
    pub(crate) fn echo() -> io::Result<Self> {
        let dir = work_dir()?;
        let socket = dir.path().join("echo-sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--bench", "--echo-upstream"]).arg(&socket);
        let mut process = Process::start(command, &dir.path().join("log"))?;
        let uri = "qemu:///session";
        await_answer(&socket, uri, &mut process, dir.path())?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
        let many_domains = uri.to_owned();
        Ok(Self {
            socket,
            uri,
            many_domains,
            _process: process,
            _dir: dir,
        })
    }

    /// A real `libvirtd` without privileges and with libvirt's test driver.
    pub(crate) fn libvirtd() -> io::Result<Self> {
        let dir = work_dir()?;
        let mut command = Command::new("libvirtd");
        command
            .env_clear()
            .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin");
        for (variable, name) in [
            ("HOME", "home"),
            ("XDG_RUNTIME_DIR", "run"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_DATA_HOME", "data"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir(&path)?;
            give(&path)?;
            command.env(variable, path);
        }
        unprivileged(&mut command, dir.path())?;
        let mut process = Process::start(command, &dir.path().join("log"))?;
        let socket = dir.path().join("run/libvirt/libvirt-sock");
        let uri = "test:///default";
        await_answer(&socket, uri, &mut process, dir.path())?;
        let file = dir.path().join("node.xml");
        fs::write(&file, node())?;
        let many_domains = format!("test://{}", file.display());
        Ok(Self {
            socket,
            uri,
            many_domains,
            _process: process,
            _dir: dir,
        })
    }
}

/// A node of libvirt's test driver with as many domains as the echo upstream lists.
fn node() -> String {
    let mut xml = "<node>\n".to_owned();
    for number in 0..DOMAINS {
        xml += &format!(
            "<domain type='test'><name>{}</name><memory>8192</memory>\
             <os><type>hvm</type></os></domain>\n",
            name(number)
        );
    }
    xml + "</node>\n"
}

/// Waits until a call through `socket` is answered.
fn await_answer(socket: &Path, uri: &str, process: &mut Process, dir: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let answered =
            Client::open(socket, uri).and_then(|mut client| client.ask(&mut small_call()));
        let Err(error) = answered else { return Ok(()) };
        if process.has_ended() || Instant::now() > end {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            return Err(io::Error::other(format!(
                "it does not serve: {error}\n{log}"
            )));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn work_dir() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("relay").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Root's daemons would be the machine's own: runs the command as `nobody` if we are root.
fn unprivileged(command: &mut Command, dir: &Path) -> io::Result<()> {
    give(dir)?;
    if let Some((uid, gid)) = nobody() {
        command.uid(uid).gid(gid);
    }
    Ok(())
}

fn give(path: &Path) -> io::Result<()> {
    match nobody() {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn nobody() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("nobody").ok()??;
    Some((user.uid.as_raw(), user.gid.as_raw()))
}
