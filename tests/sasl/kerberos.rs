//! GSSAPI with a real KDC and real tickets.
//!
//! The Kerberos library finds its realm and keytab in the environment, which a process with threads
//! cannot change. So the one test that is run by itself sets a realm up, and runs the tests of
//! [`inside`] in processes that have it in their environment.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::kdc::Kdc;

#[test]
fn tickets_of_a_real_kdc_are_taken() {
    let kdc = Kdc::start();
    kdc.log_in();
    let run = |name: &str, changed: &[(&str, PathBuf)]| {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", &format!("kerberos::inside::{name}")])
            .envs(kdc.environment())
            .envs(changed.iter().cloned())
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&status.stdout);
        // A name that matches no test is no success.
        let passed = status.status.success() && output.contains("1 passed");
        assert!(passed, "{name}: {output}");
    };
    for name in [
        "plain_tcp_is_encrypted",
        "a_changed_repeated_or_lost_buffer_is_an_error",
        "a_safe_channel_needs_no_layer",
        "nobody_acts_as_another_user",
        "weaker_layers_are_refused",
        "garbage_is_refused",
        "a_keytab_with_the_service_is_fine",
    ] {
        run(name, &[]);
    }
    let no_ticket = [("KRB5CCNAME", kdc.path("nobody"))];
    run("a_client_without_a_ticket_gives_up", &no_ticket);
    let old_keys = [("KRB5_CONFIG", kdc.path("weak.conf"))];
    run("keys_of_rc4_are_refused", &old_keys);
    for keytab in ["other.keytab", "missing.keytab"] {
        let keytab = [("KRB5_KTNAME", kdc.path(keytab))];
        run("a_keytab_without_the_service_is_told", &keytab);
    }
}

mod inside {
    use std::sync::Arc;

    use virtproxyd::server::auth::gssapi::check_keytab;
    use virtproxyd::server::auth::passwords::Passwords;
    use virtproxyd::server::auth::sasl::{
        Channel, Exchange, ExternalUser, Failure, Mechanism, Outcome, SaslConfig, SecurityLayer,
    };

    use crate::cyrus::{Client, End, Setup, authenticate};
    use crate::kdc::REALM;

    /// What libvirt's client asks for on plain TCP.
    const STRONG: [u32; 2] = [56, 100_000];

    fn config() -> SaslConfig {
        SaslConfig {
            mechanisms: vec![Mechanism::Gssapi],
            passwords: Arc::new(Passwords::default()),
            external_user: ExternalUser::default(),
            min_ssf: 56,
        }
    }

    fn setup(ssf: [u32; 2]) -> Setup<'static> {
        Setup {
            mechanisms: "GSSAPI",
            ssf,
            ..Setup::default()
        }
    }

    fn alice() -> String {
        format!("alice@{REALM}")
    }

    fn encrypted() -> (Client, Box<dyn SecurityLayer>) {
        let mut client = Client::start(&setup(STRONG));
        match authenticate(&mut client, &config(), Channel::Tcp) {
            End::Done {
                user,
                mechanism: "GSSAPI",
                layer: Some(layer),
                ssf: 256,
            } if user == alice() => (client, layer),
            other => panic!("{other:?}"),
        }
    }

    /// The tokens in some bytes of the wire.
    fn tokens(mut wire: &[u8]) -> Vec<&[u8]> {
        let mut tokens = Vec::new();
        while let Some((length, rest)) = wire.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            let (token, rest) = rest.split_at(length);
            tokens.push(token);
            wire = rest;
        }
        assert!(wire.is_empty());
        tokens
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn plain_tcp_is_encrypted() {
        let (mut client, mut layer) = encrypted();
        let most = layer.max_plain();
        assert!(most > 60_000, "{most}");
        let plain: Vec<u8> = (0..most).map(|number| (number % 251) as u8).collect();
        for length in [1, 28, 4096, most - 1, most] {
            let plain = &plain[..length];
            let mut wire = Vec::new();
            layer.encode(plain, &mut wire).unwrap();
            assert!(wire.len() <= 4 + layer.max_token());
            if length > 16 {
                assert!(!wire.windows(16).any(|window| window == &plain[..16]));
            }
            assert_eq!(client.decode(&wire).unwrap(), plain);

            let wire = client.encode(plain);
            let mut decoded = Vec::new();
            for token in tokens(&wire) {
                assert!(token.len() <= layer.max_token());
                layer.decode(token, &mut decoded).unwrap();
            }
            assert_eq!(decoded, plain);
        }
        let mut wire = Vec::new();
        layer.encode(&[0; 65_536], &mut wire).unwrap_err();
        assert!(wire.is_empty());
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn a_changed_repeated_or_lost_buffer_is_an_error() {
        let decode = |change: &dyn Fn(&mut Client, Vec<u8>) -> Vec<u8>| {
            let (mut client, mut layer) = encrypted();
            let first = client.encode(b"first");
            layer.decode(&first[4..], &mut Vec::new()).unwrap();
            let next = change(&mut client, first);
            let mut out = Vec::new();
            let error = layer.decode(&next[4..], &mut out).unwrap_err();
            assert!(out.is_empty());
            error
        };
        decode(&|_, first| first);
        decode(&|client, _| {
            client.encode(b"lost");
            client.encode(b"third")
        });
        for place in [4, 6, 12, 30] {
            decode(&|client, _| {
                let mut wire = client.encode(b"second");
                wire[place] ^= 1;
                wire
            });
        }
        // Not encrypted, though its checksum may be right: the flag alone decides.
        let error = decode(&|client, _| {
            let mut wire = client.encode(b"second");
            wire[6] &= !2;
            wire
        });
        assert!(error.to_string().contains("not encrypted"), "{error}");
        decode(&|_, _| vec![0; 4]);
        decode(&|client, _| client.encode(b"second")[..20].to_vec());
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn a_safe_channel_needs_no_layer() {
        for channel in [Channel::Unix, Channel::Tls(None)] {
            let mut client = Client::start(&setup([0, 0]));
            match authenticate(&mut client, &config(), channel) {
                End::Done {
                    user,
                    layer: None,
                    ssf: 0,
                    ..
                } => assert_eq!(user, alice()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn nobody_acts_as_another_user() {
        let run = |authzid| {
            let setup = Setup {
                authzid,
                ..setup(STRONG)
            };
            authenticate(&mut Client::start(&setup), &config(), Channel::Tcp)
        };
        for own in ["alice", "alice@EXAMPLE.TEST"] {
            match run(own) {
                End::Done { user, .. } => assert_eq!(user, alice()),
                other => panic!("{other:?}"),
            }
        }
        for other in ["root", "alice@OTHER.TEST", "bob"] {
            match run(other) {
                End::Refused(failure) => {
                    assert_eq!(failure, Failure::NotSelf { user: alice() });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn weaker_layers_are_refused() {
        // Integrity alone, or nothing: not among what is offered on plain TCP.
        for ssf in [[0, 1], [0, 0]] {
            let end = authenticate(&mut Client::start(&setup(ssf)), &config(), Channel::Tcp);
            assert!(matches!(end, End::GaveUp(_) | End::Refused(_)), "{end:?}");
        }
        let strict = SaslConfig {
            min_ssf: 256,
            ..config()
        };
        match authenticate(&mut Client::start(&setup(STRONG)), &strict, Channel::Tcp) {
            End::Refused(Failure::Gssapi(reason)) => assert!(reason.contains("128 bits")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn garbage_is_refused() {
        let tokens: [&[u8]; 6] = [
            b"",
            b"\0",
            b"\x60",
            b"\x60\x84\xFF\xFF\xFF\xFF",
            b"\x60\x82\x02\x01\x06\x09\x2A\x86\x48\x86\xF7\x12\x01\x02\x02\x01\x00",
            &[0x60; 65_536],
        ];
        for token in tokens {
            let (_, outcome) = Exchange::start(&config(), &Channel::Tcp, "GSSAPI", Some(token));
            assert!(
                matches!(outcome, Outcome::Failed(Failure::Gssapi(_))),
                "{outcome:?}"
            );
        }
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn a_keytab_with_the_service_is_fine() {
        check_keytab().unwrap();
    }

    #[test]
    #[ignore = "run by the test above with a realm, but another keytab"]
    fn a_keytab_without_the_service_is_told() {
        assert!(matches!(check_keytab().unwrap_err(), Failure::Gssapi(_)));
        let (_, outcome) = Exchange::start(&config(), &Channel::Tcp, "GSSAPI", None);
        assert!(matches!(outcome, Outcome::Failed(Failure::Gssapi(_))));
    }

    #[test]
    #[ignore = "run by the test above with a realm, but no ticket"]
    fn a_client_without_a_ticket_gives_up() {
        match authenticate(&mut Client::start(&setup(STRONG)), &config(), Channel::Tcp) {
            End::GaveUp(_) => {}
            other => panic!("{other:?}"),
        }
    }

    #[test]
    #[ignore = "run by the test above with a realm"]
    fn keys_of_rc4_are_refused() {
        let old = Setup {
            host: "oldhost",
            ..setup(STRONG)
        };
        match authenticate(&mut Client::start(&old), &config(), Channel::Tcp) {
            End::Refused(Failure::Gssapi(reason)) => assert!(reason.contains("weak"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}
