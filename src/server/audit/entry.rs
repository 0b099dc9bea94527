//! A record as it is written: one line of JSON, or the fields of one journal entry.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::policy::access::Reason;
use crate::policy::facts::ClientFacts;
use crate::session::access::refusal;

/// Identities of one client that are named; the policy may define many more.
const MAX_IDENTITIES: usize = 64;

/// A record. What does not apply is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entry {
    /// When it was decided, in UTC (RFC 3339, with microseconds).
    pub time: String,
    /// What happened.
    pub verdict: Verdict,
    /// Names the refusal; the client sees it in the error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Arc<str>>,
    /// Names the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Arc<str>>,
    /// Names of the client's identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Arc<[Arc<str>]>>,
    /// The client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Arc<Client>>,
    /// Name of the listener that the client came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<Arc<str>>,
    /// Name of the daemon that the call was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Arc<str>>,
    /// Name of the procedure; `PROGRAM:NUMBER` of one that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<String>,
    /// The object, with what was known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The permission that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// Line of the policy file of the rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Why it was refused, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Why it was refused, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Generation of the policy, counted from 1 by each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Digest of the policy's text, see [`Policy::digest`](crate::policy::model::Policy::digest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Arc<str>>,
    /// How often it had happened by then; of lost records, how many.
    pub count: u64,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The call was passed on.
    Allowed,
    /// The call was refused.
    Refused,
    /// The call was answered as if its object did not exist.
    Hidden,
    /// The call was passed on, and would have been refused if the rule were not in shadow.
    Shadow,
    /// Records could not be written.
    #[default]
    Lost,
}

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// No rule allows it.
    NotAllowed,
    /// A rule denies it.
    Denied,
    /// The procedure is not known.
    UnknownProcedure,
    /// It could not be told which rules are for the client.
    UnknownClient,
    /// What the call carries does not keep to the guards of the rule that allows it.
    Guarded,
    /// A quota of the client's has no more room.
    Quota,
}

/// The client, in short.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Client {
    /// Name of its user on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Number of its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Number of its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Its user name by SASL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<String>,
    /// Distinguished name of its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dn: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Entry {
    /// That this many records are lost.
    pub(super) fn lost(count: u64) -> Self {
        Self {
            time: now(),
            verdict: Verdict::Lost,
            reason: Some("records could not be written".to_owned()),
            count,
            ..Self::default()
        }
    }

    /// The line of JSON.
    pub(super) fn write(&self, line: &mut Vec<u8>) {
        // Neither text nor memory refuses anything.
        _ = serde_json::to_writer(&mut *line, self);
        line.push(b'\n');
    }
}

/// The record in one sentence.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.word())?;
        if self.verdict == Verdict::Lost {
            return write!(f, ": {} audit records", self.count);
        }
        if let Some(procedure) = &self.procedure {
            write!(f, ": {}", Plain(procedure))?;
        }
        if let Some(object) = &self.object {
            write!(f, " on {}", Plain(object))?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {}", Plain(reason))?;
        }
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

impl Verdict {
    /// The word in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Hidden => "hidden",
            Self::Shadow => "shadow",
            Self::Lost => "lost",
        }
    }
}

impl From<refusal::Verdict> for Verdict {
    fn from(verdict: refusal::Verdict) -> Self {
        match verdict {
            refusal::Verdict::Allowed => Self::Allowed,
            refusal::Verdict::Refused => Self::Refused,
            refusal::Verdict::Hidden => Self::Hidden,
            refusal::Verdict::Shadow => Self::Shadow,
        }
    }
}

/// A text without control characters: it must not begin another line of the log, nor speak to a
/// terminal.
#[derive(Debug)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|one| match one.is_control() {
            true => write!(f, "{}", one.escape_default()),
            false => f.write_char(one),
        })
    }
}

impl Cause {
    /// The word in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAllowed => "not-allowed",
            Self::Denied => "denied",
            Self::UnknownProcedure => "unknown-procedure",
            Self::UnknownClient => "unknown-client",
            Self::Guarded => "guarded",
            Self::Quota => "quota",
        }
    }
}

impl From<Reason> for Cause {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::NotAllowed => Self::NotAllowed,
            Reason::Denied => Self::Denied,
            Reason::UnknownProcedure => Self::UnknownProcedure,
            Reason::UnknownClient => Self::UnknownClient,
            Reason::Guarded => Self::Guarded,
            Reason::Quota => Self::Quota,
        }
    }
}

impl Client {
    /// Of what is proven.
    pub(super) fn of(facts: &ClientFacts) -> Self {
        let unix = facts.unix.as_ref();
        let bounded = |text: &str| refusal::bounded(text).to_owned();
        Self {
            user: unix.and_then(|unix| unix.user.as_deref().map(bounded)),
            uid: unix.map(|unix| unix.uid),
            gid: unix.map(|unix| unix.gid),
            pid: unix.map(|unix| unix.pid),
            sasl: facts.sasl.as_ref().map(|sasl| bounded(&sasl.user)),
            dn: facts.x509.as_ref().map(|x509| bounded(&x509.dn)),
            address: facts.address.map(|address| address.to_string()),
        }
    }
}

/// Of the client's identities, as many as a record has room for.
pub(super) fn identities<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Arc<[Arc<str>]> {
    names.take(MAX_IDENTITIES).map(Arc::clone).collect()
}

/// The present time as records have it.
pub(super) fn now() -> String {
    let mut text = String::new();
    // A string takes everything.
    _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}
