//! The server's side of a SASL exchange (RFC 4422), without any socket: data in, data out.
//!
//! # The rules of libvirt's wire
//! - `AUTH_SASL_INIT` is answered with [`SaslConfig::mechanism_list`]: names in upper case between
//!   commas, no spaces. A client takes one that it knows, `?auth=sasl.NAME` in a URI compares case
//!   too, and libvirt's own takes SCRAM-SHA-512 before SCRAM-SHA-256, whatever the order.
//!   It takes GSSAPI before both if its module is installed, and without a ticket gives up rather
//!   than try the next: a list with GSSAPI and SCRAM makes users without a ticket name theirs.
//! - `START(mech, nil, data)` is [`Exchange::start`], `STEP(nil, data)` is [`Exchange::step`], both
//!   answered by `(complete, nil, data)`. `nil` = 1 is `None` and its data have no bytes; `nil` = 0
//!   with no bytes is `Some(&[])`, which is something else. Nothing is added or taken off: the data
//!   are exactly SASL's bytes, **without a trailing NUL**, and tokens may well end with a zero.
//! - `data` is an XDR array of `char`: a count, then **four bytes for each byte**, the byte itself in
//!   the last of them. The other three are its sign (x86) or zero (ARM), by the sender's `char`, and
//!   mean nothing to the reader. The longest data make a frame of 4 · [`DATA_MAX`] bytes beside the
//!   header. Kerberos tokens with the groups of an Active Directory reach 48 KiB, so that a `START`
//!   may well be longer than 64 KiB.
//! - [`Outcome::Failed`] is answered with an error 45 "authentication failed" in place of the reply
//!   and ends the exchange; the client begins again with `INIT`.
//! - With [`Outcome::Done`] the reply that says `complete` = 1 is the last frame outside the
//!   [`SecurityLayer`], if there is one. All bytes that the client sends behind the call that it
//!   answers are inside. What is put around the bytes are buffers (RFC 4422 section 3.7): a length
//!   word of four bytes, big-endian, not counting itself, and a token. Their bounds have nothing to
//!   do with those of frames.
//!
//! # Time
//! SCRAM costs microseconds. PLAIN derives a key (milliseconds, bounded by the verifiers'
//! iterations), and GSSAPI reads files and may ask the network: callers run [`Exchange::start`]
//! and [`Exchange::step`] where blocking is allowed (`spawn_blocking`). A delay after a failure is
//! theirs as well.

use core::fmt;
use std::sync::Arc;

use super::passwords::Passwords;
use super::scram::{self, Challenged};
use super::verifier::{Hash, NameError, PasswordError, PreparedPassword, prepare_name};
use crate::policy::facts::X509Facts;

#[cfg(feature = "gssapi")]
use super::gssapi::{self, Acceptor};

/// Longest data of a step in bytes (`REMOTE_AUTH_SASL_DATA_MAX`).
pub const DATA_MAX: usize = 65_536;

/// Most messages of a client in one exchange. SCRAM takes two, Kerberos four.
const STEPS_MAX: u8 = 8;

/// The mechanisms that can be offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// A password, never shown to either side of the wire.
    Scram(Hash),
    /// A password as it is. Not on plain TCP.
    Plain,
    /// The verified certificate of a TLS client.
    External,
    /// Kerberos, in builds with the feature `gssapi`; on plain TCP with a security layer.
    Gssapi,
}

impl Mechanism {
    /// All, in the order of a list that says nothing of it.
    pub const ALL: [Self; 5] = [
        Self::Gssapi,
        Self::External,
        Self::Scram(Hash::Sha256),
        Self::Scram(Hash::Sha512),
        Self::Plain,
    ];

    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scram(hash) => hash.mechanism(),
            Self::Plain => "PLAIN",
            Self::External => "EXTERNAL",
            Self::Gssapi => "GSSAPI",
        }
    }

    /// The mechanism of this name, upper case as on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Whether this build has it.
    #[must_use]
    pub const fn is_built(self) -> bool {
        !matches!(self, Self::Gssapi) || cfg!(feature = "gssapi")
    }

    /// Whether it proves anything, and nothing leaks by it, on `channel`.
    fn suits(self, channel: &Channel<'_>) -> bool {
        match self {
            Self::Gssapi => true,
            Self::External => matches!(channel, Channel::Tls(Some(_))),
            // Without a security layer whoever sits on the wire takes the connection over.
            Self::Scram(_) | Self::Plain => !matches!(channel, Channel::Tcp),
        }
    }
}

/// What the exchange runs over.
#[derive(Debug, Clone, Copy)]
pub enum Channel<'a> {
    /// A UNIX socket.
    Unix,
    /// TLS, with the client's certificate if it showed one and that was verified.
    Tls(Option<&'a X509Facts>),
    /// TCP without TLS.
    Tcp,
}

/// Which part of a certificate is the user of EXTERNAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExternalUser {
    /// The common name, of which there must be exactly one.
    #[default]
    CommonName,
    /// The whole distinguished name.
    DistinguishedName,
}

/// How a listener authenticates by SASL: a snapshot, replaced as a whole.
#[derive(Debug, Clone)]
pub struct SaslConfig {
    /// What is offered, where it suits the channel.
    pub mechanisms: Vec<Mechanism>,
    /// What SCRAM and PLAIN are verified against.
    pub passwords: Arc<Passwords>,
    /// The user of EXTERNAL.
    pub external_user: ExternalUser,
    /// Least strength of a security layer in bits, on plain TCP alone; libvirt's is 56. Kerberos
    /// passes up to 128, whatever its keys are: see [`super::gssapi`].
    pub min_ssf: u16,
}

impl SaslConfig {
    /// What is offered on a channel.
    pub fn offered(&self, channel: &Channel<'_>) -> impl Iterator<Item = Mechanism> {
        self.mechanisms
            .iter()
            .copied()
            .filter(move |mechanism| mechanism.is_built() && mechanism.suits(channel))
    }

    /// The answer to `AUTH_SASL_INIT`. Empty if nothing suits: then refuse the call, since a client
    /// would only tell that it found no mechanism.
    #[must_use]
    pub fn mechanism_list(&self, channel: &Channel<'_>) -> String {
        let names: Vec<&str> = self.offered(channel).map(Mechanism::name).collect();
        names.join(",")
    }
}

/// What a client's message leads to.
#[derive(Debug)]
pub enum Outcome {
    /// Send this and wait for the next message.
    Continue(Option<Vec<u8>>),
    /// The client has proven who it is.
    Done {
        /// Goes out with the reply that tells the success.
        data: Option<Vec<u8>>,
        /// Who it is. Not empty, and without control characters.
        user: String,
        /// Name of the mechanism that proved it.
        mechanism: &'static str,
        /// Wraps the connection behind that reply.
        layer: Option<Box<dyn SecurityLayer>>,
    },
    /// It has not. The reason is for the log; a client is told of the failure and nothing else.
    Failed(Failure),
}

/// Why a client was not authenticated. For the log alone: it tells an unknown user from a wrong
/// password, which a client must never learn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each is told by its text")]
pub enum Failure {
    #[error("the client asked for a mechanism that is not offered")]
    NotOffered,
    #[error("more than {DATA_MAX} bytes in one message")]
    TooLong,
    #[error("more than {STEPS_MAX} messages")]
    TooManySteps,
    #[error("a message after the end of the exchange")]
    Over,
    #[error("{0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("unknown user {0:?}, or one without a verifier for the mechanism")]
    UnknownUser(String),
    #[error("wrong password for user {0:?}")]
    WrongPassword(String),
    #[error("user {user:?} asked to act as another one")]
    NotSelf { user: String },
    #[error("the certificate has not exactly one common name that can be a user")]
    CommonName,
    #[error("the system has no random numbers")]
    NoRandomness,
    #[error("GSSAPI: {0}")]
    Gssapi(String),
}

impl Failure {
    /// `user`, unless `authzid` names somebody else.
    pub(super) fn unless_own(user: String, authzid: Option<&str>) -> Result<String, Self> {
        match authzid {
            None | Some("") => Ok(user),
            Some(other) if prepare_name(other).as_ref() == Ok(&user) => Ok(user),
            Some(_) => Err(Self::NotSelf { user }),
        }
    }
}

/// Integrity or confidentiality that a mechanism has agreed on, for all bytes behind the exchange.
///
/// One buffer on the wire is a length word of four bytes, big-endian, and a token of that length.
/// Both directions count their buffers, so none may be lost or come twice. An error is final: close
/// the connection.
pub trait SecurityLayer: fmt::Debug + Send {
    /// Wraps at most [`Self::max_plain`] bytes and appends the whole buffer, length word and token,
    /// to `out`.
    ///
    /// # Errors
    /// Too many bytes, or the library failed.
    fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError>;

    /// Unwraps one token, without its length word, and appends what was in it to `out`.
    ///
    /// # Errors
    /// The token was changed, lost its place, or is not as protected as was agreed.
    fn decode(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError>;

    /// Most bytes that one buffer may carry to the client.
    fn max_plain(&self) -> usize;

    /// Longest token that the client may send. A greater length word is an error.
    fn max_token(&self) -> usize;
}

/// Why a buffer could not be wrapped or unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("security layer: {0}")]
pub struct LayerError(pub String);

/// One exchange with one client.
#[derive(Debug)]
pub struct Exchange {
    mechanism: &'static str,
    state: State,
    steps: u8,
}

#[derive(Debug)]
enum State {
    Scram(Hash, Arc<Passwords>),
    Challenged(Box<Challenged>),
    Plain(Arc<Passwords>),
    External(String),
    #[cfg(feature = "gssapi")]
    Gssapi(Box<Acceptor>),
    Over,
}

/// What a step makes of a state.
type Step = Result<(State, Outcome), Failure>;

impl Exchange {
    /// Starts one by the mechanism that the client named, with its first message if it sent one.
    #[must_use]
    pub fn start(
        config: &SaslConfig,
        channel: &Channel<'_>,
        mechanism: &str,
        initial: Option<&[u8]>,
    ) -> (Self, Outcome) {
        let begun = config
            .offered(channel)
            .find(|offered| offered.name() == mechanism)
            .ok_or(Failure::NotOffered)
            .and_then(|mechanism| Ok((mechanism, begin(config, channel, mechanism)?)));
        let (mechanism, state) = match begun {
            Ok((mechanism, state)) => (mechanism.name(), state),
            Err(failure) => {
                let over = Self {
                    mechanism: "",
                    state: State::Over,
                    steps: 0,
                };
                return (over, Outcome::Failed(failure));
            }
        };
        let mut exchange = Self {
            mechanism,
            state,
            steps: 0,
        };
        // In all of them the client speaks first. One that has not is asked to.
        let outcome = match initial {
            Some(_) => exchange.step(initial),
            None => Outcome::Continue(None),
        };
        (exchange, outcome)
    }

    /// Takes the client's next message.
    pub fn step(&mut self, data: Option<&[u8]>) -> Outcome {
        let state = core::mem::replace(&mut self.state, State::Over);
        match self.advance(state, data) {
            Ok((state, outcome)) => {
                self.state = state;
                outcome
            }
            Err(failure) => Outcome::Failed(failure),
        }
    }

    fn advance(&mut self, state: State, data: Option<&[u8]>) -> Step {
        if data.is_some_and(|data| data.len() > DATA_MAX) {
            return Err(Failure::TooLong);
        }
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Failure::TooManySteps);
        }
        let message = data.ok_or(Failure::Malformed("a message without data"));
        match state {
            State::Scram(hash, passwords) => {
                let (challenged, reply) = scram::challenge(&passwords, hash, message?)?;
                let state = State::Challenged(Box::new(challenged));
                Ok((state, Outcome::Continue(Some(reply))))
            }
            State::Challenged(challenged) => {
                let (user, reply) = challenged.finish(message?)?;
                Ok(self.done(user, Some(reply)))
            }
            State::Plain(passwords) => Ok(self.done(plain(&passwords, message?)?, None)),
            State::External(user) => {
                let authzid = message?;
                if !authzid.is_empty() && authzid != user.as_bytes() {
                    return Err(Failure::NotSelf { user });
                }
                Ok(self.done(user, None))
            }
            #[cfg(feature = "gssapi")]
            State::Gssapi(mut acceptor) => match acceptor.step(data)? {
                gssapi::Step::Continue(token) => {
                    Ok((State::Gssapi(acceptor), Outcome::Continue(Some(token))))
                }
                gssapi::Step::Done { user, layer } => Ok((
                    State::Over,
                    Outcome::Done {
                        data: None,
                        user,
                        mechanism: self.mechanism,
                        layer: layer.map(|layer| Box::new(layer) as Box<dyn SecurityLayer>),
                    },
                )),
            },
            State::Over => Err(Failure::Over),
        }
    }

    fn done(&self, user: String, data: Option<Vec<u8>>) -> (State, Outcome) {
        let outcome = Outcome::Done {
            data,
            user,
            mechanism: self.mechanism,
            layer: None,
        };
        (State::Over, outcome)
    }
}

fn begin(
    config: &SaslConfig,
    channel: &Channel<'_>,
    mechanism: Mechanism,
) -> Result<State, Failure> {
    let passwords = || Arc::clone(&config.passwords);
    match (mechanism, channel) {
        (Mechanism::Scram(hash), _) => Ok(State::Scram(hash, passwords())),
        (Mechanism::Plain, _) => Ok(State::Plain(passwords())),
        (Mechanism::External, Channel::Tls(Some(certificate))) => {
            external_user(config.external_user, certificate).map(State::External)
        }
        #[cfg(feature = "gssapi")]
        (Mechanism::Gssapi, channel) => {
            let layer = matches!(channel, Channel::Tcp).then_some(config.min_ssf);
            Ok(State::Gssapi(Box::new(Acceptor::new(layer)?)))
        }
        _ => Err(Failure::NotOffered),
    }
}

/// RFC 4616: `[authzid] NUL user NUL password`.
fn plain(passwords: &Passwords, message: &[u8]) -> Result<String, Failure> {
    let form = || Failure::Malformed("not a message of PLAIN");
    let message = core::str::from_utf8(message).map_err(|_| form())?;
    let mut parts = message.split('\0');
    let (Some(authzid), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(form());
    };
    let user = prepare_name(user)?;
    let password = PreparedPassword::new(password)?;
    let found = passwords
        .find(&user, None)
        .map_err(|_| Failure::NoRandomness)?;
    let fits = found.verifier.is_of(&password);
    match (found.known, fits) {
        (true, true) => Failure::unless_own(user, Some(authzid)),
        (true, false) => Err(Failure::WrongPassword(user)),
        (false, _) => Err(Failure::UnknownUser(user)),
    }
}

fn external_user(part: ExternalUser, certificate: &X509Facts) -> Result<String, Failure> {
    let user = match (part, certificate.cn.as_slice()) {
        (ExternalUser::DistinguishedName, _) => &certificate.dn,
        (ExternalUser::CommonName, [name]) => name,
        (ExternalUser::CommonName, _) => return Err(Failure::CommonName),
    };
    if user.is_empty() || user.chars().any(char::is_control) {
        return Err(Failure::CommonName);
    }
    Ok(user.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
mod tests {
    use super::super::verifier::{ITERATIONS_MIN, Verifier};
    use super::*;

    fn config() -> SaslConfig {
        let password = PreparedPassword::new("pencil").unwrap();
        let verifier = Verifier::new(Hash::Sha256, ITERATIONS_MIN, &password).unwrap();
        SaslConfig {
            mechanisms: Mechanism::ALL.to_vec(),
            passwords: Arc::new(Passwords::parse(&format!("alice:{verifier}")).unwrap()),
            external_user: ExternalUser::default(),
            min_ssf: 56,
        }
    }

    fn certificate(names: &[&str]) -> X509Facts {
        X509Facts {
            dn: "CN=ci,O=Acme".into(),
            cn: names.iter().map(|name| (*name).to_owned()).collect(),
            ..X509Facts::default()
        }
    }

    fn run(channel: Channel<'_>, mechanism: &str, data: &[u8]) -> Outcome {
        Exchange::start(&config(), &channel, mechanism, Some(data)).1
    }

    fn user(outcome: Outcome) -> String {
        match outcome {
            Outcome::Done { user, layer, .. } if layer.is_none() => user,
            other => panic!("{other:?}"),
        }
    }

    fn failure(outcome: Outcome) -> Failure {
        match outcome {
            Outcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_offered_depends_on_the_channel() {
        let config = config();
        let list = |channel| config.mechanism_list(&channel);
        let gssapi = if cfg!(feature = "gssapi") {
            "GSSAPI,"
        } else {
            ""
        };
        let passwords = format!("{gssapi}SCRAM-SHA-256,SCRAM-SHA-512,PLAIN");
        assert_eq!(list(Channel::Unix), passwords);
        assert_eq!(list(Channel::Tls(None)), passwords);
        let certificate = certificate(&["ci"]);
        assert_eq!(
            list(Channel::Tls(Some(&certificate))),
            format!("{gssapi}EXTERNAL,SCRAM-SHA-256,SCRAM-SHA-512,PLAIN")
        );
        assert_eq!(list(Channel::Tcp), gssapi.trim_end_matches(','));
    }

    #[test]
    fn what_is_not_offered_is_not_started() {
        let refused = |channel, name| failure(run(channel, name, b"\0alice\0pencil"));
        assert_eq!(refused(Channel::Tcp, "PLAIN"), Failure::NotOffered);
        assert_eq!(refused(Channel::Tcp, "SCRAM-SHA-256"), Failure::NotOffered);
        assert_eq!(refused(Channel::Unix, "EXTERNAL"), Failure::NotOffered);
        assert_eq!(refused(Channel::Tls(None), "EXTERNAL"), Failure::NotOffered);
        for name in [
            "plain",
            "",
            "SCRAM-SHA-1",
            "SCRAM-SHA-256-PLUS",
            "ANONYMOUS",
        ] {
            assert_eq!(refused(Channel::Unix, name), Failure::NotOffered);
        }
        let mut one = config();
        one.mechanisms = vec![Mechanism::Scram(Hash::Sha256)];
        let (_, outcome) = Exchange::start(&one, &Channel::Unix, "PLAIN", Some(b"\0alice\0pencil"));
        assert_eq!(failure(outcome), Failure::NotOffered);
    }

    #[test]
    fn plain() {
        let plain = |text: &str| run(Channel::Unix, "PLAIN", text.as_bytes());
        assert_eq!(user(plain("\0alice\0pencil")), "alice");
        assert_eq!(user(plain("alice\0alice\0pencil")), "alice");
        let own = Failure::NotSelf {
            user: "alice".into(),
        };
        assert_eq!(failure(plain("root\0alice\0pencil")), own);
        let wrong = Failure::WrongPassword("alice".into());
        assert_eq!(failure(plain("\0alice\0Pencil")), wrong);
        let unknown = Failure::UnknownUser("bob".into());
        assert_eq!(failure(plain("\0bob\0pencil")), unknown);
        for text in ["", "\0", "\0alice", "\0alice\0pencil\0", "alice\0pencil"] {
            assert!(matches!(failure(plain(text)), Failure::Malformed(_)));
        }
        assert!(matches!(failure(plain("\0\0pencil")), Failure::Name(_)));
        assert!(matches!(failure(plain("\0alice\0")), Failure::Password(_)));
    }

    #[test]
    fn external() {
        let named = certificate(&["ci"]);
        let external = |certificate: &X509Facts, data: &[u8]| {
            run(Channel::Tls(Some(certificate)), "EXTERNAL", data)
        };
        assert_eq!(user(external(&named, b"")), "ci");
        assert_eq!(user(external(&named, b"ci")), "ci");
        let own = Failure::NotSelf { user: "ci".into() };
        assert_eq!(failure(external(&named, b"root")), own);
        for names in [&["ci", "root"][..], &[], &[""], &["a\nb"]] {
            let failed = failure(external(&certificate(names), b""));
            assert_eq!(failed, Failure::CommonName);
        }
        let mut by_dn = config();
        by_dn.external_user = ExternalUser::DistinguishedName;
        let channel = Channel::Tls(Some(&named));
        let (_, outcome) = Exchange::start(&by_dn, &channel, "EXTERNAL", Some(b""));
        assert_eq!(user(outcome), "CN=ci,O=Acme");
    }

    #[test]
    fn a_client_that_sends_nothing_first_is_asked() {
        let (mut exchange, outcome) = Exchange::start(&config(), &Channel::Unix, "PLAIN", None);
        assert!(matches!(outcome, Outcome::Continue(None)));
        assert_eq!(user(exchange.step(Some(b"\0alice\0pencil"))), "alice");
        assert_eq!(failure(exchange.step(Some(b"x"))), Failure::Over);
        let (mut silent, _) = Exchange::start(&config(), &Channel::Unix, "PLAIN", None);
        assert!(matches!(failure(silent.step(None)), Failure::Malformed(_)));
        assert_eq!(failure(silent.step(None)), Failure::Over);
    }

    #[test]
    fn a_failed_exchange_is_over() {
        let (mut exchange, outcome) = Exchange::start(
            &config(),
            &Channel::Unix,
            "SCRAM-SHA-256",
            Some(b"n,,n=alice,r=x"),
        );
        assert!(matches!(outcome, Outcome::Continue(Some(_))));
        failure(exchange.step(Some(b"nonsense")));
        assert_eq!(failure(exchange.step(Some(b"nonsense"))), Failure::Over);
    }

    #[test]
    fn long_data_are_refused() {
        let long = vec![b'a'; DATA_MAX + 1];
        assert_eq!(
            failure(run(Channel::Unix, "PLAIN", &long)),
            Failure::TooLong
        );
        let longest = long.get(1..).unwrap();
        assert!(matches!(
            failure(run(Channel::Unix, "PLAIN", longest)),
            Failure::Malformed(_)
        ));
    }
}
