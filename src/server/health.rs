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
            let down = address.and_then(|address| known.down_at(address));
            down.is_some_and(|down| !down.is_due(now))
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

    /// Which upstreams cannot be used, in words; `None`: all can, as far as is known. One that has
    /// no socket is not told of: a policy names daemons that not every host has.
    pub(super) fn summary(&self, policy: &Policy) -> Option<String> {
        let of_policy = policy.upstreams.iter().map(|known| (&*known.name, known));
        let of_policy: HashMap<&str, _> = of_policy.collect();
        let upstreams = self.upstreams();
        let of_all = upstreams.iter().map(|(name, known)| (&**name, known));
        let down = of_all.filter(|(name, known)| {
            let mut down = known.down.iter();
            down.any(|down| down.trouble != Trouble::Absent)
                // With another address left, it is not down.
                && of_policy.get(name).is_none_or(|upstream| {
                    let mut addresses = upstream.addresses.iter();
                    addresses.all(|address| known.down_at(address).is_some())
                })
        });
        let mut names: Vec<&str> = down.map(|(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        let shown = names.get(..MAX_NAMES.min(count))?.join(", ");
        let rest = match count.saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        // Those that templates make are not counted in the policy.
        let of = match names.iter().all(|name| of_policy.contains_key(name)) {
            true => format!(" of {}", policy.upstreams.len()),
            false => String::new(),
        };
        (count > 0).then(|| format!("{count}{of} upstreams down: {shown}{rest}"))
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

impl Known {
    fn down_at(&self, address: &Address) -> Option<&Down> {
        self.down.iter().find(|down| down.address == *address)
    }

    fn down_at_mut(&mut self, address: &Address) -> Option<&mut Down> {
        self.down.iter_mut().find(|down| down.address == *address)
    }
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
#[cfg(test)]
pub(crate) use tests::Ailing;
