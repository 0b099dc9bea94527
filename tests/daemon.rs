//! The daemon as an administrator meets it: started, reloaded, stopped, started twice.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed set-up step should stop the test"
)]

mod shell;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shell::{Daemon, PROGRAM, Place, eventually, is_open, mode};

const MAIN: &str = "main: { unix: $DIR/run/sock, mode: \"0600\" }";

#[test]
fn a_stopped_daemon_leaves_nothing_behind() {
    let place = Place::new();
    place.write_policy("drain: 20s", &[MAIN]);
    let mut daemon = place.start(&[]);
    assert_eq!(mode(&place.path("run/sock")), 0o600);
    let client = place.connect("run/sock");
    daemon.signal(Signal::SIGTERM);
    place.expect("STOPPING=1");
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(!is_open(&client));
    assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 0);
    assert!(
        !place
            .notified()
            .iter()
            .any(|message| message.contains("READY"))
    );
}

#[test]
fn sighup_takes_a_good_file_whole_and_a_bad_one_not_at_all() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let daemon = place.start(&[]);
    let client = place.connect("run/sock");

    fs::write(place.policy_file(), "listeners: [").unwrap();
    daemon.signal(Signal::SIGHUP);
    assert!(place.expect("RELOADING=1").contains("MONOTONIC_USEC="));
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 1 from"), "{ready}");
    assert!(ready.contains("reload failed: "), "{ready}");
    assert!(daemon.log().contains("reload failed"));
    assert!(is_open(&client) && is_open(&place.connect("run/sock")));

    fs::remove_file(place.policy_file()).unwrap();
    daemon.signal(Signal::SIGHUP);
    assert!(place.expect("READY=1").contains("reload failed: "));

    let second = "second: { unix: $DIR/second, mode: \"0644\", readonly: true }";
    place.write_policy("drain: 1s", &[&MAIN.replace("0600", "0660"), second]);
    daemon.signal(Signal::SIGHUP);
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 2 from"), "{ready}");
    assert!(!ready.contains("failed"), "{ready}");
    assert_eq!(mode(&place.path("run/sock")), 0o660);
    assert_eq!(mode(&place.path("second")), 0o644);
    place.connect("second");

    place.write_policy("drain: 1s", &[second]);
    daemon.signal(Signal::SIGHUP);
    assert!(place.expect("READY=1").contains("policy generation 3 from"));
    assert!(!place.path("run/sock").exists());
    assert!(is_open(&client), "connections outlive their listener");
}

#[test]
fn a_listener_that_cannot_be_bound_fails_the_whole_reload() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let daemon = place.start(&[]);
    fs::write(place.path("taken"), "precious").unwrap();
    let good = "good: { unix: $DIR/good, mode: \"0600\" }";
    let taken = "taken: { unix: $DIR/taken, mode: \"0600\" }";
    place.write_policy("drain: 1s", &[&MAIN.replace("0600", "0666"), good, taken]);
    daemon.signal(Signal::SIGHUP);
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 1 from"), "{ready}");
    assert!(
        ready.contains("taken: exists and is not a socket"),
        "{ready}"
    );
    assert_eq!(mode(&place.path("run/sock")), 0o600);
    assert!(!place.path("good").exists());
    assert_eq!(fs::read_to_string(place.path("taken")).unwrap(), "precious");
    assert!(is_open(&place.connect("run/sock")));
}

#[test]
fn a_socket_that_is_no_longer_ours_fails_the_whole_reload() {
    let place = Place::new();
    let other = "other: { unix: $DIR/other, mode: \"0600\" }";
    place.write_policy("drain: 1s", &[other, MAIN]);
    let daemon = place.start(&[]);
    fs::remove_file(place.path("run/sock")).unwrap();
    let _usurper = std::os::unix::net::UnixListener::bind(place.path("run/sock")).unwrap();
    let before = mode(&place.path("run/sock"));
    place.write_policy(
        "drain: 1s",
        &[
            &other.replace("0600", "0606"),
            &MAIN.replace("0600", "0606"),
        ],
    );
    daemon.signal(Signal::SIGHUP);
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 1 from"), "{ready}");
    assert!(ready.contains("replaced by another"), "{ready}");
    assert_eq!(mode(&place.path("run/sock")), before);
    assert_eq!(mode(&place.path("other")), 0o600, "set and set back");
}

#[test]
fn a_signal_during_a_reload_is_not_lost() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let daemon = place.start(&[]);
    // A pipe in place of the file holds a reload up until we write to it.
    fs::remove_file(place.policy_file()).unwrap();
    nix::unistd::mkfifo(&place.policy_file(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reading = || {
        eventually("a reload reads the pipe", || {
            let mut options = fs::OpenOptions::new();
            options.write(true).custom_flags(nix::libc::O_NONBLOCK);
            options.open(place.policy_file()).ok()
        })
    };
    let logged = |text: &str, times: usize| {
        eventually(text, || {
            (daemon.log().matches(text).count() == times).then_some(())
        });
    };
    let text = place.policy_text("drain: 1s", &[MAIN]);

    daemon.signal(Signal::SIGHUP);
    let mut first = reading();
    daemon.signal(Signal::SIGHUP);
    logged("reload requested", 2);
    first.write_all(text.as_bytes()).unwrap();
    drop(first);
    logged("reloaded: ", 1);
    let mut second = reading();
    second.write_all(text.as_bytes()).unwrap();
    drop(second);
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 3 from"), "{ready}");
}

#[test]
fn a_watched_file_is_reloaded_however_it_is_changed() {
    let place = Place::new();
    let listener = |name: &str| format!("main: {{ unix: $DIR/{name}, mode: \"0600\" }}");
    let text = |name: &str| place.policy_text("watch: true", &[&listener(name)]);
    // As Kubernetes mounts a ConfigMap.
    let version = |name: &str, content: &str| {
        fs::create_dir(place.path(name)).unwrap();
        fs::write(place.path(name).join("routes.yaml"), content).unwrap();
    };
    version("..v1", &text("sock1"));
    symlink("..v1", place.path("..data")).unwrap();
    symlink("..data/routes.yaml", place.policy_file()).unwrap();
    let daemon = place.start(&[]);

    // Written in place.
    fs::write(place.path("..v1/routes.yaml"), text("sock2")).unwrap();
    assert!(place.expect("READY=1").contains("policy generation 2 "));
    place.connect("sock2");

    // Written anew and renamed, as editors do.
    fs::write(place.path("..v1/new"), text("sock3")).unwrap();
    fs::rename(place.path("..v1/new"), place.path("..v1/routes.yaml")).unwrap();
    assert!(place.expect("READY=1").contains("policy generation 3 "));
    place.connect("sock3");

    // A directory of links is switched at once.
    version("..v2", &text("sock4"));
    symlink("..v2", place.path("..data_tmp")).unwrap();
    fs::rename(place.path("..data_tmp"), place.path("..data")).unwrap();
    assert!(place.expect("READY=1").contains("policy generation 4 "));
    place.connect("sock4");

    // Written again with the same content: no news. Broken: the old one stays.
    fs::write(place.path("..v2/routes.yaml"), text("sock4")).unwrap();
    fs::write(place.path("..v2/routes.yaml"), "version: [").unwrap();
    let ready = place.expect("READY=1");
    assert!(ready.contains("policy generation 4 "), "{ready}");
    assert!(ready.contains("reload failed"), "{ready}");

    // A plain file takes the place of the links.
    fs::write(place.path("new"), text("sock5")).unwrap();
    fs::rename(place.path("new"), place.policy_file()).unwrap();
    assert!(place.expect("READY=1").contains("policy generation 5 "));
    place.connect("sock5");
    assert_eq!(daemon.log().matches("reloaded: ").count(), 4);
}

#[test]
fn the_socket_of_a_killed_daemon_is_taken_over() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let mut daemon = place.start(&[]);
    daemon.signal(Signal::SIGKILL);
    daemon.ended();
    assert!(place.path("run/sock").exists());
    let _daemon = place.start(&[]);
    place.connect("run/sock");
}

#[test]
fn the_socket_of_a_living_daemon_is_not_stolen() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let _first = place.start(&[]);
    let mut command = place.command(PROGRAM, "second-log");
    command.arg("-f").arg(place.policy_file());
    let mut second = Daemon::new(command, place.path("second-log"));
    assert_eq!(second.ended().code(), Some(1));
    let expected = format!(
        "{}: another daemon is listening",
        place.path("run/sock").display()
    );
    assert!(second.log().contains(&expected), "{}", second.log());
    assert!(is_open(&place.connect("run/sock")));
}

#[test]
fn of_many_daemons_started_at_once_one_serves() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    // A stale socket makes the race harder.
    fs::create_dir(place.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.path("run/sock")).unwrap());
    let mut daemons: Vec<Daemon> = (0..8)
        .map(|index| {
            let log = format!("log-{index}");
            let mut command = place.command(PROGRAM, &log);
            command.arg("-f").arg(place.policy_file());
            Daemon::new(command, place.path(&log))
        })
        .collect();
    place.expect("READY=1");
    eventually("all but one give up", || {
        let running = daemons
            .iter_mut()
            .filter_map(|daemon| daemon.is_running().then_some(()));
        (running.count() == 1).then_some(())
    });
    let winner = daemons
        .iter_mut()
        .find_map(|daemon| daemon.is_running().then_some(daemon));
    let winner = winner.unwrap();
    let before = winner.sockets();
    let _client = place.connect("run/sock");
    eventually("the one that is left accepts", || {
        (winner.sockets().len() == before.len() + 1).then_some(())
    });
}

/// A process that is no child of ours, ended even if the test fails.
struct KilledInTheEnd(i32);

impl Drop for KilledInTheEnd {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

#[test]
fn in_the_background_it_is_ready_when_the_command_returns() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let pid_file = place.path("pid");
    let run = |log: &str| {
        place
            .command(PROGRAM, log)
            .args(["-d", "-f", "routes.yaml", "-p", "pid"])
            .current_dir(place.path(""))
            .stdout(Stdio::piped())
            .output()
            .unwrap()
    };
    let output = run("log");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"");
    place.connect("run/sock");
    let pid: i32 = fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let _killed = KilledInTheEnd(pid);
    let proc = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
    for fd in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(proc(fd), Path::new("/dev/null"));
    }
    assert_eq!(proc("cwd"), Path::new("/"));
    let session = nix::unistd::getsid(Some(Pid::from_raw(pid))).unwrap();
    assert_eq!(session.as_raw(), pid);

    let second = run("second-log");
    assert_eq!(second.status.code(), Some(1));
    let log = fs::read_to_string(place.path("second-log")).unwrap();
    assert!(log.contains("another virtproxyd is running"), "{log}");

    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    eventually("the pid file is removed", || {
        (!pid_file.exists()).then_some(())
    });
}

#[test]
fn in_the_background_a_failed_start_is_told() {
    let place = Place::new();
    fs::write(place.policy_file(), "listeners: [").unwrap();
    let status = place
        .command(PROGRAM, "log")
        .args(["-d", "-p"])
        .arg(place.path("pid"))
        .arg("-f")
        .arg(place.policy_file())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(log.starts_with("virtproxyd: "), "{log}");
    assert!(!place.path("pid").exists());
}

#[test]
fn without_clients_it_ends_after_the_timeout() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let mut daemon = place.start(&["--timeout", "1"]);
    let client = place.connect("run/sock");
    drop(client);
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(daemon.log().contains("no client for long enough"));
    assert!(!place.path("run/sock").exists());
}

#[test]
fn the_watchdog_is_fed() {
    let place = Place::new();
    place.write_policy("workers: 3", &[MAIN]);
    let mut command = place.command(PROGRAM, "log");
    command
        .env("WATCHDOG_USEC", "300000")
        .arg("-f")
        .arg(place.policy_file());
    let daemon = Daemon::new(command, place.path("log"));
    for _ in 0..3 {
        place.expect("WATCHDOG=1");
    }
    // A stopped process answers nothing, so nothing may be claimed for it.
    daemon.signal(Signal::SIGSTOP);
    eventually("it stands still", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
        stat.contains(") T ").then_some(())
    });
    place.notified();
    daemon.signal(Signal::SIGCONT);
    place.expect("WATCHDOG=1");
}

#[test]
fn no_more_clients_are_accepted_than_allowed() {
    let place = Place::new();
    place.write_policy(
        "max_clients: 1",
        &[MAIN, "b: { unix: $DIR/b, mode: \"0600\" }"],
    );
    let daemon = place.start(&[]);
    let idle = daemon.sockets().len();
    let first = place.connect("run/sock");
    let with_first = eventually("the first is accepted", || {
        Some(daemon.sockets()).filter(|sockets| sockets.len() == idle + 1)
    });
    let second = place.connect("b");
    // Once this is answered, the main thread has had its chance to accept the second.
    for _ in 0..3 {
        daemon.signal(Signal::SIGHUP);
        place.expect("READY=1");
    }
    assert_eq!(daemon.sockets(), with_first);
    drop(first);
    eventually("the second is accepted", || {
        let sockets = daemon.sockets();
        (sockets.len() == idle + 1 && sockets != with_first).then_some(())
    });
    drop(second);
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let place = Place::new();
    place.write_policy("workers: 1", &[MAIN]);
    let mut command = place.command("prlimit", "log");
    command
        .args(["--nofile=50:50", PROGRAM, "-f"])
        .arg(place.policy_file());
    let mut daemon = Daemon::new(command, place.path("log"));
    place.expect("READY=1");
    // Have the names of this user looked up while there are descriptors for that.
    drop(place.connect("run/sock"));
    for episode in 1..=2 {
        let clients: Vec<UnixStream> = (0..80).map(|_| place.connect("run/sock")).collect();
        let count = |text: &str| daemon.log().matches(text).count();
        eventually("it runs out", || {
            (count("cannot accept clients") == episode).then_some(())
        });
        drop(clients);
        eventually("it accepts again", || {
            (count("accepting clients again") == episode).then_some(())
        });
    }
    assert!(daemon.is_running());
    assert_eq!(daemon.log().matches("cannot accept clients").count(), 2);
}

#[test]
fn clients_leave_no_descriptor_behind() {
    let place = Place::new();
    place.write_policy("workers: 2", &[MAIN]);
    let daemon = place.start(&[]);
    let descriptors = || shell::descriptors(daemon.pid());
    let before = descriptors();
    for _ in 0..10 {
        let clients: Vec<UnixStream> = (0..50).map(|_| place.connect("run/sock")).collect();
        eventually("all are accepted", || {
            (descriptors() >= before + 50).then_some(())
        });
        drop(clients);
        eventually("all are gone", || (descriptors() == before).then_some(()));
    }
    daemon.signal(Signal::SIGHUP);
    place.expect("READY=1");
    assert_eq!(descriptors(), before);
}

#[test]
fn wrong_usage_is_told_by_exit_code_two() {
    let code = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(code(&["--nonsense"]).0, Some(2));
    assert_eq!(code(&["--timeout", "0"]).0, Some(2));
    let (listen, message) = code(&["-l"]);
    assert_eq!(listen, Some(2));
    assert!(message.contains("--listen"), "{message}");
    assert_eq!(code(&["-V"]), (Some(0), String::new()));
    assert_eq!(code(&["-h"]).0, Some(0));
}

#[test]
fn a_named_policy_file_must_exist() {
    let place = Place::new();
    let mut daemon = place.spawn(&[]);
    assert_eq!(daemon.ended().code(), Some(1));
    assert!(daemon.log().contains("routes.yaml"), "{}", daemon.log());
}
