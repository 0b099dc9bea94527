//! The systemd units: accepted by systemd's own checker, and what clients and administrators of
//! libvirt count on is in them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed set-up step should stop the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SERVICE: &str = "virtproxyd.service";

fn units() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut units: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    units.sort();
    units
}

fn unit(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    fs::read_to_string(dir.join(name)).unwrap()
}

/// All values of a key, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// The units in a directory of their own, the service running the program just built: the checker
/// complains of a program that is not there.
fn installed() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for unit in units() {
        let text = fs::read_to_string(&unit).unwrap();
        let text = text.replace("/usr/sbin/virtproxyd", env!("CARGO_BIN_EXE_virtproxyd"));
        let copy = dir.path().join(unit.file_name().unwrap());
        fs::write(&copy, text).unwrap();
        copies.push(copy);
    }
    (dir, copies)
}

/// Runs systemd-analyze; `None` where systemd is not installed.
fn analyze(arguments: &[&str], units: &[PathBuf]) -> Option<Output> {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .args(units)
        .env("SYSTEMD_LOG_LEVEL", "warning")
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: systemd-analyze is not installed");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

#[test]
fn systemd_has_nothing_to_complain_of() {
    let (_dir, units) = installed();
    assert_eq!(units.len(), 8);
    let Some(output) = analyze(&["verify", "--man=no"], &units) else {
        return;
    };
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaints.trim().is_empty(),
        "{complaints}"
    );
}

#[test]
fn a_mistake_would_be_noticed() {
    let (_dir, units) = installed();
    let service = units.iter().find(|unit| unit.ends_with(SERVICE)).unwrap();
    let broken = fs::read_to_string(service).unwrap();
    fs::write(
        service,
        broken.replace("WatchdogSec=30", "WatchdogSec=often"),
    )
    .unwrap();
    let Some(output) = analyze(&["verify", "--man=no"], &units) else {
        return;
    };
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(complaints.contains("Failed to parse"), "{complaints}");
}

#[test]
fn the_service_stays_hardened() {
    let (_dir, units) = installed();
    let service: Vec<PathBuf> = units
        .into_iter()
        .filter(|unit| unit.ends_with(SERVICE))
        .collect();
    // Fails above an exposure of 3.0 (the scale goes to 10, lower is better).
    let arguments = ["security", "--offline=true", "--no-pager", "--threshold=30"];
    let Some(output) = analyze(&arguments, &service) else {
        return;
    };
    let report = String::from_utf8_lossy(&output.stdout);
    eprintln!("{}", report.lines().last().unwrap_or_default());
    assert!(output.status.success(), "{report}");
}

#[test]
fn the_sockets_are_those_of_libvirt() {
    let expected = [
        (
            "virtproxyd.socket",
            "main",
            "/run/libvirt/libvirt-sock",
            "0666",
        ),
        (
            "virtproxyd-ro.socket",
            "ro",
            "/run/libvirt/libvirt-sock-ro",
            "0666",
        ),
        (
            "virtproxyd-admin.socket",
            "admin",
            "/run/libvirt/libvirt-admin-sock",
            "0600",
        ),
        ("virtproxyd-tcp.socket", "tcp", "16509", ""),
        ("virtproxyd-tls.socket", "tls", "16514", ""),
    ];
    for (name, descriptor, stream, mode) in expected {
        let unit = unit(name);
        assert_eq!(values(&unit, "FileDescriptorName"), [descriptor], "{name}");
        assert_eq!(values(&unit, "ListenStream"), [stream], "{name}");
        assert_eq!(values(&unit, "SocketMode").join(""), mode, "{name}");
        assert_eq!(values(&unit, "Service"), [SERVICE], "{name}");
        assert_eq!(values(&unit, "Before"), [SERVICE], "{name}");
        let theirs = name.replace("virtproxyd", "libvirtd");
        assert_eq!(values(&unit, "Conflicts"), [theirs], "{name}");
    }
}

#[test]
fn the_service_and_its_sockets_come_and_go_together() {
    let service = unit(SERVICE);
    let local = [
        "virtproxyd.socket",
        "virtproxyd-ro.socket",
        "virtproxyd-admin.socket",
    ];
    assert_eq!(values(&service, "Also"), local);
    assert_eq!(values(&service, "Conflicts"), ["libvirtd.service"]);
    assert_eq!(values(&service, "BindsTo"), ["virtproxyd.socket"]);
    for name in ["ro", "admin", "tcp", "tls"] {
        let unit = unit(&format!("virtproxyd-{name}.socket"));
        assert_eq!(values(&unit, "BindsTo"), ["virtproxyd.socket"], "{name}");
    }
    assert_eq!(values(&unit(local[0]), "Also"), local[1..].to_vec());
}
