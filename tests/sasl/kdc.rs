//! A Kerberos realm of its own on loopback, all in one directory.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) const REALM: &str = "EXAMPLE.TEST";

/// A starting KDC is given this long.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Kdc {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Kdc {
    /// A realm with the user `alice` (password `pencil`), the services `libvirt/localhost` and
    /// `libvirt/oldhost`, the latter with session keys of RC4, in `keytab`, and `host/localhost`
    /// in `other.keytab`.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .unwrap()
            .port();
        let root = dir.path().display();
        // Two sides that prefer AES get away from session keys of RC4 by themselves.
        for (name, extra) in [
            ("krb5.conf", ""),
            (
                "weak.conf",
                " permitted_enctypes = arcfour-hmac aes256-cts\n",
            ),
        ] {
            let text = format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n \
                 dns_lookup_realm = false\n dns_canonicalize_hostname = false\n rdns = false\n \
                 allow_rc4 = true\n{extra}\
                 [realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
            );
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(
            dir.path().join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\n {REALM} = {{\n  database_name = {root}/principal\n  \
                 key_stash_file = {root}/stash\n  acl_file = {root}/acl\n  supported_enctypes = \
                 aes256-cts:normal aes128-cts:normal arcfour-hmac:normal\n }}\n\
                 [logging]\n kdc = FILE:{root}/kdc.log\n"
            ),
        )
        .unwrap();
        let command = |name: &str| {
            let mut command = Command::new(name);
            // `sbin` is not in the path of users.
            command
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("KRB5_CONFIG", dir.path().join("krb5.conf"))
                .env("KRB5_KDC_PROFILE", dir.path().join("kdc.conf"))
                .stdout(Stdio::null());
            command
        };
        let run =
            |mut command: Command| assert!(command.status().unwrap().success(), "{command:?}");
        let mut create = command("kdb5_util");
        create.args(["create", "-s", "-r", REALM, "-P", "master"]);
        run(create);
        for query in [
            "addprinc -pw pencil alice".to_owned(),
            "addprinc -randkey libvirt/localhost".to_owned(),
            "addprinc -randkey libvirt/oldhost".to_owned(),
            "setstr libvirt/oldhost session_enctypes arcfour-hmac".to_owned(),
            "addprinc -randkey host/localhost".to_owned(),
            format!("ktadd -k {root}/keytab libvirt/localhost libvirt/oldhost"),
            format!("ktadd -k {root}/other.keytab host/localhost"),
        ] {
            let mut admin = command("kadmin.local");
            admin.args(["-r", REALM, "-q", &query]);
            run(admin);
        }
        let mut daemon = command("krb5kdc").arg("-n").spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(daemon.try_wait().unwrap().is_none(), "the KDC has ended");
            assert!(begun.elapsed() < DEADLINE, "the KDC does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { daemon, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gets a ticket of `alice` into the credentials cache `alice`.
    pub(crate) fn log_in(&self) {
        let mut kinit = Command::new("kinit")
            .arg("alice")
            .envs(self.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        kinit.stdin.take().unwrap().write_all(b"pencil\n").unwrap();
        assert!(kinit.wait().unwrap().success());
    }

    /// What makes a process one of this realm.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 4] {
        [
            ("KRB5_CONFIG", self.path("krb5.conf")),
            ("KRB5_KTNAME", self.path("keytab")),
            ("KRB5CCNAME", self.path("alice")),
            ("KRB5RCACHEDIR", self.dir.path().into()),
        ]
    }
}

impl Drop for Kdc {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}
