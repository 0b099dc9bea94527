//! A salted verifier of a password: what a SCRAM server keeps in its place (RFC 5802 section 3).
//!
//! Whoever steals one cannot log in with it; he has to guess the password, at the price of
//! `iterations` hashes for each guess. The text form is the one that PostgreSQL uses:
//! `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, the last three in base64.

use core::fmt;
use core::num::NonZeroU32;
use core::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq as _;

/// Longest user name in bytes, prepared.
pub const NAME_MAX: usize = 256;

/// Longest password in bytes.
pub const PASSWORD_MAX: usize = 1024;

/// Fewest iterations (RFC 7677 section 4).
pub const ITERATIONS_MIN: u32 = 4096;

/// Most iterations. The client of SCRAM pays for them, but for PLAIN this side does: about a third
/// of a second at this bound.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// Iterations of new verifiers. SCRAM costs the server nothing by them; each connection of a client
/// pays 10 to 20 ms, as libvirt's clients derive the key anew every time.
pub const ITERATIONS: u32 = 16_384;

/// Bytes of a new salt.
const SALT: usize = 16;

/// Bounds of a salt that is read. The upper one is what a decoy's salt can have.
const SALT_MIN: usize = 8;
const SALT_MAX: usize = 64;

/// The hash that a SCRAM mechanism is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hash {
    /// SCRAM-SHA-256 (RFC 7677).
    Sha256,
    /// SCRAM-SHA-512.
    Sha512,
}

impl Hash {
    /// All, the default first.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Name of the mechanism.
    #[must_use]
    pub const fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Bytes of its digests and keys.
    pub(super) fn length(self) -> usize {
        self.digest().output_len()
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    pub(super) fn stored_key(self, client_key: &[u8]) -> digest::Digest {
        digest::digest(self.digest(), client_key)
    }

    pub(super) fn sign(self, key: &[u8], message: &[u8]) -> hmac::Tag {
        hmac::sign(&hmac::Key::new(self.hmac(), key), message)
    }
}

/// What a password comes to with a salt (RFC 5802 section 3): whoever has these needs no password.
pub(super) struct Keys {
    pub(super) client: hmac::Tag,
    pub(super) server: hmac::Tag,
}

impl Keys {
    /// Costs as much as the iterations say.
    pub(super) fn new(
        hash: Hash,
        iterations: NonZeroU32,
        password: &PreparedPassword,
        salt: &[u8],
    ) -> Self {
        let mut salted = vec![0; hash.length()];
        let password = password.0.as_bytes();
        pbkdf2::derive(hash.pbkdf2(), iterations, salt, password, &mut salted);
        Self {
            client: hash.sign(&salted, b"Client Key"),
            server: hash.sign(&salted, b"Server Key"),
        }
    }
}

/// One verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    pub(super) hash: Hash,
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl Verifier {
    /// The verifier of a prepared password with a new salt.
    ///
    /// # Errors
    /// Iterations out of bounds, or the system has no random numbers.
    pub fn new(
        hash: Hash,
        iterations: u32,
        password: &PreparedPassword,
    ) -> Result<Self, VerifierError> {
        let mut salt = [0; SALT];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| VerifierError::NoRandomness)?;
        Ok(Self::with_salt(
            hash,
            iterations_in_bounds(iterations)?,
            password,
            salt.into(),
        ))
    }

    fn with_salt(
        hash: Hash,
        iterations: NonZeroU32,
        password: &PreparedPassword,
        salt: Vec<u8>,
    ) -> Self {
        let Keys { client, server } = Keys::new(hash, iterations, password, &salt);
        Self {
            hash,
            iterations,
            salt,
            stored_key: hash.stored_key(client.as_ref()).as_ref().into(),
            server_key: server.as_ref().into(),
        }
    }

    /// One without keys and with the parameters of a new one.
    pub(super) fn blank(hash: Hash) -> Self {
        Self {
            hash,
            iterations: NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN),
            salt: vec![0; SALT],
            stored_key: Vec::new(),
            server_key: Vec::new(),
        }
    }

    /// The hash that it was made with.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether it is that of `password`. Costs as much as making it anew, whatever the answer.
    pub(super) fn is_of(&self, password: &PreparedPassword) -> bool {
        let other = Self::with_salt(self.hash, self.iterations, password, self.salt.clone());
        self.stored_key.ct_eq(&other.stored_key).into()
    }

    /// Whether `proof` is a client's for this exchange (RFC 5802 section 3), in constant time.
    pub(super) fn proves(&self, proof: &[u8], auth_message: &[u8]) -> bool {
        let signature = self.hash.sign(&self.stored_key, auth_message);
        if proof.len() != signature.as_ref().len() {
            return false;
        }
        let client_key: Vec<u8> = proof
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        self.hash
            .stored_key(&client_key)
            .as_ref()
            .ct_eq(&self.stored_key)
            .into()
    }

    /// What proves to the client that the server knows the verifier.
    pub(super) fn server_signature(&self, auth_message: &[u8]) -> impl AsRef<[u8]> + use<> {
        self.hash.sign(&self.server_key, auth_message)
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("hash", &self.hash)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}${}:{}${}:{}",
            self.hash.mechanism(),
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(&self.stored_key),
            BASE64.encode(&self.server_key),
        )
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let form = || VerifierError::Form;
        let mut parts = text.split('$');
        let (Some(mechanism), Some(parameters), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(VerifierError::Form);
        };
        let hash = Hash::ALL
            .into_iter()
            .find(|hash| hash.mechanism() == mechanism)
            .ok_or(VerifierError::Mechanism)?;
        let (iterations, salt) = parameters.split_once(':').ok_or_else(form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or_else(form)?;
        let iterations: u32 = iterations.parse().map_err(|_| VerifierError::Iterations)?;
        let salt = BASE64.decode(salt).map_err(|_| VerifierError::Base64)?;
        if !(SALT_MIN..=SALT_MAX).contains(&salt.len()) {
            return Err(VerifierError::Salt);
        }
        let key = |text| {
            let key = BASE64.decode(text).map_err(|_| VerifierError::Base64)?;
            if key.len() == hash.length() {
                Ok(key)
            } else {
                Err(VerifierError::Key)
            }
        };
        Ok(Self {
            hash,
            iterations: iterations_in_bounds(iterations)?,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }
}

pub(super) fn iterations_in_bounds(iterations: u32) -> Result<NonZeroU32, VerifierError> {
    NonZeroU32::new(iterations)
        .filter(|n| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(&n.get()))
        .ok_or(VerifierError::Iterations)
}

/// Why there is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// Not of the form that this module's documentation gives.
    #[error("not of the form SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")]
    Form,
    /// Another mechanism.
    #[error("unknown mechanism; known are SCRAM-SHA-256 and SCRAM-SHA-512")]
    Mechanism,
    /// No number, or out of bounds.
    #[error("iterations are a number from {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    /// Too short or too long.
    #[error("the salt has {SALT_MIN} to {SALT_MAX} bytes")]
    Salt,
    /// A key of the wrong length.
    #[error("a key has not the length that the mechanism's hash gives")]
    Key,
    /// Salt or key.
    #[error("salt or key is not in base64")]
    Base64,
    /// The system gave none.
    #[error("the system has no random numbers")]
    NoRandomness,
}

/// A user name as it is compared: prepared by SASLprep (RFC 4013), neither empty nor longer than
/// [`NAME_MAX`], without the colon that ends it in the file.
///
/// # Errors
/// The name cannot be one.
pub fn prepare_name(name: &str) -> Result<String, NameError> {
    if name.len() > NAME_MAX {
        return Err(NameError::Long);
    }
    let prepared = stringprep::saslprep(name).map_err(|_| NameError::Prohibited)?;
    // Preparing can lengthen a name, and can leave nothing of it.
    if prepared.len() > NAME_MAX {
        return Err(NameError::Long);
    }
    if prepared.is_empty() {
        return Err(NameError::Empty);
    }
    if prepared.contains(':') || prepared.starts_with('#') {
        return Err(NameError::Mark);
    }
    Ok(prepared.into_owned())
}

/// Why a text is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing (is left).
    #[error("the user name is empty")]
    Empty,
    /// Longer than [`NAME_MAX`].
    #[error("the user name is longer than {NAME_MAX} bytes")]
    Long,
    /// SASLprep prohibits it.
    #[error("the user name has characters that SASLprep (RFC 4013) prohibits")]
    Prohibited,
    /// What means something else in the file.
    #[error("a user name neither has a `:` nor begins with `#`")]
    Mark,
}

/// A password prepared by SASLprep (RFC 4013), neither empty nor longer than [`PASSWORD_MAX`].
pub struct PreparedPassword(String);

impl PreparedPassword {
    /// Prepares one.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn new(password: &str) -> Result<Self, PasswordError> {
        if password.len() > PASSWORD_MAX {
            return Err(PasswordError::Long);
        }
        let prepared = stringprep::saslprep(password).map_err(|_| PasswordError::Prohibited)?;
        if prepared.is_empty() {
            return Err(PasswordError::Empty);
        }
        Ok(Self(prepared.into_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PreparedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedPassword")
    }
}

/// Why a text is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing (is left).
    #[error("the password is empty")]
    Empty,
    /// Longer than [`PASSWORD_MAX`].
    #[error("the password is longer than {PASSWORD_MAX} bytes")]
    Long,
    /// SASLprep prohibits it.
    #[error("the password has characters that SASLprep (RFC 4013) prohibits")]
    Prohibited,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn password(text: &str) -> PreparedPassword {
        PreparedPassword::new(text).unwrap()
    }

    /// The example of RFC 7677 section 3; the keys follow from its password and salt.
    #[test]
    fn the_text_form_is_read_and_written() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let rounds = NonZeroU32::new(4096).unwrap();
        let made = Verifier::with_salt(Hash::Sha256, rounds, &password("pencil"), salt);
        let text = made.to_string();
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
             $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(text.parse::<Verifier>().unwrap(), made);
    }

    #[test]
    fn it_knows_its_password() {
        for hash in Hash::ALL {
            let verifier = Verifier::new(hash, ITERATIONS_MIN, &password("pencil")).unwrap();
            assert!(verifier.is_of(&password("pencil")));
            assert!(!verifier.is_of(&password("Pencil")));
            let again = Verifier::new(hash, ITERATIONS_MIN, &password("pencil")).unwrap();
            assert_ne!(verifier.salt, again.salt);
        }
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let good = Verifier::new(Hash::Sha512, ITERATIONS_MIN, &password("x"))
            .unwrap()
            .to_string();
        good.parse::<Verifier>().unwrap();
        let cases = [
            ("", VerifierError::Form),
            ("secret", VerifierError::Form),
            ("SCRAM-SHA-512$4096:AAAA", VerifierError::Form),
            (&good.replace("SHA-512", "SHA-1"), VerifierError::Mechanism),
            (&good.replace("$4096:", "$4095:"), VerifierError::Iterations),
            (
                &good.replace("$4096:", "$1000001:"),
                VerifierError::Iterations,
            ),
            (&good.replace("$4096:", "$x:"), VerifierError::Iterations),
            (&good.replace("$4096:", "$4096:AAAA$"), VerifierError::Form),
            (&good.replace("SHA-512", "SHA-256"), VerifierError::Key),
            (&format!("{good}="), VerifierError::Base64),
            ("SCRAM-SHA-256$4096:AAAA$AA==:AA==", VerifierError::Salt),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Verifier>().unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn names_and_passwords_are_prepared_and_bounded() {
        // RFC 4013 section 3.
        assert_eq!(prepare_name("I\u{AD}X").unwrap(), "IX");
        assert_eq!(prepare_name("\u{AA}").unwrap(), "a");
        assert_eq!(prepare_name("\u{2168}").unwrap(), "IX");
        assert_eq!(prepare_name("\u{7}"), Err(NameError::Prohibited));
        assert_eq!(prepare_name("\u{627}1"), Err(NameError::Prohibited));
        assert_eq!(prepare_name(""), Err(NameError::Empty));
        assert_eq!(prepare_name("\u{AD}"), Err(NameError::Empty));
        assert_eq!(prepare_name("a:b"), Err(NameError::Mark));
        assert_eq!(
            prepare_name(&"a".repeat(NAME_MAX + 1)),
            Err(NameError::Long)
        );
        // One character that becomes eighteen.
        assert_eq!(prepare_name(&"\u{FDFA}".repeat(80)), Err(NameError::Long));
        assert_eq!(PreparedPassword::new("").unwrap_err(), PasswordError::Empty);
        assert_eq!(
            PreparedPassword::new(&"a".repeat(PASSWORD_MAX + 1)).unwrap_err(),
            PasswordError::Long
        );
        assert!(!format!("{:?}", password("pencil")).contains("pencil"));
    }
}
