//! The server's side of SCRAM (RFC 5802, RFC 7677) against stored verifiers, without channel
//! binding.
//!
//! Two steps: the client's first message names the user, its final one proves the password. An
//! unknown user takes both steps like any other and then fails as a wrong password does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::passwords::{Found, Passwords};
use super::sasl::Failure;
use super::verifier::{Hash, Verifier, prepare_name};

/// Longest nonce of a client in bytes. Clients send some 32.
const NONCE_MAX: usize = 256;

/// Random bytes of our part of the nonce, before base64.
const NONCE: usize = 18;

/// A server that has answered the client's first message.
#[derive(Debug)]
pub(super) struct Challenged {
    user: String,
    authzid: Option<String>,
    verifier: Verifier,
    known: bool,
    /// What the client's `c=` must decode to.
    gs2_header: String,
    /// The client's nonce and ours.
    nonce: String,
    /// The signed text up to the client's final message.
    auth_message: String,
}

/// Takes the client's first message; gives ours.
pub(super) fn challenge(
    passwords: &Passwords,
    hash: Hash,
    message: &[u8],
) -> Result<(Challenged, Vec<u8>), Failure> {
    challenge_with(passwords, hash, message, &fresh_nonce()?)
}

/// Our part of a nonce, on either side.
pub(super) fn fresh_nonce() -> Result<String, Failure> {
    let mut nonce = [0; NONCE];
    SystemRandom::new()
        .fill(&mut nonce)
        .map_err(|_| Failure::NoRandomness)?;
    Ok(BASE64.encode(nonce))
}

fn challenge_with(
    passwords: &Passwords,
    hash: Hash,
    message: &[u8],
    server_nonce: &str,
) -> Result<(Challenged, Vec<u8>), Failure> {
    let first = ClientFirst::parse(message)?;
    let user = prepare_name(&saslname(first.user)?)?;
    let authzid = first.authzid.map(saslname).transpose()?;
    let Found { verifier, known } = passwords
        .find(&user, Some(hash))
        .map_err(|_| Failure::NoRandomness)?;
    let nonce = format!("{}{server_nonce}", first.nonce);
    let reply = format!(
        "r={nonce},s={},i={}",
        BASE64.encode(&verifier.salt),
        verifier.iterations,
    );
    let challenged = Challenged {
        user,
        authzid,
        known,
        gs2_header: first.gs2_header.to_owned(),
        nonce,
        auth_message: format!("{},{reply}", first.bare),
        verifier: verifier.into_owned(),
    };
    Ok((challenged, reply.into_bytes()))
}

impl Challenged {
    /// Takes the client's final message; gives the user, and ours that proves the server.
    pub(super) fn finish(self, message: &[u8]) -> Result<(String, Vec<u8>), Failure> {
        let last = ClientFinal::parse(message)?;
        if last.nonce != self.nonce {
            return Err(Failure::Malformed("not the nonce that was given"));
        }
        if BASE64.decode(last.binding).as_deref() != Ok(self.gs2_header.as_bytes()) {
            return Err(Failure::Malformed("not the GS2 header that was sent first"));
        }
        let proof = BASE64
            .decode(last.proof)
            .map_err(|_| Failure::Malformed("the proof is not in base64"))?;
        let auth_message = format!("{},{}", self.auth_message, last.without_proof);
        let proven = self.verifier.proves(&proof, auth_message.as_bytes());
        if !self.known {
            return Err(Failure::UnknownUser(self.user));
        }
        if !proven {
            return Err(Failure::WrongPassword(self.user));
        }
        let user = Failure::unless_own(self.user, self.authzid.as_deref())?;
        let signature = self.verifier.server_signature(auth_message.as_bytes());
        Ok((user, format!("v={}", BASE64.encode(signature)).into_bytes()))
    }
}

/// `client-first-message` of RFC 5802 section 7.
struct ClientFirst<'a> {
    gs2_header: &'a str,
    /// As it was sent, escapes and all.
    authzid: Option<&'a str>,
    bare: &'a str,
    user: &'a str,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Failure> {
        let form = || Failure::Malformed("not a first message of SCRAM");
        let message = core::str::from_utf8(message).map_err(|_| form())?;
        let (binding, rest) = message.split_once(',').ok_or_else(form)?;
        let (authzid, bare) = rest.split_once(',').ok_or_else(form)?;
        // `y`: the client would bind, but saw no -PLUS mechanism. None is ever offered.
        if !matches!(binding, "n" | "y") {
            return Err(Failure::Malformed("channel binding was not offered"));
        }
        let authzid = match authzid {
            "" => None,
            text => Some(text.strip_prefix("a=").ok_or_else(form)?),
        };
        // A mandatory extension (`m=`) would stand before the user, and is refused with it.
        let (user, rest) = bare
            .strip_prefix("n=")
            .and_then(|rest| rest.split_once(','))
            .ok_or_else(form)?;
        let nonce = rest.split(',').next().unwrap_or_default();
        let nonce = nonce.strip_prefix("r=").ok_or_else(form)?;
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.is_empty() || nonce.len() > NONCE_MAX || !printable {
            return Err(Failure::Malformed("a nonce that is none"));
        }
        Ok(Self {
            gs2_header: message.get(..message.len() - bare.len()).ok_or_else(form)?,
            authzid,
            bare,
            user,
            nonce,
        })
    }
}

/// `client-final-message` of RFC 5802 section 7.
struct ClientFinal<'a> {
    without_proof: &'a str,
    binding: &'a str,
    nonce: &'a str,
    proof: &'a str,
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Failure> {
        let form = || Failure::Malformed("not a final message of SCRAM");
        let message = core::str::from_utf8(message).map_err(|_| form())?;
        // The proof comes last, and base64 has no comma.
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or_else(form)?;
        let mut attributes = without_proof.split(',');
        let mut next = |name| {
            attributes
                .next()
                .and_then(|text| text.strip_prefix(name))
                .ok_or_else(form)
        };
        Ok(Self {
            without_proof,
            binding: next("c=")?,
            nonce: next("r=")?,
            proof,
        })
    }
}

/// Undoes the escapes of a `saslname`: `=2C` is a comma, `=3D` an equals sign.
fn saslname(text: &str) -> Result<String, Failure> {
    let mut parts = text.split('=');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else if let Some(rest) = part.strip_prefix("3D") {
            ('=', rest)
        } else {
            return Err(Failure::Malformed("an unknown escape in a name"));
        };
        name.push(sign);
        name.push_str(rest);
    }
    Ok(name)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
mod tests {
    use super::super::verifier::{ITERATIONS_MIN, PreparedPassword};
    use super::*;

    /// RFC 7677 section 3.
    const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const PROOF: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn passwords() -> Passwords {
        Passwords::parse(&format!("user:{VERIFIER}")).unwrap()
    }

    fn first(message: &[u8]) -> Result<(Challenged, Vec<u8>), Failure> {
        challenge_with(&passwords(), Hash::Sha256, message, SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (server, reply) = first(FIRST).unwrap();
        assert_eq!(reply, CHALLENGE.as_bytes());
        let (user, reply) = server.finish(FINAL.as_bytes()).unwrap();
        assert_eq!(user, "user");
        assert_eq!(reply, PROOF.as_bytes());
    }

    #[test]
    fn a_changed_final_message_fails() {
        let finish = |text: &str| first(FIRST).unwrap().0.finish(text.as_bytes());
        let wrong = finish(&FINAL.replace("p=dHz", "p=dHx")).unwrap_err();
        assert_eq!(wrong, Failure::WrongPassword("user".into()));
        for changed in [
            FINAL.replace("biws", "eSws"),
            FINAL.replace("biws", "biw="),
            FINAL.replace("EkqO%", "EkqP%"),
            FINAL.replace("$k0,", "$k00,"),
            FINAL.replace("dVQ=", "dVQ"),
            FINAL.replace(",p=", ",q="),
            format!("x{FINAL}"),
            format!("{FINAL},x=y"),
            format!("{FINAL}\0"),
            String::new(),
            ",p=".into(),
            "c,r,p=".into(),
        ] {
            let error = finish(&changed).unwrap_err();
            assert!(matches!(error, Failure::Malformed(_)), "{changed}: {error}");
        }
        // A proof of the wrong length.
        let short = finish(&FINAL.replace("p=dHzb", "p=")).unwrap_err();
        assert_eq!(short, Failure::WrongPassword("user".into()));
    }

    #[test]
    fn no_other_byte_and_no_shorter_message_proves_the_same() {
        let proves = |opening: &[u8], last: &[u8]| {
            first(opening).is_ok_and(|(server, _)| server.finish(last).is_ok())
        };
        assert!(proves(FIRST, FINAL.as_bytes()));
        let changed = |message: &[u8]| -> Vec<Vec<u8>> {
            let mut all: Vec<Vec<u8>> = (0..message.len())
                .map(|end| message[..end].into())
                .collect();
            for place in 0..message.len() {
                for bit in 0..8 {
                    let mut copy = message.to_vec();
                    copy[place] ^= 1 << bit;
                    all.push(copy);
                }
            }
            all
        };
        for message in changed(FIRST) {
            assert!(!proves(&message, FINAL.as_bytes()), "{message:?}");
        }
        for message in changed(FINAL.as_bytes()) {
            assert!(!proves(FIRST, &message), "{message:?}");
        }
    }

    #[test]
    fn an_extension_before_the_proof_is_signed_and_else_ignored() {
        let (server, _) = first(FIRST).unwrap();
        let extended = FINAL.replace(",p=", ",x=y,p=");
        let error = server.finish(extended.as_bytes()).unwrap_err();
        assert_eq!(error, Failure::WrongPassword("user".into()));
    }

    #[test]
    fn an_unknown_user_gets_a_challenge_and_then_fails() {
        let message = b"n,,n=nobody,r=rOprNGfwEbeRWgbNEkqO";
        let (server, reply) = first(message).unwrap();
        let reply = String::from_utf8(reply).unwrap();
        assert!(reply.ends_with(",i=4096"));
        assert_eq!(reply.len(), CHALLENGE.len());
        let error = server.finish(FINAL.as_bytes()).unwrap_err();
        assert_eq!(error, Failure::UnknownUser("nobody".into()));
    }

    #[test]
    fn a_first_message_that_is_none_is_refused() {
        for message in [
            "",
            ",",
            "n",
            "n,",
            "n,,",
            "n,,n=user",
            "n,,n=user,",
            "n,,n=user,r=",
            "n,,n=user,r=a b",
            "n,,n=user,r=\u{e9}",
            "n,,r=abc,n=user",
            "n,,m=x,n=user,r=abc",
            "n,user,n=user,r=abc",
            "p=tls-unique,,n=user,r=abc",
            "x,,n=user,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=us=2,r=abc",
        ] {
            let error = first(message.as_bytes()).unwrap_err();
            assert!(matches!(error, Failure::Malformed(_)), "{message}: {error}");
        }
        for message in ["n,,n=,r=abc", "n,,n=\u{7},r=abc", "n,,n=a:b,r=abc"] {
            let error = first(message.as_bytes()).unwrap_err();
            assert!(matches!(error, Failure::Name(_)), "{message}: {error}");
        }
        assert!(first(b"n,,n=\xFF,r=abc").is_err());
        assert!(first(format!("n,,n=user,r={}", "a".repeat(NONCE_MAX)).as_bytes()).is_ok());
        assert!(first(format!("n,,n=user,r={}", "a".repeat(NONCE_MAX + 1)).as_bytes()).is_err());
    }

    #[test]
    fn nonces_of_the_server_differ() {
        let reply = || challenge(&passwords(), Hash::Sha256, FIRST).unwrap().1;
        assert_ne!(reply(), reply());
    }

    #[test]
    fn names_are_unescaped() {
        assert_eq!(saslname("a=2Cb=3D=3D2C").unwrap(), "a,b==2C");
        let verifier = Verifier::new(
            Hash::Sha256,
            ITERATIONS_MIN,
            &PreparedPassword::new("x").unwrap(),
        )
        .unwrap();
        let passwords = Passwords::parse(&format!("a,b=c:{verifier}")).unwrap();
        let (server, _) =
            challenge(&passwords, Hash::Sha256, b"y,a=a=2Cb,n=a=2Cb=3Dc,r=x").unwrap();
        assert!(server.known);
        assert_eq!(server.authzid.as_deref(), Some("a,b"));
    }
}
