//! How driver daemons are, from what becomes of real connections to them.
//!
//! What is known is what went wrong: an address that nothing is known of is well, and costs a dial
//! one load of a counter. One that costs a client its time is left alone for a while, which doubles
//! with each failure; then a single dial finds out, and the others still fail at once. What fails
//! for free (a UNIX socket that is absent or refuses) is known too, and tried by everybody.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::policy::model::{Address, Policy, Upstream};

mod standing;

pub(super) use standing::Standing;

/// How long an address is left alone after its first failure; doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);

/// Upstreams that something is known of. A template can be asked for as many as its pattern
/// matches, which must not fill memory.
const MAX_UPSTREAMS: usize = 4096;

/// Names of upstreams in a status line.
const MAX_NAMES: usize = 5;

/// What is known of every upstream.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Addresses that are down.
    down: AtomicUsize,
    upstreams: Mutex<HashMap<Arc<str>, Known>>,
    changed: Notify,
}

#[derive(Debug)]
struct Known {
    /// Which address is first next time.
    turn: usize,
    down: Vec<Down>,
    touched: Instant,
}

#[derive(Debug)]
struct Down {
    address: Address,
    since: Instant,
    /// In a row, of those that were tried one at a time.
    failures: u32,
    why: String,
    trouble: Trouble,
    /// Nobody tries before then, unless trying is free.
    next_try: Instant,
    /// Somebody is trying.
    on_trial: bool,
}

/// What a failure means for the next dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no such UNIX socket: the daemon may not be installed. Trying again is free.
    Absent,
    /// Nobody listens on the UNIX socket, or the daemon turns clients away at once. Trying again is
    /// free.
    Refused,
    /// It takes a client's time, or an effort.
    Costly,
}

/// An address that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code, reason = "no command asks for it yet")]
pub(crate) struct Ailing {
    /// Name of the upstream.
    pub(crate) upstream: Arc<str>,
    /// Which of its addresses.
    pub(crate) address: Address,
    /// For how long.
    pub(crate) down_for: Duration,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The last one.
    pub(crate) why: String,
    /// When it is tried again; `None`: with the next dial.
    pub(crate) retry_in: Option<Duration>,
    /// A dial is finding out.
    pub(crate) on_trial: bool,
    /// It is a UNIX socket that is not there.
    pub(crate) is_absent: bool,
}

impl Health {
    /// The addresses of an upstream, by their place: those that are well first, from another one
    /// each time, so that load spreads. One whose time to be tried again has come is among them:
    /// with another one that is well, nobody else would ever find out.
    pub(super) fn order(&self, upstream: &Upstream, now: Instant) -> Vec<usize> {
        let count = upstream.addresses.len();
        let mut upstreams = self.upstreams();
        let known = entry(&mut upstreams, &self.down, upstream, now);
        let turn = known.turn;
        known.turn = turn.wrapping_add(1);
        let places = (0..count).map(|step| turn.wrapping_add(step) % count);
        let is_down = |place: &usize| {
            let address = upstream.addresses.get(*place);
            let mut downs = known.down.iter();
            downs.any(|down| Some(&down.address) == address && !down.is_due(now))
        };
        let (down, mut well): (Vec<_>, Vec<_>) = places.partition(is_down);
        well.extend(down);
        well
    }

    /// Lets a dial try an address, or says why that would be in vain.
    pub(super) fn admit(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        place: usize,
        now: Instant,
    ) -> Result<Standing, String> {
        let standing = Standing::new(self, upstream, place, now);
        if self.down.load(Ordering::Relaxed) == 0 {
            return Ok(standing);
        }
        let mut upstreams = self.upstreams();
        let Some(down) = standing.find(&mut upstreams) else {
            return Ok(standing);
        };
        if down.trouble != Trouble::Costly {
            return Ok(standing);
        }
        if !down.is_due(now) {
            return Err(down.refusal(&upstream.name, now));
        }
        down.on_trial = true;
        standing.begin_trial();
        Ok(standing)
    }

    /// A new policy or new certificates are in force: what the policy does not name is forgotten,
    /// and the rest may have been mended.
    pub(super) fn reconsider(&self, policy: &Policy, now: Instant) {
        let mut upstreams = self.upstreams();
        upstreams.retain(|name, known| {
            let is_there = policy.upstreams.iter().any(|known| known.name == *name);
            if !is_there {
                self.down.fetch_sub(known.down.len(), Ordering::Relaxed);
            }
            is_there
        });
        let all = upstreams.values_mut().flat_map(|known| &mut known.down);
        all.for_each(|down| down.next_try = now);
        self.changed.notify_one();
    }

    /// Waits until an upstream has gone down or come up. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Every address that is down, by the names of the upstreams.
    pub(crate) fn snapshot(&self, now: Instant) -> Vec<Ailing> {
        let upstreams = self.upstreams();
        let mut all: Vec<Ailing> = upstreams
            .iter()
            .flat_map(|(name, known)| known.down.iter().map(|down| down.ailing(name, now)))
            .collect();
        all.sort_by(|one, other| one.upstream.cmp(&other.upstream));
        all
    }

    /// Which upstreams cannot be used, in words; `None`: all can, as far as is known. One that has
    /// no socket is not told of: a policy names daemons that not every host has.
    pub(super) fn summary(&self, policy: &Policy, now: Instant) -> Option<String> {
        let mut names: Vec<Arc<str>> = Vec::new();
        for ailing in self.snapshot(now) {
            if !ailing.is_absent && names.last() != Some(&ailing.upstream) {
                names.push(ailing.upstream);
            }
        }
        let of_policy = |name: &Arc<str>| policy.upstreams.iter().find(|known| known.name == *name);
        // With another address left, it is not down.
        names.retain(|name| of_policy(name).is_none_or(|upstream| self.is_down(upstream)));
        let count = names.len();
        let shown = names.get(..MAX_NAMES.min(count))?.join(", ");
        let rest = match count.saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        // Those that templates make are not counted in the policy.
        let of = match names.iter().all(|name| of_policy(name).is_some()) {
            true => format!(" of {}", policy.upstreams.len()),
            false => String::new(),
        };
        (count > 0).then(|| format!("{count}{of} upstreams down: {shown}{rest}"))
    }

    fn is_down(&self, upstream: &Upstream) -> bool {
        let upstreams = self.upstreams();
        let down = upstreams.get(&upstream.name).map(|known| &known.down);
        upstream.addresses.iter().all(|address| {
            down.is_some_and(|down| down.iter().any(|down| down.address == *address))
        })
    }

    fn upstreams(&self) -> MutexGuard<'_, HashMap<Arc<str>, Known>> {
        self.upstreams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of this upstream; the one that was touched least lately makes room for it, one
/// that is well before others.
fn entry<'k>(
    upstreams: &'k mut HashMap<Arc<str>, Known>,
    down: &AtomicUsize,
    upstream: &Upstream,
    now: Instant,
) -> &'k mut Known {
    if upstreams.len() >= MAX_UPSTREAMS && !upstreams.contains_key(&upstream.name) {
        let oldest = upstreams
            .iter()
            .min_by_key(|(_, known)| (!known.down.is_empty(), known.touched))
            .map(|(name, _)| Arc::clone(name));
        if let Some(known) = oldest.and_then(|name| upstreams.remove(&name)) {
            down.fetch_sub(known.down.len(), Ordering::Relaxed);
        }
    }
    let known = upstreams
        .entry(Arc::clone(&upstream.name))
        .or_insert(Known {
            turn: 0,
            down: Vec::new(),
            touched: now,
        });
    known.touched = now;
    known
}

impl Down {
    /// It is time that somebody tries it.
    fn is_due(&self, now: Instant) -> bool {
        !self.on_trial && now >= self.next_try
    }

    fn refusal(&self, upstream: &str, now: Instant) -> String {
        let Self { address, why, .. } = self;
        let since = now.saturating_duration_since(self.since).as_secs();
        let next = match self.next_try.saturating_duration_since(now) {
            _ if self.on_trial => "it is being tried now".to_owned(),
            // Rounded up: it is not before.
            left => format!("tried again in {} s", left.as_millis().div_ceil(1000)),
        };
        let place = match address {
            // Its arguments are nothing for clients.
            Address::Command(_) => String::new(),
            address => format!(" at {address}"),
        };
        format!("{upstream}{place} is down since {since} s: {why}; {next}")
    }

    fn ailing(&self, upstream: &Arc<str>, now: Instant) -> Ailing {
        let left = self.next_try.saturating_duration_since(now);
        Ailing {
            upstream: Arc::clone(upstream),
            address: self.address.clone(),
            down_for: now.saturating_duration_since(self.since),
            failures: self.failures,
            why: self.why.clone(),
            retry_in: (self.trouble == Trouble::Costly && !left.is_zero()).then_some(left),
            on_trial: self.on_trial,
            is_absent: self.trouble == Trouble::Absent,
        }
    }
}

/// How long an address is left alone after so many failures, give or take a quarter: those that
/// went down together must not be tried together.
fn wait(failures: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let wait = doubled.min(LAST_WAIT);
    let random = RandomState::new().hash_one(failures) % 256;
    wait * 3 / 4 + wait / 512 * u32::try_from(random).unwrap_or_default()
}

#[cfg(test)]
mod tests;
