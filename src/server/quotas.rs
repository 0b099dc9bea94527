//! Whose calls are being counted for quotas, over all connections, and what calls on their way
//! claim.
//!
//! There is an account for each identity before each daemon. The turn to be counted for it goes
//! from one connection to the next in the order in which they asked. Nothing here is touched by
//! calls that do not count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::model::Address;
use crate::session::access::quota::Claims;

/// How long the claims of a call stay that was not answered because a connection has ended: the
/// daemon may still carry it out.
const GRACE: Duration = Duration::from_secs(30);

/// All accounts that are in use.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    accounts: Mutex<HashMap<Key, Arc<Account>>>,
}

/// A daemon, by where it is reached first, and an identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    daemon: Address,
    identity: Arc<str>,
}

#[derive(Debug)]
struct Account {
    turn: Arc<Semaphore>,
    claims: Mutex<Ledger>,
}

/// What is claimed of an account.
#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    entries: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    claims: Claims,
    /// Until then it stays, if nobody is there to release it.
    until: Option<Instant>,
}

impl Quotas {
    /// Waits for the turn of all these identities, which are sorted, so that no two wait for each
    /// other.
    pub(crate) async fn acquire(&self, daemon: Address, identities: Vec<Arc<str>>) -> Turn {
        let mut accounts = Vec::new();
        for identity in identities {
            let key = Key {
                daemon: daemon.clone(),
                identity: Arc::clone(&identity),
            };
            let account = self.account(key);
            // It is never closed.
            let permit = Arc::clone(&account.turn).acquire_owned().await.ok();
            accounts.push((identity, account, permit));
        }
        Turn { accounts }
    }

    fn account(&self, key: Key) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        let now = Instant::now();
        // Those of identities and daemons that are no more.
        accounts.retain(|_, account| Arc::strong_count(account) > 1 || account.has_claims(now));
        let account = accounts.entry(key).or_insert_with(|| {
            Arc::new(Account {
                turn: Arc::new(Semaphore::new(1)),
                claims: Mutex::default(),
            })
        });
        Arc::clone(account)
    }
}

impl Account {
    fn has_claims(&self, now: Instant) -> bool {
        let mut ledger = lock(&self.claims);
        ledger.forget(now);
        !ledger.entries.is_empty()
    }

    /// What is claimed now.
    fn claimed(&self, now: Instant) -> Claims {
        let mut ledger = lock(&self.claims);
        ledger.forget(now);
        let mut all = Claims::default();
        for entry in ledger.entries.values() {
            all.add_all(&entry.claims);
        }
        all
    }
}

impl Ledger {
    fn forget(&mut self, now: Instant) {
        self.entries
            .retain(|_, entry| entry.until.is_none_or(|until| now < until));
    }

    /// Keeps claims for a while of which nobody will say what became of them. Those that are left
    /// so are kept together, so that they are no more than there are things.
    fn leave(&mut self, id: u64, until: Instant) {
        let Some(left) = self.entries.remove(&id) else {
            return;
        };
        let known = self
            .entries
            .values_mut()
            .find(|entry| entry.until.is_some());
        match known {
            Some(known) => {
                known.claims.add_all(&left.claims);
                known.until = known.until.max(Some(until));
            }
            None => {
                let until = Some(until);
                self.entries.insert(id, Entry { until, ..left });
            }
        }
    }
}

/// The turn of some identities.
#[derive(Debug)]
pub(crate) struct Turn {
    accounts: Vec<(Arc<str>, Arc<Account>, Option<OwnedSemaphorePermit>)>,
}

impl Turn {
    /// What other calls claim, by identity.
    pub(crate) fn others(&self) -> Vec<(Arc<str>, Claims)> {
        let now = Instant::now();
        let accounts = self.accounts.iter();
        accounts
            .map(|(identity, account, _)| (Arc::clone(identity), account.claimed(now)))
            .collect()
    }

    /// Notes what a call claims, and gives the turn to the next.
    pub(crate) fn claim(self, claimed: Vec<(Arc<str>, Claims)>) -> Vec<Claimed> {
        let mut held = Vec::new();
        for (who, claims) in claimed {
            let account = self.accounts.iter().find(|(identity, ..)| *identity == who);
            if let Some((_, account, _)) = account {
                held.push(Claimed::new(account, claims));
            }
        }
        held
    }
}

/// What a call claims of one account, until this is dropped.
#[derive(Debug)]
pub(crate) struct Claimed {
    account: Arc<Account>,
    id: u64,
    is_known: bool,
}

impl Claimed {
    fn new(account: &Arc<Account>, claims: Claims) -> Self {
        let mut ledger = lock(&account.claims);
        let id = ledger.next;
        ledger.next = id.wrapping_add(1);
        let until = None;
        ledger.entries.insert(id, Entry { claims, until });
        drop(ledger);
        Self {
            account: Arc::clone(account),
            id,
            is_known: false,
        }
    }

    /// The daemon shows what has become of it: the claims go at once.
    pub(crate) fn known(mut self) {
        self.is_known = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut ledger = lock(&self.account.claims);
        if self.is_known {
            ledger.entries.remove(&self.id);
        } else {
            ledger.leave(self.id, Instant::now() + GRACE);
        }
    }
}

/// What is done under these locks leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::session::access::quota::amount::{Amount, Claim, Thing};

    fn acquire<'a>(
        quotas: &'a Quotas,
        identities: &[&str],
    ) -> impl Future<Output = Turn> + use<'a> {
        let identities = identities.iter().map(|&it| it.into()).collect();
        quotas.acquire(daemon("/run/daemon"), identities)
    }

    fn daemon(path: &str) -> Address {
        Address::Unix {
            path: path.into(),
            readonly: None,
        }
    }

    fn poll<T>(future: impl Future<Output = T> + Unpin) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn a_domain(name: &str) -> Claims {
        let mut claims = Claims::default();
        claims.add(Claim {
            thing: Thing::Domain {
                uuid: None,
                name: Some(name.into()),
            },
            amount: Amount {
                domains: 1,
                ..Amount::default()
            },
        });
        claims
    }

    fn domains(quotas: &Quotas, identity: &str) -> u64 {
        let turn = poll(Box::pin(acquire(quotas, &[identity]))).unwrap();
        let others = turn.others();
        others
            .iter()
            .flat_map(|(_, claims)| claims.iter())
            .map(|it| it.amount.domains)
            .sum()
    }

    #[test]
    fn turns_come_one_after_the_other_in_the_order_asked() {
        let quotas = Quotas::default();
        let first = poll(Box::pin(acquire(&quotas, &["a"]))).unwrap();
        let mut second = Box::pin(acquire(&quotas, &["a"]));
        let mut third = Box::pin(acquire(&quotas, &["a"]));
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
        // Another identity's, and the same before another daemon, have nothing to do with it.
        assert!(poll(Box::pin(acquire(&quotas, &["b"]))).is_some());
        let elsewhere = quotas.acquire(daemon("/run/other"), vec!["a".into()]);
        assert!(poll(Box::pin(elsewhere)).is_some());
        drop(first);
        assert!(poll(&mut third).is_none());
        let second = poll(&mut second).unwrap();
        drop(second);
        assert!(poll(&mut third).is_some());
    }

    #[test]
    fn who_waits_no_more_is_not_waited_for() {
        let quotas = Quotas::default();
        let first = poll(Box::pin(acquire(&quotas, &["a"]))).unwrap();
        let mut second = Box::pin(acquire(&quotas, &["a", "b"]));
        assert!(poll(&mut second).is_none());
        drop(second);
        drop(first);
        assert!(poll(Box::pin(acquire(&quotas, &["a", "b"]))).is_some());
    }

    #[test]
    fn claims_are_seen_by_the_next_until_they_are_known() {
        let quotas = Quotas::default();
        let turn = poll(Box::pin(acquire(&quotas, &["a", "b"]))).unwrap();
        let claimed = turn.claim(vec![("a".into(), a_domain("x"))]);
        // The turn is over.
        assert_eq!((domains(&quotas, "a"), domains(&quotas, "b")), (1, 0));
        claimed.into_iter().for_each(Claimed::known);
        assert_eq!(domains(&quotas, "a"), 0);
    }

    #[test]
    fn claims_that_nobody_releases_stay_for_a_while() {
        let quotas = Quotas::default();
        for _ in 0..3 {
            let turn = poll(Box::pin(acquire(&quotas, &["a"]))).unwrap();
            drop(turn.claim(vec![("a".into(), a_domain("x"))]));
        }
        // The same thing three times.
        assert_eq!(domains(&quotas, "a"), 1);
        let account = quotas.account(Key {
            daemon: daemon("/run/daemon"),
            identity: "a".into(),
        });
        assert_eq!(lock(&account.claims).entries.len(), 1);
        assert!(!account.claimed(Instant::now() + GRACE / 2).is_empty());
        assert!(account.claimed(Instant::now() + GRACE).is_empty());
    }

    #[test]
    fn accounts_that_nobody_uses_are_forgotten() {
        let quotas = Quotas::default();
        let kept = poll(Box::pin(acquire(&quotas, &["kept"]))).unwrap();
        let turn = poll(Box::pin(acquire(&quotas, &["claimed"]))).unwrap();
        let claimed = turn.claim(vec![("claimed".into(), a_domain("x"))]);
        for identity in ["a", "b"] {
            drop(poll(Box::pin(acquire(&quotas, &[identity]))).unwrap());
        }
        assert_eq!(lock(&quotas.accounts).len(), 3);
        drop((kept, claimed));
    }
}
