//! The client's side of a SASL exchange with a daemon, without any socket: what the daemon says in,
//! what the proxy says out. The data are SASL's own bytes, nothing is added or taken off; see
//! [`super::sasl`] for the rules of the wire.
//!
//! A step may read the password's file, derive a key from it or ask Kerberos: callers run it where
//! blocking is allowed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::authenticator::Over;
use super::passwords;
use super::sasl::{DATA_MAX, Mechanism, SecurityLayer};
use super::sasl_files::{mechanism, missing};
use super::scram_client::{self, Begun, Expected};
use super::tls_files::Finding;
use super::verifier::{PreparedPassword, prepare_name};
use crate::policy::model::ClientSasl;
use crate::session::{ClientSaslInput, ClientSaslOutput};

#[cfg(feature = "gssapi")]
use super::gssapi_client::Initiator;

/// One exchange with one daemon.
pub(crate) struct ClientExchange {
    sasl: Arc<ClientSasl>,
    over: Over,
    /// Name of the daemon's host, for Kerberos.
    host: String,
    state: State,
    layer: Option<Box<dyn SecurityLayer>>,
}

enum State {
    New,
    Scram(Begun, PreparedPassword),
    /// The daemon has still to prove itself.
    Proven(Expected),
    #[cfg(feature = "gssapi")]
    Gssapi(Box<Initiator>),
    /// There is nothing more to say.
    Said,
    Over,
}

/// Passwords stay out of logs.
impl fmt::Debug for ClientExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientExchange").finish_non_exhaustive()
    }
}

impl ClientExchange {
    /// `host`: where the daemon is.
    pub(crate) fn new(sasl: Arc<ClientSasl>, over: Over, host: &str) -> Self {
        Self {
            sasl,
            over,
            host: host.to_owned(),
            state: State::New,
            layer: None,
        }
    }

    /// Takes what the daemon says; an error, which has no secrets, is the end. Blocks.
    pub(crate) fn step(&mut self, input: &ClientSaslInput) -> Result<ClientSaslOutput, String> {
        let state = std::mem::replace(&mut self.state, State::Over);
        if let ClientSaslInput::Challenge(Some(data)) | ClientSaslInput::Complete(Some(data)) =
            input
            && data.len() > DATA_MAX
        {
            return Err(format!("the daemon sent more than {DATA_MAX} bytes"));
        }
        let (state, output) = match input {
            ClientSaslInput::Mechanisms(offered) => self.begin(offered)?,
            ClientSaslInput::Challenge(data) => go_on(state, data.as_deref())?,
            ClientSaslInput::Complete(data) => {
                self.layer = complete(state, data.as_deref())?;
                let layer = self.layer.is_some();
                (State::Over, ClientSaslOutput::Done { layer })
            }
        };
        self.state = state;
        Ok(output)
    }

    /// Takes the security layer that was agreed on.
    pub(crate) fn take_layer(&mut self) -> Option<Box<dyn SecurityLayer>> {
        self.layer.take()
    }

    fn begin(&self, offered: &str) -> Result<(State, ClientSaslOutput), String> {
        let mut offers = offered.split([',', ' ']);
        let mut wanted = self.sasl.mechanisms.iter().map(mechanism);
        let Some(chosen) = wanted.find(|wanted| {
            wanted.is_built()
                && self.suits(*wanted)
                && offers.clone().any(|offer| offer == wanted.name())
        }) else {
            let offers: Vec<&str> = offers.by_ref().take(16).collect();
            return Err(format!(
                "the daemon offers no SASL mechanism that may be used: {:?}",
                offers.join(" ")
            ));
        };
        let (state, first) = match chosen {
            Mechanism::Scram(hash) => {
                let (begun, first) = scram_client::begin(hash, &self.user()?)?;
                (State::Scram(begun, self.password()?), first)
            }
            Mechanism::Plain => {
                let (user, password) = (self.user()?, self.password()?);
                let first = format!("\0{user}\0{}", password.as_str()).into_bytes();
                (State::Said, first)
            }
            // Nobody else than the certificate says.
            Mechanism::External => (State::Said, Vec::new()),
            #[cfg(feature = "gssapi")]
            Mechanism::Gssapi => {
                let (initiator, first) = Initiator::new(&self.host, self.over == Over::Tcp)?;
                (State::Gssapi(Box::new(initiator)), first)
            }
            #[cfg(not(feature = "gssapi"))]
            Mechanism::Gssapi => {
                return Err(format!("this program has no Kerberos for {}", self.host));
            }
        };
        let name = chosen.name().to_owned();
        Ok((state, ClientSaslOutput::Start(name, Some(first))))
    }

    /// Without a security layer whoever sits on the wire would take the connection over, or read
    /// the password.
    fn suits(&self, mechanism: Mechanism) -> bool {
        match mechanism {
            Mechanism::Gssapi => true,
            Mechanism::External => self.over == Over::Tls,
            Mechanism::Scram(_) | Mechanism::Plain => self.over != Over::Tcp,
        }
    }

    fn user(&self) -> Result<String, String> {
        let user = self.sasl.user.as_deref().ok_or("no user is set")?;
        prepare_name(user).map_err(|error| error.to_string())
    }

    fn password(&self) -> Result<PreparedPassword, String> {
        let path = self.sasl.password_file.as_deref();
        read_password(path.ok_or("no password file is set")?)
    }
}

/// The first line of a file. Blocks.
fn read_password(path: &Path) -> Result<PreparedPassword, String> {
    let text = passwords::read_text(path).map_err(|error| error.to_string())?;
    let line = text.lines().next().unwrap_or_default();
    PreparedPassword::new(line).map_err(|error| format!("{}: {error}", path.display()))
}

/// What keeps a daemon from being told who the proxy is. Blocks.
pub(crate) fn check(sasl: &ClientSasl) -> Vec<Finding> {
    let mechanisms: Vec<Mechanism> = sasl.mechanisms.iter().map(mechanism).collect();
    let mut findings: Vec<Finding> = missing(&mechanisms).collect();
    if let Some(path) = &sasl.password_file
        && let Err(message) = read_password(path)
    {
        findings.push(Finding::error("password_file", message, None));
    }
    findings
}

fn go_on(state: State, data: Option<&[u8]>) -> Result<(State, ClientSaslOutput), String> {
    let data = data.unwrap_or_default();
    let (state, answer) = match state {
        State::Scram(begun, password) => {
            let (answer, expected) = begun.answer(data, &password)?;
            (State::Proven(expected), answer)
        }
        // It says its last word before the exchange is complete.
        State::Proven(expected) => {
            expected.check(data)?;
            (State::Said, Vec::new())
        }
        #[cfg(feature = "gssapi")]
        State::Gssapi(mut initiator) => {
            let answer = initiator.answer(data)?;
            (State::Gssapi(initiator), answer)
        }
        State::New | State::Said | State::Over => {
            return Err("the daemon goes on where nothing is left to say".to_owned());
        }
    };
    Ok((state, ClientSaslOutput::Step(Some(answer))))
}

fn complete(state: State, data: Option<&[u8]>) -> Result<Option<Box<dyn SecurityLayer>>, String> {
    match state {
        State::Proven(expected) => expected.check(data.unwrap_or_default()).map(|()| None),
        State::Said => Ok(None),
        #[cfg(feature = "gssapi")]
        State::Gssapi(initiator) => initiator.finish(),
        State::New | State::Scram(..) | State::Over => {
            Err("the daemon ends the exchange before it has proven itself".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
