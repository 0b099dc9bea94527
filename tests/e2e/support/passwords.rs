//! Passwords: the proxy's file of them, and clients that have one.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Sets a user's password by `virtproxyd passwd`.
#[track_caller]
pub(crate) fn set_password(file: &Path, user: &str, password: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virtproxyd"))
        .arg("passwd")
        .args([file.as_os_str(), user.as_ref()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{password}").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// A client's `auth.conf` in `dir`, with what it is to answer when it is asked for a password.
pub(crate) fn auth_conf(dir: &Path, user: &str, password: &str) -> PathBuf {
    let path = dir.join(format!("auth-{user}-{password}.conf"));
    let text = format!(
        "[credentials-test]\nauthname={user}\npassword={password}\n\n\
         [auth-libvirt-default]\ncredentials=test\n"
    );
    fs::write(&path, text).unwrap();
    path
}
