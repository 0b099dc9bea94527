#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is the failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::policy::model;
use crate::server::auth::passwords::Passwords;
use crate::server::auth::sasl::{Channel, Exchange, ExternalUser, Outcome, SaslConfig};
use crate::server::auth::verifier::{Hash, ITERATIONS_MIN, Verifier};

struct Case {
    _dir: tempfile::TempDir,
    password_file: PathBuf,
    server: SaslConfig,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let password_file = dir.path().join("password");
        let case = Self {
            _dir: dir,
            password_file,
            server: SaslConfig {
                mechanisms: Mechanism::ALL.to_vec(),
                passwords: Arc::new(Passwords::parse(&users()).unwrap()),
                external_user: ExternalUser::default(),
                min_ssf: 56,
            },
        };
        case.write("pencil\nnothing of this counts\n", 0o600);
        case
    }

    fn write(&self, text: &str, mode: u32) {
        fs::write(&self.password_file, text).unwrap();
        fs::set_permissions(&self.password_file, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn sasl(&self, mechanisms: &[model::Mechanism]) -> Arc<ClientSasl> {
        Arc::new(ClientSasl {
            mechanisms: mechanisms.to_vec(),
            user: Some("proxy".to_owned()),
            password_file: Some(self.password_file.clone()),
        })
    }

    fn client(&self, mechanisms: &[model::Mechanism], over: Over) -> ClientExchange {
        ClientExchange::new(self.sasl(mechanisms), over, "localhost")
    }

    /// The whole exchange with our own server; the user that it has proven.
    fn run(&self, client: &mut ClientExchange, last_apart: bool) -> Result<String, String> {
        let channel = Channel::Unix;
        let offer = ClientSaslInput::Mechanisms("GSSAPI,SCRAM-SHA-256,SCRAM-SHA-512,PLAIN".into());
        let ClientSaslOutput::Start(mechanism, first) = client.step(&offer)? else {
            panic!("no start");
        };
        let (mut server, mut outcome) =
            Exchange::start(&self.server, &channel, &mechanism, first.as_deref());
        loop {
            let (input, proven) = match outcome {
                Outcome::Continue(data) => (ClientSaslInput::Challenge(data), None),
                Outcome::Done { data, user, .. } if last_apart => {
                    client.step(&ClientSaslInput::Challenge(data))?;
                    (ClientSaslInput::Complete(None), Some(user))
                }
                Outcome::Done { data, user, .. } => (ClientSaslInput::Complete(data), Some(user)),
                Outcome::Failed(failure) => return Err(failure.to_string()),
            };
            match client.step(&input)? {
                ClientSaslOutput::Step(data) => outcome = server.step(data.as_deref()),
                ClientSaslOutput::Done { layer } => {
                    assert!(!layer);
                    return Ok(proven.unwrap());
                }
                ClientSaslOutput::Start(..) => panic!("two starts"),
            }
        }
    }
}

fn users() -> String {
    let password = PreparedPassword::new("pencil").unwrap();
    Hash::ALL
        .map(|hash| {
            let verifier = Verifier::new(hash, ITERATIONS_MIN, &password).unwrap();
            format!("proxy:{verifier}\n")
        })
        .concat()
}

const PASSWORDS: [model::Mechanism; 3] = [
    model::Mechanism::ScramSha512,
    model::Mechanism::ScramSha256,
    model::Mechanism::Plain,
];

#[test]
fn every_mechanism_with_a_password_meets_our_own_server() {
    let case = Case::new();
    for mechanism in PASSWORDS {
        let mut client = case.client(&[mechanism], Over::Unix);
        assert_eq!(case.run(&mut client, false).unwrap(), "proxy");
    }
    // A daemon that proves itself before it says that it is done.
    let mut client = case.client(&PASSWORDS, Over::Tls);
    assert_eq!(case.run(&mut client, true).unwrap(), "proxy");

    // The file is read anew for each exchange.
    case.write("pencil2", 0o600);
    for mechanism in PASSWORDS {
        let mut client = case.client(&[mechanism], Over::Unix);
        let why = case.run(&mut client, false).unwrap_err();
        assert!(why.contains("wrong password"), "{why}");
    }
}

#[test]
fn the_first_mechanism_of_the_policy_that_is_offered_and_suits_is_taken() {
    let case = Case::new();
    let chosen = |mechanisms: &[model::Mechanism], over, offered: &str| {
        let offer = ClientSaslInput::Mechanisms(offered.to_owned());
        match case.client(mechanisms, over).step(&offer) {
            Ok(ClientSaslOutput::Start(mechanism, Some(first))) => Ok((mechanism, first)),
            Ok(other) => panic!("{other:?}"),
            Err(why) => Err(why),
        }
    };
    let all = "PLAIN,SCRAM-SHA-256 SCRAM-SHA-512,EXTERNAL";
    let name = |chosen: Result<(String, Vec<u8>), String>| chosen.unwrap().0;
    assert_eq!(name(chosen(&PASSWORDS, Over::Tls, all)), "SCRAM-SHA-512");
    let plain = chosen(&PASSWORDS, Over::Unix, "SCRAM-SHA-1 PLAIN").unwrap();
    assert_eq!(plain, ("PLAIN".to_owned(), b"\0proxy\0pencil".to_vec()));
    let external = chosen(&[model::Mechanism::External], Over::Tls, all).unwrap();
    assert_eq!(external, ("EXTERNAL".to_owned(), Vec::new()));
    for (mechanisms, over, offered) in [
        (&PASSWORDS[..], Over::Tcp, all),
        (&PASSWORDS[..], Over::Tls, "SCRAM-SHA-1"),
        (&PASSWORDS[..], Over::Tls, ""),
        (&[model::Mechanism::External][..], Over::Unix, all),
    ] {
        let why = chosen(mechanisms, over, offered).unwrap_err();
        assert!(why.contains("no SASL mechanism"), "{why}");
    }
}

#[test]
fn a_daemon_that_does_not_prove_itself_is_no_daemon() {
    let case = Case::new();
    let offer = ClientSaslInput::Mechanisms("SCRAM-SHA-256".to_owned());
    let complete = |data: &[u8]| ClientSaslInput::Complete(Some(data.to_vec()));

    // Before any challenge.
    let mut client = case.client(&PASSWORDS, Over::Unix);
    client.step(&offer).unwrap();
    client.step(&complete(b"")).unwrap_err();
    client.step(&ClientSaslInput::Challenge(None)).unwrap_err();

    // After one.
    for last in [ClientSaslInput::Complete(None), complete(b"v=AAAA")] {
        let mut client = case.client(&PASSWORDS, Over::Unix);
        let Ok(ClientSaslOutput::Start(_, Some(first))) = client.step(&offer) else {
            panic!("no start");
        };
        let nonce = String::from_utf8(first).unwrap();
        let nonce = nonce.split("r=").last().unwrap().to_owned();
        let challenge = format!("r={nonce}x,s=AAAAAAAAAAA=,i=4096").into_bytes();
        client
            .step(&ClientSaslInput::Challenge(Some(challenge)))
            .unwrap();
        let why = client.step(&last).unwrap_err();
        assert_eq!(why, "the daemon does not know the password itself");
        client.step(&complete(b"")).unwrap_err();
    }
    // Nothing of any length.
    let mut client = case.client(&PASSWORDS, Over::Unix);
    client.step(&offer).unwrap();
    client.step(&complete(&[0; DATA_MAX + 1])).unwrap_err();
}

#[test]
fn a_password_file_that_others_can_read_or_that_has_none_is_found() {
    let case = Case::new();
    let sasl = case.sasl(&PASSWORDS);
    assert_eq!(check(&sasl), []);
    for (text, mode) in [("pencil", 0o644), ("\nx", 0o600), ("", 0o600)] {
        case.write(text, mode);
        let [found] = &check(&sasl)[..] else {
            panic!("{text:?}");
        };
        assert_eq!(found.key, "password_file");
        let offer = ClientSaslInput::Mechanisms("PLAIN".to_owned());
        let why = case
            .client(&PASSWORDS, Over::Unix)
            .step(&offer)
            .unwrap_err();
        assert_eq!(why, found.message);
        assert!(!why.contains("pencil"));
    }
}
