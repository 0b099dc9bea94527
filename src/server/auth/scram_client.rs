//! The client's side of SCRAM (RFC 5802, RFC 7677), without channel binding. The daemon must prove
//! that it knows the password's verifier, or the exchange has failed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;

use super::scram;
use super::verifier::{Hash, Keys, PreparedPassword, iterations_in_bounds};

/// Bytes of the salt that a daemon may send.
const SALT_MAX: usize = 1024;

/// `n,,` in base64: no channel is bound.
const NO_BINDING: &str = "biws";

/// A client that has sent its first message.
pub(super) struct Begun {
    hash: Hash,
    bare: String,
    nonce: String,
}

/// Begins for a prepared user name; gives the first message.
pub(super) fn begin(hash: Hash, user: &str) -> Result<(Begun, Vec<u8>), String> {
    let nonce = scram::fresh_nonce().map_err(|failure| failure.to_string())?;
    Ok(begin_with(hash, user, nonce))
}

fn begin_with(hash: Hash, user: &str, nonce: String) -> (Begun, Vec<u8>) {
    let user = user.replace('=', "=3D").replace(',', "=2C");
    let bare = format!("n={user},r={nonce}");
    let first = format!("n,,{bare}").into_bytes();
    (Begun { hash, bare, nonce }, first)
}

impl Begun {
    /// Takes the daemon's challenge; gives the proof, and what the daemon has to prove itself by.
    /// Costs as much as the daemon's iterations say, within bounds.
    pub(super) fn answer(
        self,
        challenge: &[u8],
        password: &PreparedPassword,
    ) -> Result<(Vec<u8>, Expected), String> {
        let form = || "no challenge of SCRAM".to_owned();
        let challenge = core::str::from_utf8(challenge).map_err(|_| form())?;
        let mut attributes = challenge.split(',');
        // A mandatory extension (`m=`) would stand first, and is refused with that.
        let mut next = |name| attributes.next()?.strip_prefix(name);
        let (Some(nonce), Some(salt), Some(iterations)) = (next("r="), next("s="), next("i="))
        else {
            return Err(form());
        };
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err("a challenge that is for another nonce".to_owned());
        }
        let salt = BASE64.decode(salt).map_err(|_| form())?;
        if salt.is_empty() || salt.len() > SALT_MAX {
            return Err("a challenge with no usable salt".to_owned());
        }
        let iterations = iterations.parse().map_err(|_| form())?;
        // Too few would make the password cheap to guess for a daemon that is none, and too many
        // would keep us busy.
        let iterations = iterations_in_bounds(iterations).map_err(|error| error.to_string())?;
        let keys = Keys::new(self.hash, iterations, password, &salt);
        let without_proof = format!("c={NO_BINDING},r={nonce}");
        let message = format!("{},{challenge},{without_proof}", self.bare);
        let stored_key = self.hash.stored_key(keys.client.as_ref());
        let signature = self.hash.sign(stored_key.as_ref(), message.as_bytes());
        let proof = keys.client.as_ref().iter().zip(signature.as_ref());
        let proof: Vec<u8> = proof.map(|(key, sign)| key ^ sign).collect();
        let last = format!("{without_proof},p={}", BASE64.encode(proof));
        let expected = self.hash.sign(keys.server.as_ref(), message.as_bytes());
        Ok((last.into_bytes(), Expected(expected.as_ref().to_vec())))
    }
}

/// What only a daemon that knows the verifier can say.
pub(super) struct Expected(Vec<u8>);

impl Expected {
    /// Takes the daemon's final message.
    pub(super) fn check(&self, message: &[u8]) -> Result<(), String> {
        let message = core::str::from_utf8(message).map_err(|_| "no final message of SCRAM")?;
        if let Some(error) = message.strip_prefix("e=") {
            let error = error.replace(char::is_control, " ");
            return Err(format!("the daemon refused the password: {error}"));
        }
        let signature = message.strip_prefix("v=").unwrap_or_default();
        let signature = signature.split(',').next().unwrap_or_default();
        let signature = BASE64.decode(signature).unwrap_or_default();
        match signature.ct_eq(&self.0).into() {
            true => Ok(()),
            false => Err("the daemon does not know the password itself".to_owned()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    /// RFC 7677 section 3.
    const CHALLENGE: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const PROOF: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn answer(challenge: &str) -> Result<(Vec<u8>, Expected), String> {
        let (begun, first) = begin_with(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        begun.answer(
            challenge.as_bytes(),
            &PreparedPassword::new("pencil").unwrap(),
        )
    }

    #[test]
    fn the_example_of_rfc_7677() {
        let (last, expected) = answer(CHALLENGE).unwrap();
        assert_eq!(last, FINAL.as_bytes());
        expected.check(PROOF.as_bytes()).unwrap();
    }

    #[test]
    fn a_daemon_that_proves_nothing_is_refused() {
        let (_, expected) = answer(CHALLENGE).unwrap();
        let changed = PROOF.replace("6rri", "6rrj");
        for message in [
            "",
            "v=",
            "v=6rri",
            &changed,
            "e=invalid-proof\n",
            "v=\u{e9}",
        ] {
            expected.check(message.as_bytes()).unwrap_err();
        }
        expected.check(&[0xFF]).unwrap_err();
    }

    #[test]
    fn a_challenge_that_is_none_is_refused() {
        for (from, to) in [
            ("r=rOpr", "r=sOpr"),
            ("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""),
            ("i=4096", "i=4095"),
            ("i=4096", "i=4000000000"),
            ("i=4096", "i=99999999999"),
            ("i=4096", "i=-1"),
            (",i=4096", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            ("W22ZaJ0SNY7soEsUEjb6gQ==", "W22"),
            ("r=r", "m=x,r=r"),
        ] {
            let changed = CHALLENGE.replace(from, to);
            assert!(answer(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn names_are_escaped() {
        let (_, first) = begin_with(Hash::Sha512, "a,b=c", "x".to_owned());
        assert_eq!(first, b"n,,n=a=2Cb=3Dc,r=x");
    }
}
