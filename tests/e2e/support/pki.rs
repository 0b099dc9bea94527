//! Certificates by `certtool`, as libvirt's own documentation makes them.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{Process, command};

/// A directory of certificates and keys, in PEM.
#[derive(Debug)]
pub(crate) struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// In a new directory `dir`: a CA, and a server's certificate for localhost.
    pub(crate) fn new(dir: &Path) -> Self {
        let pki = Self {
            dir: dir.to_path_buf(),
        };
        fs::create_dir(dir).unwrap();
        pki.ca("ca", "Test CA");
        pki.sign(
            "server",
            "ca",
            "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\nip_address = ::1\n\
             tls_www_server\nencryption_key\nsigning_key\n",
        );
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A CA: `NAME.pem` and `NAME.key`.
    pub(crate) fn ca(&self, name: &str, subject: &str) {
        self.key(name, &["--key-type", "ecdsa"]);
        let template = format!(
            "cn = \"{subject}\"\nca\ncert_signing_key\ncrl_signing_key\nexpiration_days = 3650\n"
        );
        let (key, template) = (self.file(name, "key"), self.template(name, &template));
        self.certtool(
            name,
            &[
                "--generate-self-signed",
                "--load-privkey",
                &key,
                "--template",
                &template,
            ],
        );
    }

    /// A certificate signed by a CA, from lines of a template: `NAME.pem` and `NAME.key`. The key is
    /// RSA: libvirt's clients want one that may encipher keys, at both ends.
    pub(crate) fn sign(&self, name: &str, ca: &str, lines: &str) {
        self.key(name, &["--key-type", "rsa", "--bits", "2048"]);
        let dates = if lines.contains("expiration_date") {
            ""
        } else {
            "expiration_days = 3650\n"
        };
        let template = self.template(name, &format!("{lines}{dates}"));
        let (key, ca_key, ca_pem) = (
            self.file(name, "key"),
            self.file(ca, "key"),
            self.file(ca, "pem"),
        );
        self.certtool(
            name,
            &[
                "--generate-certificate",
                "--load-privkey",
                &key,
                "--load-ca-privkey",
                &ca_key,
                "--load-ca-certificate",
                &ca_pem,
                "--template",
                &template,
            ],
        );
    }

    /// A client's certificate with this common name.
    pub(crate) fn client(&self, name: &str, ca: &str, more: &str) {
        let lines = format!(
            "organization = Acme\ncn = {name}\ntls_www_client\nsigning_key\nencryption_key\n{more}"
        );
        self.sign(name, ca, &lines);
    }

    /// A list of the CA's revoked certificates, at `crl.pem`, in one step.
    pub(crate) fn revoke(&self, names: &[&str]) {
        let mut certificates = String::new();
        for name in names {
            certificates += &fs::read_to_string(self.file(name, "pem")).unwrap();
        }
        let revoked = self.path("revoked.txt");
        fs::write(&revoked, certificates).unwrap();
        let template = self.template("crl", "crl_next_update = 3650\ncrl_number = 1\n");
        let (key, pem) = (self.file("ca", "key"), self.file("ca", "pem"));
        let mut args = vec![
            "--generate-crl",
            "--load-ca-privkey",
            &key,
            "--load-ca-certificate",
            &pem,
            "--template",
            &template,
        ];
        if !names.is_empty() {
            args.extend(["--load-certificate", revoked.to_str().unwrap()]);
        }
        self.certtool("crl-new", &args);
        fs::rename(self.file("crl-new", "pem"), self.file("crl", "pem")).unwrap();
    }

    /// A directory as `pkipath=` of a libvirt URI wants it, for a client of this name, or without a
    /// certificate of its own.
    pub(crate) fn pkipath(&self, client: Option<&str>) -> String {
        let dir = self.path(&format!("pki-{}", client.unwrap_or("nobody")));
        fs::create_dir_all(&dir).unwrap();
        fs::copy(self.file("ca", "pem"), dir.join("cacert.pem")).unwrap();
        if let Some(name) = client {
            fs::copy(self.file(name, "pem"), dir.join("clientcert.pem")).unwrap();
            fs::copy(self.file(name, "key"), dir.join("clientkey.pem")).unwrap();
        }
        dir.display().to_string()
    }

    /// A certificate of a daemon at this address, called `name`.
    pub(crate) fn daemon(&self, name: &str, address: &str, more: &str) {
        let lines = format!(
            "cn = {name}\nip_address = {address}\ntls_www_server\nencryption_key\nsigning_key\n{more}"
        );
        self.sign(name, "ca", &lines);
        // It runs as somebody else.
        fs::set_permissions(
            self.path(&format!("{name}.key")),
            fs::Permissions::from_mode(0o644),
        )
        .unwrap();
    }

    /// Lines of a `libvirtd.conf`: listens there by TLS with such a certificate.
    pub(crate) fn libvirtd_conf(&self, name: &str, address: &str, port: u16) -> String {
        let (ca, cert, key) = (
            self.file("ca", "pem"),
            self.file(name, "pem"),
            self.file(name, "key"),
        );
        format!(
            "listen_addr = \"{address}\"\ntls_port = \"{port}\"\nca_file = \"{ca}\"\n\
             cert_file = \"{cert}\"\nkey_file = \"{key}\"\n"
        )
    }

    /// Keys of an upstream: who trusts the CA `ca` and shows the certificate of `client`.
    pub(crate) fn upstream(&self, ca: &str, client: &str) -> String {
        let (ca, cert, key) = (
            self.file(ca, "pem"),
            self.file(client, "pem"),
            self.file(client, "key"),
        );
        format!("ca: {ca}, cert: {cert}, key: {key}")
    }

    /// What `certtool` prints of a certificate.
    pub(crate) fn describe(&self, name: &str) -> String {
        let mut command = command("certtool", None);
        command.args(["-i", "--infile", &self.file(name, "pem")]);
        Process::start("certtool", command).finish().ok()
    }

    fn key(&self, name: &str, kind: &[&str]) {
        let path = self.file(name, "key");
        if Path::new(&path).exists() {
            return;
        }
        let mut command = command("certtool", None);
        command.args(["--generate-privkey", "--outfile", &path]);
        command.args(kind);
        Process::start("certtool", command).finish().ok();
    }

    fn template(&self, name: &str, text: &str) -> String {
        let path = self.file(name, "template");
        fs::write(&path, text).unwrap();
        path
    }

    fn certtool(&self, out: &str, args: &[&str]) {
        let mut command = command("certtool", None);
        command
            .args(args)
            .args(["--outfile", &self.file(out, "pem")]);
        Process::start("certtool", command).finish().ok();
    }

    fn file(&self, name: &str, kind: &str) -> String {
        self.path(&format!("{name}.{kind}")).display().to_string()
    }
}

/// A TCP port that is free now, of both kinds of address, and not given out twice. It is below those
/// that the kernel gives to clients, of which one may else have it by the time that it is wanted.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 16_600;
    const COUNT: u32 = 16_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Test programs that run at the same time begin at different places.
        let place = NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id().wrapping_mul(97));
        let port = u16::try_from(FIRST + place % COUNT).unwrap();
        let is_free = |address| TcpListener::bind((address, port)).is_ok();
        if ["127.0.0.1", "::1"].into_iter().all(is_free) {
            return port;
        }
    }
}
