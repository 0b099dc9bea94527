//! One connection's part in what is known of a daemon.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Down, Health, Known, Trouble, entry, wait};
use crate::policy::model::{Address, Upstream};

/// A local daemon that turns a client away this soon costs so little that everybody may try.
const QUICK: Duration = Duration::from_millis(250);

/// Which address of which upstream a connection is to, or tries to be. Dropped without a word, it
/// leaves what is known as it is.
#[derive(Debug)]
pub(in crate::server) struct Standing {
    health: Arc<Health>,
    upstream: Arc<Upstream>,
    place: usize,
    begun: Instant,
    /// It has served a client.
    has_served: Cell<bool>,
    /// Others wait for what becomes of this one.
    on_trial: Cell<bool>,
}

impl Standing {
    pub(super) fn new(
        health: &Arc<Health>,
        upstream: &Arc<Upstream>,
        place: usize,
        begun: Instant,
    ) -> Self {
        Self {
            health: Arc::clone(health),
            upstream: Arc::clone(upstream),
            place,
            begun,
            has_served: Cell::new(false),
            on_trial: Cell::new(false),
        }
    }

    /// Others wait for this one from now on.
    pub(super) fn begin_trial(&self) {
        self.on_trial.set(true);
    }

    /// The daemon is open for a client: it is well.
    pub(in crate::server) fn opened(&self) {
        self.has_served.set(true);
        if self.health.down.load(Ordering::Relaxed) > 0 {
            self.opened_at(Instant::now());
        }
    }

    /// It was reached and cannot be used.
    pub(in crate::server) fn unwell(&self, why: &str) {
        self.unwell_at(why, Instant::now());
    }

    pub(super) fn unwell_at(&self, why: &str, now: Instant) {
        let is_local = matches!(self.address(), Some(Address::Unix { .. }));
        let took = now.saturating_duration_since(self.begun);
        let trouble = match is_local && took < QUICK {
            true => Trouble::Refused,
            false => Trouble::Costly,
        };
        self.failed(why, trouble, now);
    }

    /// What it is a connection to.
    pub(in crate::server) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Where.
    pub(in crate::server) fn address(&self) -> Option<&Address> {
        self.upstream.addresses.get(self.place)
    }

    /// It could not be reached, or not be used.
    pub(in crate::server) fn failed(&self, why: &str, trouble: Trouble, now: Instant) {
        let Some(address) = self.address() else {
            return;
        };
        let Health { down: count, .. } = &*self.health;
        let was_trial = self.on_trial.take();
        let mut upstreams = self.health.upstreams();
        let known = entry(&mut upstreams, count, &self.upstream, now);
        let Some(down) = known.down_at_mut(address) else {
            // That a connection is lost that was good says little of the next one: somebody is to
            // find out at once.
            let next_try = match self.has_served.get() {
                true => now,
                false => now + wait(1),
            };
            known.down.push(Down {
                address: address.clone(),
                since: now,
                failures: 1,
                why: why.to_owned(),
                trouble,
                next_try,
                on_trial: false,
            });
            count.fetch_add(1, Ordering::Relaxed);
            drop(upstreams);
            let upstream = &*self.upstream.name;
            // The failure itself is warned of with its client.
            tracing::info!(upstream, %address, "driver daemon is down: {why}");
            self.health.changed.notify_one();
            return;
        };
        why.clone_into(&mut down.why);
        // Others that set out together with the one that was counted say nothing new.
        let is_news = was_trial || down.trouble != trouble || trouble != Trouble::Costly;
        if is_news {
            let is_worse = down.trouble == trouble;
            down.failures = if is_worse { down.failures + 1 } else { 1 };
            down.next_try = now + wait(down.failures);
            down.trouble = trouble;
        }
        if was_trial {
            down.on_trial = false;
        }
    }

    pub(super) fn opened_at(&self, now: Instant) {
        let Some(address) = self.address() else {
            return;
        };
        self.on_trial.set(false);
        let name = &self.upstream.name;
        let mut upstreams = self.health.upstreams();
        let Some(known) = upstreams.get_mut(name) else {
            return;
        };
        let place = known.down.iter().position(|down| down.address == *address);
        let Some(place) = place else { return };
        let down = known.down.swap_remove(place);
        known.touched = now;
        if known.down.is_empty() && self.upstream.addresses.len() == 1 {
            upstreams.remove(name);
        }
        self.health.down.fetch_sub(1, Ordering::Relaxed);
        drop(upstreams);
        let down_for = now.saturating_duration_since(down.since);
        tracing::info!(upstream = &**name, %address, ?down_for, "driver daemon is up again");
        self.health.changed.notify_one();
    }

    pub(super) fn find<'k>(
        &self,
        upstreams: &'k mut HashMap<Arc<str>, Known>,
    ) -> Option<&'k mut Down> {
        let known = upstreams.get_mut(&self.upstream.name)?;
        let address = self.address()?;
        known.down_at_mut(address)
    }
}

/// Nothing came of a trial: the next dial may find out.
impl Drop for Standing {
    fn drop(&mut self) {
        if self.on_trial.get()
            && let Some(down) = self.find(&mut self.health.upstreams())
        {
            down.on_trial = false;
        }
    }
}
