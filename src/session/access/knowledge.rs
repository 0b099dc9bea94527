//! What is known of the objects behind one upstream connection.
//!
//! A pair of UUID and name is kept only while the daemon has promised to tell of changes: the proxy
//! registers for the events of a class itself when it first asks about one. A pair is learned only
//! from a reply to a call that was sent after that promise, and only if no event of the class came
//! between the call and its reply, since either may have been made first.

use std::collections::HashMap;

use super::Class;
use super::watches::Watches;
use crate::protocol::header::Procedure;
use crate::protocol::object::{Object, Uuid};
use crate::protocol::payload::Payload;
use crate::protocol::table::remote;

/// Pairs that are kept of a class. One more, and all are forgotten and learned anew.
const PAIRS: usize = 65_536;

/// `VIR_DOMAIN_EVENT_SUSPENDED`, `_RESUMED`, `_SHUTDOWN`, `_PMSUSPENDED`, `_CRASHED`.
const SUSPENDED: i32 = 3;
const RESUMED: i32 = 4;
const SHUTDOWN: i32 = 6;
const PMSUSPENDED: i32 = 7;
const CRASHED: i32 = 8;

/// `VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT`, `VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT`.
const SUSPENDED_FROM_SNAPSHOT: i32 = 5;
const RESUMED_FROM_SNAPSHOT: i32 = 2;

/// What is known of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) name: Box<str>,
    /// Per owner mark; `None` is not asked yet.
    owners: Vec<Option<Option<Box<str>>>>,
}

/// What is known of the objects of one class.
#[derive(Debug)]
struct Known<T> {
    pairs: HashMap<Uuid, T>,
    /// Events that changed something.
    epoch: u64,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self {
            pairs: HashMap::new(),
            epoch: 0,
        }
    }
}

impl<T> Known<T> {
    fn learn(&mut self, uuid: Uuid, value: T) {
        if self.pairs.len() >= PAIRS {
            self.pairs.clear();
        }
        self.pairs.insert(uuid, value);
    }

    fn forget_all(&mut self) {
        self.pairs.clear();
        self.epoch += 1;
    }
}

/// When a call was made, to tell whether its reply may teach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Since {
    /// Per watched class: the epoch, if the class was watched then.
    epochs: [Option<u64>; 4],
}

impl Since {
    /// Nothing was watched then: the reply teaches nothing.
    pub(super) fn is_blind(&self) -> bool {
        self.epochs.iter().all(Option::is_none)
    }
}

/// Everything that is known of the objects behind a connection.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    domains: Known<Domain>,
    networks: Known<Box<str>>,
    pools: Known<Box<str>>,
    secrets: Known<(i32, Box<str>)>,
}

impl Knowledge {
    /// Nothing tells of changes of this class any more.
    pub(super) fn forget(&mut self, class: Class) {
        match class {
            Class::Domain => self.domains.forget_all(),
            Class::Network => self.networks.forget_all(),
            Class::StoragePool => self.pools.forget_all(),
            Class::Secret => self.secrets.forget_all(),
            _ => {}
        }
    }

    /// Something has changed, and it cannot be told what.
    pub(super) fn forget_all(&mut self) {
        for class in [
            Class::Domain,
            Class::Network,
            Class::StoragePool,
            Class::Secret,
        ] {
            self.forget(class);
        }
    }

    /// Now, for a call that is made.
    pub(super) fn now(&self, watches: &Watches) -> Since {
        let epoch = |class, epoch| watches.covers(class).then_some(epoch);
        Since {
            epochs: [
                epoch(Class::Domain, self.domains.epoch),
                epoch(Class::Network, self.networks.epoch),
                epoch(Class::StoragePool, self.pools.epoch),
                epoch(Class::Secret, self.secrets.epoch),
            ],
        }
    }

    /// An object in a reply to a call that was made then.
    pub(super) fn learn(&mut self, object: &Object<'_>, since: Since) {
        fn fresh<T>(known: &Known<T>, since: Option<u64>) -> bool {
            since == Some(known.epoch)
        }
        let [domains, networks, pools, secrets] = since.epochs;
        match *object {
            Object::Domain { name, uuid, .. } if fresh(&self.domains, domains) => {
                match self.domains.pairs.get_mut(&uuid) {
                    Some(domain) if *domain.name == *name => {}
                    _ => {
                        let domain = Domain {
                            name: name.into(),
                            owners: Vec::new(),
                        };
                        self.domains.learn(uuid, domain);
                    }
                }
            }
            Object::Network { name, uuid } if fresh(&self.networks, networks) => {
                self.networks.learn(uuid, name.into());
            }
            Object::StoragePool { name, uuid } if fresh(&self.pools, pools) => {
                self.pools.learn(uuid, name.into());
            }
            Object::Secret {
                uuid,
                usage_type,
                usage,
            } if fresh(&self.secrets, secrets) => {
                self.secrets.learn(uuid, (usage_type, usage.into()));
            }
            _ => {}
        }
    }

    /// What an owner mark says of a domain, from a reply to a call that was made then.
    pub(super) fn learn_owner(
        &mut self,
        uuid: Uuid,
        mark: usize,
        owner: Option<&str>,
        since: Since,
    ) {
        let [domains, ..] = since.epochs;
        if domains == Some(self.domains.epoch)
            && let Some(domain) = self.domains.pairs.get_mut(&uuid)
        {
            if domain.owners.len() <= mark {
                domain.owners.resize(mark + 1, None);
            }
            if let Some(slot) = domain.owners.get_mut(mark) {
                *slot = Some(owner.map(Into::into));
            }
        }
    }

    /// The name of a domain.
    pub(super) fn domain(&self, uuid: Uuid) -> Option<&str> {
        self.domains.pairs.get(&uuid).map(|domain| &*domain.name)
    }

    /// What an owner mark says of a domain, if that is known.
    pub(super) fn owner(&self, uuid: Uuid, mark: usize) -> Option<Option<&str>> {
        let owner = self.domains.pairs.get(&uuid)?.owners.get(mark)?.as_ref()?;
        Some(owner.as_deref())
    }

    /// The name of a network.
    pub(super) fn network(&self, uuid: Uuid) -> Option<&str> {
        self.networks.pairs.get(&uuid).map(|name| &**name)
    }

    /// The name of a pool.
    pub(super) fn pool(&self, uuid: Uuid) -> Option<&str> {
        self.pools.pairs.get(&uuid).map(|name| &**name)
    }

    /// Usage type and usage of a secret.
    pub(super) fn secret(&self, uuid: Uuid) -> Option<(i32, &str)> {
        let (kind, usage) = self.secrets.pairs.get(&uuid)?;
        Some((*kind, usage))
    }

    /// An event that the daemon sends. Whatever it says of an object, what was known of that is
    /// forgotten: asking again costs one call.
    pub(super) fn heard(&mut self, procedure: Procedure, event: &Payload<'_>) {
        let Some(found) = event.objects().next() else {
            return;
        };
        // The words behind the object, in the old form of the event and within the message of the
        // new.
        let word = |at: usize| {
            let rest = event.bytes().get(found.range.end + at..)?;
            rest.first_chunk::<4>()
                .map(|word| i32::from_be_bytes(*word))
        };
        let (kind, detail) = (word(0), word(4));
        match (procedure, found.object) {
            (
                remote::DOMAIN_EVENT_LIFECYCLE | remote::DOMAIN_EVENT_CALLBACK_LIFECYCLE,
                Object::Domain { uuid, name, .. },
            ) => {
                let changed = match (kind, detail) {
                    (Some(SUSPENDED), Some(detail)) => detail == SUSPENDED_FROM_SNAPSHOT,
                    (Some(RESUMED), Some(detail)) => detail == RESUMED_FROM_SNAPSHOT,
                    (Some(SHUTDOWN | PMSUSPENDED | CRASHED), _) => false,
                    _ => true,
                };
                if changed || self.domain(uuid) != Some(name) {
                    self.domains.epoch += 1;
                    self.domains.pairs.remove(&uuid);
                }
            }
            (remote::DOMAIN_EVENT_CALLBACK_METADATA_CHANGE, Object::Domain { uuid, .. }) => {
                self.domains.epoch += 1;
                self.domains.pairs.remove(&uuid);
            }
            (remote::NETWORK_EVENT_LIFECYCLE, Object::Network { uuid, .. }) => {
                self.networks.epoch += 1;
                self.networks.pairs.remove(&uuid);
            }
            (remote::STORAGE_POOL_EVENT_LIFECYCLE, Object::StoragePool { uuid, .. }) => {
                self.pools.epoch += 1;
                self.pools.pairs.remove(&uuid);
            }
            (remote::SECRET_EVENT_LIFECYCLE, Object::Secret { uuid, .. }) => {
                self.secrets.epoch += 1;
                self.secrets.pairs.remove(&uuid);
            }
            _ => {}
        }
    }
}
