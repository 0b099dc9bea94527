//! How much is in use, and what calls on their way will use.

use std::fmt;
use std::sync::Arc;

use crate::policy::definition::DomainSize;
use crate::protocol::object::Uuid;

/// How much of everything that quotas limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Domains, defined or running.
    pub domains: u64,
    /// Domains running.
    pub running: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Capacity of volumes in bytes.
    pub volumes: u64,
}

impl Amount {
    /// A domain.
    pub(super) fn domain(running: bool, size: DomainSize) -> Self {
        Self {
            domains: 1,
            running: running.into(),
            vcpus: size.vcpus,
            memory: size.memory,
            volumes: 0,
        }
    }

    /// A volume.
    pub(super) fn volume(bytes: u64) -> Self {
        Self {
            volumes: bytes,
            ..Self::default()
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    pub(super) fn max(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    fn each(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            domains: with(self.domains, other.domains),
            running: with(self.running, other.running),
            vcpus: with(self.vcpus, other.vcpus),
            memory: with(self.memory, other.memory),
            volumes: with(self.volumes, other.volumes),
        }
    }
}

/// Something that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A domain. A new one may have no UUID yet, and of one that is there the name is not needed.
    Domain {
        /// Its UUID.
        uuid: Option<Uuid>,
        /// Its name.
        name: Option<Arc<str>>,
    },
    /// A volume.
    Volume {
        /// Name of its pool.
        pool: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
}

impl Thing {
    /// Whether both are one.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Domain { uuid, name },
                Self::Domain {
                    uuid: its_uuid,
                    name: its_name,
                },
            ) => match (uuid, its_uuid) {
                (Some(uuid), Some(its)) => uuid == its,
                _ => name.is_some() && name == its_name,
            },
            _ => self == other,
        }
    }
}

/// What a thing takes, or will once a call that is on its way has been carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What.
    pub thing: Thing,
    /// How much at the most.
    pub amount: Amount,
}

/// What several things take, each of them once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims(Vec<Claim>);

impl Claims {
    /// Adds a thing, or what more a thing takes that is there already.
    pub fn add(&mut self, claim: Claim) {
        match self.0.iter_mut().find(|known| known.thing.is(&claim.thing)) {
            Some(known) => known.amount = known.amount.max(claim.amount),
            None => self.0.push(claim),
        }
    }

    /// Adds all of these.
    pub fn add_all(&mut self, claims: &Self) {
        for claim in &claims.0 {
            self.add(claim.clone());
        }
    }

    /// Adds a thing that is known not to be there yet.
    pub(super) fn push(&mut self, claim: Claim) {
        self.0.push(claim);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a thing takes.
    pub(super) fn of(&self, thing: &Thing) -> Amount {
        let known = self.0.iter().find(|known| known.thing.is(thing));
        known.map_or_else(Amount::default, |known| known.amount)
    }

    /// What all of them take.
    pub(super) fn total(&self) -> Amount {
        let amounts = self.0.iter().map(|claim| claim.amount);
        amounts.fold(Amount::default(), Amount::plus)
    }
}

/// Bytes, exactly, in the largest unit of which it is a whole number.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
        let (mut number, mut unit) = (self.0, "bytes");
        for next in UNITS.into_iter().skip(1) {
            if number == 0 || !number.is_multiple_of(1024) {
                break;
            }
            (number, unit) = (number / 1024, next);
        }
        write!(f, "{number} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(uuid: Option<u8>, name: Option<&str>, running: bool, vcpus: u64) -> Claim {
        Claim {
            thing: Thing::Domain {
                uuid: uuid.map(|byte| Uuid([byte; 16])),
                name: name.map(Into::into),
            },
            amount: Amount::domain(running, DomainSize { vcpus, memory: 7 }),
        }
    }

    #[test]
    fn a_thing_counts_once_with_the_most_that_is_said_of_it() {
        let mut claims = Claims::default();
        claims.push(domain(Some(1), Some("a"), true, 2));
        // On its way: more CPUs, and it is stopped.
        claims.add(domain(Some(1), None, false, 4));
        // Being defined without a UUID; another of the same name and UUID is there already.
        claims.add(domain(None, Some("a"), false, 1));
        claims.add(domain(None, Some("b"), false, 1));
        claims.add(domain(None, Some("b"), true, 0));
        // The same name, but another domain.
        claims.add(domain(Some(2), Some("a"), false, 8));
        let expected = Amount {
            domains: 3,
            running: 2,
            vcpus: 4 + 1 + 8,
            memory: 21,
            volumes: 0,
        };
        assert_eq!(claims.total(), expected);
        assert_eq!(claims.of(&domain(Some(1), None, false, 0).thing).vcpus, 4);
        assert_eq!(
            claims.of(&domain(Some(9), None, false, 0).thing),
            Amount::default()
        );
    }

    #[test]
    fn volumes_are_told_apart_by_pool_and_name() {
        let volume = |pool: &str, name: &str, bytes| Claim {
            thing: Thing::Volume {
                pool: pool.into(),
                name: name.into(),
            },
            amount: Amount::volume(bytes),
        };
        let mut claims = Claims::default();
        claims.add(volume("p", "a", 5));
        claims.add(volume("p", "a", 3));
        claims.add(volume("q", "a", 2));
        claims.add(volume("q", "b", u64::MAX - 8));
        assert_eq!(claims.total().volumes, u64::MAX - 1);
        claims.add(volume("q", "c", 4));
        assert_eq!(claims.total().volumes, u64::MAX);
    }

    #[test]
    fn bytes_are_exact() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1000, "1000 bytes"),
            (1024, "1 KiB"),
            (64 << 30, "64 GiB"),
            ((64 << 30) + 1, "68719476737 bytes"),
            (1536 << 20, "1536 MiB"),
            (u64::MAX, "18446744073709551615 bytes"),
            (2048 << 50, "2048 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
