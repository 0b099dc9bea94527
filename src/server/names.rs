//! Names of user and group ids, from the system's user database, remembered for a while.
//!
//! A look-up may ask a directory server and block for seconds, so it must only be made on a
//! blocking thread; what is remembered may be had anywhere. The memory makes look-ups rare, and its
//! age limit lets changes come through.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

/// Ids remembered of each kind; far more than a host has active users.
const MAX_ENTRIES: usize = 1024;
/// How long a name is believed.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Remembers names of ids.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: Cache<u32, Option<String>>,
    groups: Cache<u32, Option<String>>,
}

/// What is done about a name that is not remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The user database is asked, which blocks.
    Ask,
    /// It is an error of kind [`io::ErrorKind::WouldBlock`].
    Refuse,
}

impl Names {
    /// Name of a user id, `None` if it has none.
    ///
    /// # Errors
    /// The user database could not or must not be asked: whether there is a name is not known.
    pub(crate) fn user(&self, uid: u32, unknown: Unknown) -> io::Result<Option<String>> {
        self.users.get_or(uid, || {
            unknown.may_block()?;
            known(User::from_uid(Uid::from_raw(uid))).map(|user| Some(user?.name))
        })
    }

    /// Name of a group id, `None` if it has none.
    ///
    /// # Errors
    /// As for [`user`](Self::user).
    pub(crate) fn group(&self, gid: u32, unknown: Unknown) -> io::Result<Option<String>> {
        self.groups.get_or(gid, || {
            unknown.may_block()?;
            known(Group::from_gid(Gid::from_raw(gid))).map(|group| Some(group?.name))
        })
    }
}

impl Unknown {
    fn may_block(self) -> io::Result<()> {
        match self {
            Self::Ask => Ok(()),
            Self::Refuse => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// Id of a group by its name. Blocks.
///
/// # Errors
/// The group database could not be asked.
pub(crate) fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(known(Group::from_name(name))?.map(|group| group.gid.as_raw()))
}

/// The errors that mean "no such entry" differ by database module; getpwnam(3) lists them.
fn known<T>(found: nix::Result<Option<T>>) -> io::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        other => Ok(other?),
    }
}

#[derive(Debug)]
struct Cache<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    /// The lock is not held while `look_up` runs: a slow answer holds up nobody else.
    fn get_or(&self, key: K, look_up: impl FnOnce() -> io::Result<V>) -> io::Result<V> {
        let now = Instant::now();
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < MAX_AGE;
        {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, value)) = entries.get(&key)
                && fresh(at)
            {
                return Ok(value.clone());
            }
        }
        let value = look_up()?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, (at, _)| fresh(at));
        }
        if entries.len() >= MAX_ENTRIES {
            entries.clear();
        }
        entries.insert(key, (now, value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;

    #[test]
    fn names_of_known_and_unknown_ids() {
        let names = Names::default();
        let error = names.user(0, Unknown::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        for unknown in [Unknown::Ask, Unknown::Refuse] {
            assert_eq!(names.user(0, unknown).unwrap().as_deref(), Some("root"));
            assert_eq!(names.group(0, unknown).unwrap().as_deref(), Some("root"));
            assert_eq!(names.user(3_999_999_999, unknown).unwrap(), None);
        }
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(group_id("no such group").unwrap(), None);
    }

    #[test]
    fn the_memory_answers_again_stays_bounded_and_keeps_no_failure() {
        let cache = Cache::<u32, u32>::default();
        assert_eq!(cache.get_or(1, || Ok(10)).unwrap(), 10);
        assert_eq!(cache.get_or(1, || Ok(11)).unwrap(), 10);
        assert!(cache.get_or(2, || Err(io::Error::other("down"))).is_err());
        assert_eq!(cache.get_or(2, || Ok(20)).unwrap(), 20);
        for key in 0..5000 {
            cache.get_or(key, || Ok(key)).unwrap();
            assert!(cache.entries.lock().unwrap().len() <= MAX_ENTRIES);
        }
    }
}
