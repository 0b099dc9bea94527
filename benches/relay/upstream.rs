//! The daemons behind the peers.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use virtproxyd::protocol::table::remote;

use super::echo::{DOMAINS, name};
use super::process::Process;
use super::tls::Tls;
use super::wire::{Client, PATIENCE, POOL, VOLUME, call, small_call};

/// A daemon behind the peers.
pub(crate) struct Upstream {
    pub(crate) socket: PathBuf,
    pub(crate) uri: &'static str,
    /// A URI under which there are 500 domains.
    pub(crate) many_domains: String,
    pub(crate) process: Process,
    pub(crate) dir: TempDir,
    has_objects: Cell<bool>,
}

impl Upstream {
    /// The echo upstream: this program again.
    pub(crate) fn echo() -> io::Result<Self> {
        let dir = work_dir()?;
        let socket = dir.path().join("echo-sock");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--bench", "--echo-upstream"]).arg(&socket);
        let upstream = Self::start(command, dir, socket, "qemu:///session")?;
        fs::set_permissions(&upstream.socket, fs::Permissions::from_mode(0o666))?;
        Ok(upstream)
    }

    /// A real `libvirtd` without privileges and with libvirt's test driver.
    pub(crate) fn libvirtd() -> io::Result<Self> {
        Self::libvirtd_with(None)
    }

    /// The same with a listener by TLS.
    pub(crate) fn libvirtd_listening(tls: &Tls) -> io::Result<Self> {
        Self::libvirtd_with(Some(tls))
    }

    fn libvirtd_with(tls: Option<&Tls>) -> io::Result<Self> {
        let dir = work_dir()?;
        let mut command = Command::new("libvirtd");
        if let Some(tls) = tls {
            let file = dir.path().join("libvirtd.conf");
            fs::write(
                &file,
                format!(
                    "listen_addr = \"127.0.0.1\"\ntls_port = \"{}\"\nca_file = {:?}\n\
                     cert_file = {:?}\nkey_file = {:?}\n",
                    tls.port,
                    tls.file("ca.pem"),
                    tls.file("server.pem"),
                    tls.file("server.key"),
                ),
            )?;
            command.arg("--listen").arg("--config").arg(file);
        }
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
        let file = dir.path().join("node.xml");
        fs::write(&file, node())?;
        let socket = dir.path().join("run/libvirt/libvirt-sock");
        let upstream = Self::start(command, dir, socket, "test:///default")?;
        let many_domains = format!("test://{}", file.display());
        Ok(Self {
            many_domains,
            ..upstream
        })
    }

    /// Starts it, and waits until it answers.
    fn start(
        command: Command,
        dir: TempDir,
        socket: PathBuf,
        uri: &'static str,
    ) -> io::Result<Self> {
        let mut process = Process::start(command, &dir.path().join("log"))?;
        await_answer(|| Client::open(&socket, uri), &mut process, dir.path())?;
        Ok(Self {
            socket,
            uri,
            many_domains: uri.to_owned(),
            process,
            dir,
            has_objects: Cell::new(false),
        })
    }

    /// Gives a real daemon a network, and a pool with the volume of the streams, unless it has them:
    /// so many zeroes, of which the disk holds none and memory all.
    pub(crate) fn make_objects(&self, volume: u64) -> io::Result<()> {
        if self.has_objects.get() {
            return Ok(());
        }
        let pool = self.dir.path().join(POOL);
        fs::create_dir_all(&pool)?;
        give(&pool)?;
        let file = pool.join(VOLUME);
        File::create(&file)?.set_len(volume)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        io::copy(&mut File::open(&file)?, &mut io::sink())?;
        let pool = format!(
            "<pool type='dir'><name>{POOL}</name><target><path>{}</path></target></pool>",
            pool.display()
        );
        // It never runs, so that it takes no bridge of the machine's.
        let network = format!("<network><name>{NETWORK}</name><bridge name='virbr98'/></network>");
        let mut client = Client::open(&self.socket, OBJECTS)?;
        client.ask(&mut call(remote::NETWORK_DEFINE_XML, |writer| {
            writer.string(&network);
        }))?;
        client.ask(&mut call(remote::STORAGE_POOL_CREATE_XML, |writer| {
            writer.string(&pool).u32(0);
        }))?;
        self.has_objects.set(true);
        Ok(())
    }
}

/// The URI under which [`Upstream::make_objects`] makes them: the test driver has no data in
/// volumes, and its objects are in every daemon, so that nothing would tell which one has answered.
pub(crate) const OBJECTS: &str = "qemu:///session";
pub(crate) const NETWORK: &str = "network";

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

/// Waits until a call of a client that can be opened is answered.
pub(crate) fn await_answer<S: Read + Write>(
    open: impl Fn() -> io::Result<Client<S>>,
    process: &mut Process,
    dir: &Path,
) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let answered = open().and_then(|mut client| client.ask(&mut small_call()));
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

pub(crate) fn work_dir() -> io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("relay").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

/// Root's daemons would be the machine's own: runs the command as `nobody` if we are root.
pub(crate) fn unprivileged(command: &mut Command, dir: &Path) -> io::Result<()> {
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
