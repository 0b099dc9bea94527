//! Quotas: what identities may use in total, counted from what the daemon says is there.
//!
//! A call that counts waits for its turn: of one identity, one call at a time is counted, over all
//! connections. Then the daemon is asked what is there; what other calls on their way claim is
//! added; and the call goes on if nothing that it adds to is beyond its limit. What it makes stays
//! claimed until the daemon has answered it. So calls never wait for one that takes long, and two
//! at once cannot both slip under a limit.
//!
//! - [`amount`]: how much is in use and claimed.
//! - `effect`: which calls count, and what they do.
//! - `domains`, `volumes`: what is there, and what a call makes of it.
//! - `turn`: the turns of one connection.

pub mod amount;
mod domains;
mod effect;
mod turn;
mod volumes;

use std::sync::Arc;
use std::time::Instant;

use amount::Bytes;
pub use amount::Claims;
use effect::Effect;
pub(super) use turn::give_back;

use super::case::{Acted, Case, Progress, Refusal, Stop};
use super::content::Named;
use crate::policy::access::{Denial, Quota};

/// Names a turn on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TurnId(u32);

/// A call's turn to be counted.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: TurnId,
    /// What other calls on their way claim of each identity that it has the turn of.
    pub(super) others: Vec<(Arc<str>, Claims)>,
    /// By then it must be over.
    pub(super) until: Instant,
}

impl Turn {
    /// What other calls claim of an identity; `None` if the turn is not of it.
    fn others(&self, who: &str) -> Option<&Claims> {
        let mut others = self.others.iter();
        others
            .find(|(its, _)| &**its == who)
            .map(|(_, claims)| claims)
    }
}

/// What a call claims, by identity.
pub(super) type Claimed = Vec<(Arc<str>, Claims)>;

/// Why a call cannot be counted, or must not go on.
enum Halt {
    /// The daemon must be asked first.
    Ask,
    /// That cannot be told.
    Uncountable(String),
    /// It is not allowed.
    Refused(String),
}

impl<'a> Case<'a> {
    /// Holds the call against the quotas of the client's identities. Returns what it claims.
    pub(super) fn check_quotas(
        &self,
        acted: &[Acted<'a>],
        named: &[Named],
        progress: &mut Progress<'a>,
    ) -> Result<Claimed, Stop> {
        let table = self.view.table;
        // On what does not exist nothing is done.
        if table.quotas().next().is_none() || !progress.replaced.is_empty() {
            return Ok(Claimed::new());
        }
        let effect = match Effect::of(self.program, self.row.number, &self.args) {
            Ok(None) => return Ok(Claimed::new()),
            Ok(Some(effect)) => Ok(effect),
            Err(why) => Err(why.to_string()),
        };
        let is_limited = |quota: &&Quota| match effect {
            Ok(effect) => effect.is_limited_by(quota),
            // It attaches something, memory perhaps.
            Err(_) => quota.memory.is_some(),
        };
        let quotas: Vec<&Quota> = table.quotas().filter(is_limited).collect();
        if quotas.is_empty() {
            return Ok(Claimed::new());
        }
        // What is only recorded need not be exact, and an upload adds nothing.
        if !table.is_shadow() && effect != Ok(Effect::Upload) {
            self.has_turn(&quotas)?;
        }
        let mut claimed = Claimed::new();
        for quota in quotas {
            let outcome = match &effect {
                Ok(effect) => self.count(quota, *effect, acted, named, progress),
                Err(why) => Err(Halt::Uncountable(why.clone())),
            };
            match outcome {
                Ok(claims) if claims.is_empty() => {}
                Ok(claims) => claimed.push((Arc::clone(&quota.who), claims)),
                // Another quota may have to ask more.
                Err(Halt::Ask) => {}
                Err(Halt::Uncountable(why)) => {
                    let reason = format!("quota of {} cannot be counted: {why}", quota.who);
                    self.exceed(acted, reason, progress)?;
                }
                Err(Halt::Refused(why)) => {
                    self.exceed(acted, format!("quota of {}: {why}", quota.who), progress)?;
                }
            }
        }
        if progress.asked.is_empty() {
            Ok(claimed)
        } else {
            Err(Stop::Ask)
        }
    }

    /// The call has its turn for all these quotas.
    fn has_turn(&self, quotas: &[&Quota]) -> Result<(), Stop> {
        let has = |quota: &&Quota| {
            let others = self.turn.and_then(|turn| turn.others(&quota.who));
            others.is_some()
        };
        if quotas.iter().all(has) {
            return Ok(());
        }
        let mut identities: Vec<_> = quotas.iter().map(|quota| Arc::clone(&quota.who)).collect();
        // Everyone waits for them in the same order, so that no two wait for each other.
        identities.sort_unstable();
        identities.dedup();
        Err(Stop::Await(identities))
    }

    fn count(
        &self,
        quota: &Quota,
        effect: Effect,
        acted: &[Acted<'a>],
        named: &[Named],
        progress: &mut Progress<'a>,
    ) -> Result<Claims, Halt> {
        match effect {
            Effect::NewVolume
            | Effect::Copy
            | Effect::Resize(_)
            | Effect::DiskResize(_)
            | Effect::Upload => self.count_volumes(quota, effect, acted, named, progress),
            Effect::Domains { .. }
            | Effect::Start { .. }
            | Effect::Revert { .. }
            | Effect::Grow(_)
            | Effect::Module(_)
            | Effect::Rename
            | Effect::Unknown => self.count_domains(quota, effect, acted, named, progress),
        }
    }

    /// What other calls on their way claim of an identity.
    fn others(&self, quota: &Quota) -> Claims {
        let others = self.turn.and_then(|turn| turn.others(&quota.who));
        others.cloned().unwrap_or_default()
    }

    fn exceed(
        &self,
        acted: &[Acted<'a>],
        reason: String,
        progress: &mut Progress<'a>,
    ) -> Result<(), Stop> {
        let shadow = self.view.table.is_shadow();
        let object = acted.first().map(|act| act.subject.to_string());
        let refusal = Refusal {
            permission: None,
            object: object.unwrap_or_default(),
            denial: Some(Denial::of_quota(shadow)),
            reason,
        };
        if shadow {
            progress.records.push(refusal);
            return Ok(());
        }
        Err(Stop::Refuse(Box::new(refusal)))
    }
}

/// One limit of a quota, and what it is held against.
struct Limit<'a> {
    /// On what.
    what: &'a str,
    most: u64,
    used: u64,
    wanted: u64,
    is_bytes: bool,
}

impl Limit<'_> {
    /// Whether what is wanted in place of what is used is within it. What is beyond it already may
    /// stay so.
    fn check(&self) -> Result<(), Halt> {
        if self.wanted <= self.most || self.wanted <= self.used {
            return Ok(());
        }
        let number = |number: u64| match self.is_bytes {
            true => Bytes(number).to_string(),
            false => number.to_string(),
        };
        Err(Halt::Refused(format!(
            "{}: limit {}, in use {}, this call adds {}",
            self.what,
            number(self.most),
            number(self.used),
            number(self.wanted - self.used),
        )))
    }
}
