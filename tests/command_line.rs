//! The commands about the policy file, and the defaults of the command line.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed set-up step should stop the test"
)]

mod shell;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use shell::{Daemon, PROGRAM, Place, mode};

const MAIN: &str = "main: { unix: $DIR/sock, mode: \"0600\" }";
const RO: &str = "ro: { unix: $DIR/ro, mode: \"0666\", readonly: true }";

fn run(place: &Place, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .current_dir(place.path(""))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_tells_good_from_bad_by_its_exit_code() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let output = run(&place, &["check", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "routes.yaml: no problems\n");

    let broken = place
        .policy_text("drain: 1s", &[MAIN])
        .replace("upstream: qemu", "upstream: qemud");
    fs::write(place.policy_file(), broken).unwrap();
    let output = run(&place, &["check", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(report.contains("routes.yaml:8:"), "{report}");
    assert!(report.contains("did you mean `qemu`?"), "{report}");

    let output = run(&place, &["check", "--format", "json", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report[0]["line"], 8);
    assert_eq!(report[0]["severity"], "error");

    let output = run(&place, &["check", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("absent.yaml"));
}

#[test]
fn check_takes_warnings_as_errors_when_asked() {
    let place = Place::new();
    // Nobody is sent there.
    let warned = place.policy_text("drain: 1s", &[MAIN]).replace(
        "upstreams:\n",
        "upstreams:\n  unused: { unix: /run/unused }\n",
    );
    fs::write(place.policy_file(), warned).unwrap();
    let output = run(&place, &["check", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("warning"));
    let output = run(&place, &["check", "--deny-warnings", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn schema_prints_the_schema_that_is_shipped() {
    let place = Place::new();
    let output = run(&place, &["schema"]);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/routes.schema.json");
    assert_eq!(text(&output.stdout), fs::read_to_string(shipped).unwrap());
}

#[test]
fn a_reader_that_stops_is_no_failure_and_a_full_disk_is_one() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN]);
    let run = |arguments: &[&str], out: Stdio| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).current_dir(place.path(""));
        let output = command.stdout(out).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let explain = ["explain", "-f", "routes.yaml", "--uri", "nowhere:///"];
    for (arguments, code) in [
        (&["schema"][..], 0),
        (&["check", "routes.yaml"], 0),
        (&["check", "absent.yaml"], 2),
        (&explain, 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(run(arguments, writer.into()), (Some(code), String::new()));
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, message) = run(arguments, full.into());
        assert_eq!(code, Some(1));
        assert!(message.contains("No space left"), "{message}");
    }
}

#[test]
fn explain_names_the_route_and_its_line() {
    let place = Place::new();
    place.write_policy("drain: 1s", &[MAIN, RO]);
    let explain = |arguments: &[&str]| {
        let mut all = vec!["explain", "-f", "routes.yaml", "--uri"];
        all.extend(arguments);
        run(&place, &all)
    };
    let output = explain(&["qemu:///system", "--as", "user=root"]);
    assert_eq!(output.status.code(), Some(0));
    let human = text(&output.stdout);
    assert!(
        human.contains("line 9, `qemu:///system`: matches"),
        "{human}"
    );

    let output = explain(&["qemu:///system", "--listener", "ro", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["client"]["readonly"], true);
    assert_eq!(json["asked"]["outcome"]["open"]["upstream"], "qemu");

    assert_eq!(explain(&["lxc:///"]).status.code(), Some(1));
    for wrong in [
        ["qemu:///system", "--as", "nobody=1"],
        ["qemu:///system", "--listener", "absent"],
    ] {
        let output = explain(&wrong);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).starts_with("virtproxyd: --"));
    }
    let output = run(&place, &["explain", "--uri", "", "-f", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn explain_says_whether_a_call_is_allowed_and_by_which_rule() {
    let place = Place::new();
    let policy = place.policy_text("drain: 1s", &[MAIN]);
    let access = "identities: { acme: { unix: { user: acme } } }
access:
  - { who: acme, allow: [connect:getattr, operator], on: { domain: { name: \"acme-*\" } } }
";
    fs::write(place.policy_file(), format!("{policy}{access}")).unwrap();
    let explain = |call: &[&str]| {
        let client = ["--uri", "qemu:///system", "--as", "user=acme"];
        let all = [&["explain", "-f", "routes.yaml"], &client[..], call].concat();
        let output = run(&place, &all);
        let shown = text(&output.stdout) + &text(&output.stderr);
        (output.status.code(), shown)
    };
    let line = policy.lines().count() + 3;
    for (call, code, expected) in [
        (
            &["domain:start acme-web1"][..],
            0,
            format!("allowed by line {line}"),
        ),
        (
            &["domain:start", "acme-web1"],
            0,
            format!("allowed by line {line}"),
        ),
        (
            &["DOMAIN_CREATE", "globex"],
            1,
            "its name is `globex`, not `acme-*`".into(),
        ),
        (&["domain:start"], 1, "depends on `name`".into()),
        (
            &["domain:strat", "x"],
            2,
            "did you mean `domain:start`?".into(),
        ),
        (
            &["1f2e3d4c-5-1"],
            2,
            "the records of a refusal have them".into(),
        ),
    ] {
        let (found, shown) = explain(call);
        assert_eq!(found, Some(code), "{call:?}: {shown}");
        assert!(shown.contains(&expected), "{call:?}: {shown}");
    }
    let (_, shown) = explain(&["domain:delete", "acme-1", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(json["access"]["verdict"], "refused");
    let output = run(
        &place,
        &["explain", "-f", "routes.yaml", "domain:start", "x"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--uri is needed"));
}

#[test]
fn a_policy_whose_tests_fail_is_refused() {
    let place = Place::new();
    let policy = place.policy_text("drain: 1s", &[MAIN]);
    let test = "tests:
  - { as: { unix: { user: a } }, uri: \"qemu:///system\", cannot: connect:getattr }
";
    fs::write(place.policy_file(), format!("{policy}{test}")).unwrap();
    let output = run(&place, &["check", "routes.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(
        report.contains("this client can `connect:getattr`"),
        "{report}"
    );
}

/// Copies a program that is to be run. By another process: while this one writes a file, whatever
/// another thread of it starts holds the file open for a moment, and what is being written cannot be
/// run.
fn copy_program(from: &str, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// Runs the daemon as a user without a policy file, with these variables beside `HOME`; as user
/// 65534 if we are root.
fn start_as_user(place: &Place, variables: &[(&str, &str)]) -> Daemon {
    let root = nix::unistd::geteuid().is_root();
    let mut command = place.command(if root { "setpriv" } else { PROGRAM }, "log");
    if root {
        // The program as built may lie where the user cannot reach it.
        let program = place.path("virtproxyd");
        copy_program(PROGRAM, &program);
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.path("notify"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(place.path("home")).unwrap();
        chown(place.path("home"), Some(65534), Some(65534)).unwrap();
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(program);
    } else {
        fs::create_dir(place.path("home")).unwrap();
    }
    command
        .env("HOME", place.path("home"))
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_RUNTIME_DIR");
    for (name, value) in variables {
        command.env(name, place.path(value));
    }
    let daemon = Daemon::new(command, place.path("log"));
    place.expect("READY=1");
    daemon
}

#[test]
fn a_user_without_a_policy_file_gets_a_socket_where_clients_look() {
    let place = Place::new();
    let daemon = start_as_user(&place, &[("XDG_RUNTIME_DIR", "home/run")]);
    assert_eq!(mode(&place.path("home/run/libvirt/libvirt-sock")), 0o600);
    assert_eq!(mode(&place.path("home/run/libvirt")), 0o700);
    assert!(daemon.log().contains("built-in policy"), "{}", daemon.log());
}

#[test]
fn without_a_runtime_directory_the_cache_takes_its_place() {
    let place = Place::new();
    let _daemon = start_as_user(&place, &[]);
    assert_eq!(mode(&place.path("home/.cache/libvirt/libvirt-sock")), 0o600);
}
