//! SCRAM, PLAIN and EXTERNAL with passwords that the program itself wrote.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use virtproxyd::policy::facts::X509Facts;
use virtproxyd::server::auth::passwords::Passwords;
use virtproxyd::server::auth::sasl::{Channel, ExternalUser, Failure, Mechanism, SaslConfig};

use crate::cyrus::{Client, End, Setup, authenticate};

/// `virtproxyd passwd` with these arguments and this standard input.
fn passwd(file: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virtproxyd"))
        .arg("passwd")
        .arg(file)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no password may have ended by now.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn set(file: &Path, user: &str, password: &str) {
    let output = passwd(file, &[user], &format!("{password}\n"));
    assert!(output.status.success(), "{output:?}");
}

fn config(users: &[(&str, &str)]) -> SaslConfig {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    for (user, password) in users {
        set(&file, user, password);
    }
    SaslConfig {
        mechanisms: Mechanism::ALL.to_vec(),
        passwords: Arc::new(Passwords::read_if_there(&file).unwrap()),
        external_user: ExternalUser::default(),
        min_ssf: 56,
    }
}

fn run(config: &SaslConfig, setup: &Setup<'_>) -> End {
    authenticate(&mut Client::start(setup), config, Channel::Unix)
}

#[track_caller]
fn assert_user(end: End, expected: &str, by: &str) {
    match end {
        End::Done {
            user,
            mechanism,
            layer: None,
            ssf: 0,
        } => assert_eq!((user.as_str(), mechanism), (expected, by)),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(end: End, expected: &Failure) {
    match end {
        End::Refused(failure) => assert_eq!(&failure, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_password_is_proven_by_each_mechanism() {
    let config = config(&[("alice", "pencil")]);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] {
        let setup = Setup {
            mechanisms: mechanism,
            ..Setup::default()
        };
        assert_user(run(&config, &setup), "alice", mechanism);
        let wrong = Setup {
            password: "pen",
            ..setup.clone()
        };
        assert_refused(
            run(&config, &wrong),
            &Failure::WrongPassword("alice".into()),
        );
        let unknown = Setup {
            user: "bob",
            ..setup
        };
        assert_refused(run(&config, &unknown), &Failure::UnknownUser("bob".into()));
    }
}

#[test]
fn the_whole_list_leads_to_a_mechanism() {
    let config = config(&[("alice", "pencil")]);
    let list = config.mechanism_list(&Channel::Unix);
    let setup = Setup {
        mechanisms: &list.replace("GSSAPI,", ""),
        ..Setup::default()
    };
    assert_user(run(&config, &setup), "alice", "SCRAM-SHA-512");
}

#[test]
fn names_and_passwords_of_all_kinds() {
    let users = [
        ("a,b=c", "=2C,="),
        ("Jos\u{e9}", "p\u{e4}ss w\u{f6}rd"),
        ("alice@example.com", " spaces "),
    ];
    let config = config(&users);
    // A letter and an accent are the letter with the accent.
    let sent = users.map(|(user, password)| (user, user.replace('\u{e9}', "e\u{301}"), password));
    for (user, sent, password) in sent {
        let setup = Setup {
            user: &sent,
            password,
            ..Setup::default()
        };
        assert_user(run(&config, &setup), user, "SCRAM-SHA-256");
    }
}

#[test]
fn nobody_acts_as_another_user() {
    let config = config(&[("alice", "pencil"), ("root", "pencil")]);
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let own = Setup {
            mechanisms: mechanism,
            authzid: "alice",
            ..Setup::default()
        };
        assert_user(run(&config, &own), "alice", mechanism);
        let other = Setup {
            authzid: "root",
            ..own
        };
        let expected = Failure::NotSelf {
            user: "alice".into(),
        };
        assert_refused(run(&config, &other), &expected);
    }
}

#[test]
fn a_client_that_wants_a_layer_gives_up() {
    let config = config(&[("alice", "pencil")]);
    let setup = Setup {
        ssf: [56, 100_000],
        ..Setup::default()
    };
    match run(&config, &setup) {
        End::GaveUp(reason) => assert!(reason.contains("mech"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_names_its_user() {
    let config = config(&[]);
    let certificate = X509Facts {
        cn: vec!["ci".into()],
        ..X509Facts::default()
    };
    let run = |authzid| {
        let setup = Setup {
            mechanisms: "EXTERNAL",
            user: "ci",
            authzid,
            ..Setup::default()
        };
        let channel = Channel::Tls(Some(&certificate));
        authenticate(&mut Client::start(&setup), &config, channel)
    };
    for authzid in ["", "ci"] {
        match run(authzid) {
            End::Done {
                user, mechanism, ..
            } => {
                assert_eq!((user.as_str(), mechanism), ("ci", "EXTERNAL"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_refused(run("root"), &Failure::NotSelf { user: "ci".into() });
}

#[test]
fn the_command_edits_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("passwords");
    let list = || String::from_utf8(passwd(&file, &["--list"], "").stdout).unwrap();
    set(&file, "alice", "pencil");
    let only = [
        "bob",
        "--mechanism",
        "scram-sha-256",
        "--iterations",
        "4096",
    ];
    assert!(passwd(&file, &only, "x").status.success());
    assert_eq!(
        list(),
        "alice: SCRAM-SHA-256, SCRAM-SHA-512\nbob: SCRAM-SHA-256\n"
    );
    assert!(passwd(&file, &["alice", "--delete"], "").status.success());
    assert_eq!(list(), "bob: SCRAM-SHA-256\n");
    let before = std::fs::read(&file).unwrap();
    for (arguments, input) in [
        (&["alice", "--delete"][..], ""),
        (&["a:b"], "x\n"),
        (&[""], "x\n"),
        (&["bob"], ""),
        (&["bob"], "\n"),
        (&["bob"], "a\u{7}b\n"),
        (&["bob"], &"a".repeat(1025)),
        (&["bob", "--iterations", "4095"], "x\n"),
        (&["bob", "--mechanism", "PLAIN"], "x\n"),
        (&["bob", "--list"], ""),
        (&[], "x\n"),
    ] {
        let output = passwd(&file, arguments, input);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert_eq!(std::fs::read(&file).unwrap(), before, "{arguments:?}");
    }
}
