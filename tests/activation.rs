//! Socket activation, with systemd's own tool and with a socket that outlives the daemon as one
//! of systemd's does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed set-up step should stop the test"
)]

mod shell;

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use shell::{Daemon, PATIENCE, PROGRAM, Place, eventually, is_open, is_turned_away};

const MAIN: &str = "main: { unix: $DIR/sock, mode: \"0600\" }";
const OTHER: &str = "other: { unix: $DIR/other, mode: \"0600\" }";

/// `systemd-socket-activate` with these options; `None` where it is not installed.
fn activate(place: &Place, options: &[&str], arguments: &[&str]) -> Option<Daemon> {
    let tool = "systemd-socket-activate";
    if Command::new(tool).arg("--version").output().is_err() {
        eprintln!("skipped: {tool} is not installed");
        return None;
    }
    let mut command = place.command(tool, "log");
    command
        // The tool hands over only what it is told to.
        .arg(format!(
            "-ENOTIFY_SOCKET={}",
            place.path("notify").display()
        ))
        .args(options)
        .args([PROGRAM, "-f"])
        .arg(place.policy_file())
        .args(arguments);
    Some(Daemon::new(command, place.path("log")))
}

/// Starts the daemon with `listener` as its descriptor 3. Only the new process knows its pid, so
/// a shell says it.
fn inherit(place: &Place, listener: &UnixListener, name: &str, arguments: &[&str]) -> Daemon {
    let mut command = place.command("sh", "log");
    command
        .arg("-c")
        .arg("LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null")
        .args(["sh", PROGRAM, "-f"])
        .arg(place.policy_file())
        .args(arguments)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", name)
        .stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    let daemon = Daemon::new(command, place.path("log"));
    place.expect("READY=1");
    daemon
}

fn expect_accepted(daemon: &Daemon, idle: usize) {
    eventually("the client is accepted", || {
        (daemon.sockets().len() == idle + 1).then_some(())
    });
}

#[test]
fn systemd_starts_it_with_the_first_client_and_again_after_an_idle_exit() {
    let place = Place::new();
    // The name decides, not the path.
    place.write_policy(
        "drain: 1s",
        &["main: { unix: $DIR/elsewhere, mode: \"0600\" }"],
    );
    let socket = place.path("sock");
    for _ in 0..2 {
        let option = format!("--listen={}", socket.display());
        let Some(mut daemon) = activate(&place, &[&option, "--fdname=main"], &["-t", "1"]) else {
            return;
        };
        let client = eventually("systemd listens", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        place.expect("READY=1");
        assert!(is_open(&client));
        assert!(!place.path("elsewhere").exists());
        drop(client);
        assert_eq!(daemon.ended().code(), Some(0));
        assert!(socket.exists(), "an inherited socket is not ours to remove");
        // systemd's own would still be listening; the tool's has ended with the daemon.
        fs::remove_file(&socket).unwrap();
    }
}

#[test]
fn without_a_name_the_path_decides_and_strays_are_turned_away() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let listen = |what: String| format!("--listen={what}");
    let options = [
        listen(place.path("sock").display().to_string()),
        listen(place.path("stray").display().to_string()),
        listen(format!("127.0.0.1:{port}")),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(daemon) = activate(&place, &options, &[]) else {
        return;
    };
    let client = eventually("systemd listens", || {
        std::os::unix::net::UnixStream::connect(place.path("sock")).ok()
    });
    place.expect("READY=1");
    for _ in 0..3 {
        assert!(is_turned_away(place.connect("stray")));
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(tcp.read(&mut [0]).unwrap(), 0);
    }
    assert!(is_open(&client));
    let warnings = daemon
        .log()
        .matches("no listener of the policy matches")
        .count();
    assert_eq!(warnings, 2, "once for each stray: {}", daemon.log());
}

#[test]
fn a_client_that_comes_while_nobody_runs_is_served_by_the_next() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let listener = UnixListener::bind(place.path("sock")).unwrap();
    let mut first = inherit(&place, &listener, "main", &["-t", "1"]);
    assert_eq!(first.ended().code(), Some(0));
    let client = place.connect("sock");
    assert!(is_open(&client));
    let mut second = inherit(&place, &listener, "main", &["-t", "1"]);
    drop(client);
    // Had the client not been accepted and seen to leave, it would count for ever.
    assert_eq!(second.ended().code(), Some(0));
}

#[test]
fn an_inherited_socket_survives_its_listener() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN, OTHER]);
    let listener = UnixListener::bind(place.path("sock")).unwrap();
    let daemon = inherit(&place, &listener, "main", &[]);
    let idle = daemon.sockets().len();
    let client = place.connect("sock");
    expect_accepted(&daemon, idle);

    place.write_policy("drain: 1s", &[OTHER]);
    daemon.signal(Signal::SIGHUP);
    place.expect("READY=1");
    assert!(is_turned_away(place.connect("sock")));
    assert!(is_open(&client), "the connection lives on");

    place.write_policy("drain: 1s", &[MAIN, OTHER]);
    daemon.signal(Signal::SIGHUP);
    place.expect("READY=1");
    let again = place.connect("sock");
    expect_accepted(&daemon, idle + 1);
    assert!(is_open(&again));
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let place = Place::new();
    place.write_policy("drain: 1s", &["main: { unix: $DIR/own, mode: \"0600\" }"]);
    let listener = UnixListener::bind(place.path("sock")).unwrap();
    let mut command = place.command("sh", "log");
    command
        .arg("-c")
        .arg("LISTEN_PID=1 exec \"$@\" 3<&0 </dev/null")
        .args(["sh", PROGRAM, "-f"])
        .arg(place.policy_file())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "main")
        .stdin(Stdio::from(OwnedFd::from(listener)));
    let _daemon = Daemon::new(command, place.path("log"));
    place.expect("READY=1");
    place.connect("own");
}

#[test]
fn a_descriptor_that_is_no_socket_is_a_clear_error() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let mut command = place.command("sh", "log");
    command
        .arg("-c")
        .arg("LISTEN_PID=$$ exec \"$@\" 3</dev/null")
        .args(["sh", PROGRAM, "-f"])
        .arg(place.policy_file())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "main");
    let mut daemon = Daemon::new(command, place.path("log"));
    assert_eq!(daemon.ended().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("descriptor 3 (\"main\")"), "{log}");
}

#[test]
fn the_policys_mode_holds_for_a_socket_that_is_open_wider() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can be other users");
        return;
    }
    let place = Place::new();
    let path = place.path("sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    // As uid 65534, in the groups given.
    let connects = |groups: &str| {
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
                      s.settimeout(20); s.send(bytes.fromhex('0000001c2000808600000001000000420000000000000000\
00000000')); print(len(s.recv(100)) > 0)";
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--groups", groups])
            .args(["/usr/bin/python3", "-c", script])
            .arg(&path)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim() == "True"
    };
    for (mode, group, nobody, member) in [
        ("0666", "", true, true),
        ("0660", ", group: games", false, true),
        ("0600", "", false, false),
    ] {
        let main = format!("main: {{ unix: $DIR/sock, mode: \"{mode}\"{group} }}");
        place.write_policy("drain: 1s", &[&main]);
        let mut daemon = inherit(&place, &listener, "main", &[]);
        assert_eq!(connects("65534"), nobody, "{mode}");
        assert_eq!(connects("60"), member, "{mode}");
        daemon.signal(Signal::SIGTERM);
        daemon.ended();
    }
}
