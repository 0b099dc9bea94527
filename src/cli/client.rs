//! The client that `explain` speaks of: given on the command line, completed from the user
//! database as the daemon would.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::sync::Arc;
use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::{ListenAddress, Listener};

/// What `--as` says of a local client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given {
    user: Option<String>,
    uid: Option<u32>,
    groups: Vec<String>,
    gids: Vec<u32>,
    pid: i32,
    selinux: Option<String>,
}

/// The facts of a client of `listener`, `given` as [`ClientFacts`] are read; of whoever runs us if
/// nothing is given of a local one.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn facts(given: Option<&str>, listener: &Listener) -> Result<ClientFacts, String> {
    let mut facts = parse(given.unwrap_or_default())?;
    facts.listener = Arc::clone(&listener.name);
    facts.readonly = listener.readonly;
    match listener.address {
        ListenAddress::Unix { .. } => {
            if given.is_some() && facts.unix.is_none() {
                return Err("--as: a user= or uid= is needed".to_owned());
            }
            facts.unix = Some(complete(facts.unix.map(Given::from))?);
        }
        ListenAddress::Tcp { .. } if facts.unix.is_some() => {
            return Err(format!(
                "--as: clients of {:?} come by TCP: user=, uid= and the like say nothing of them",
                listener.name
            ));
        }
        ListenAddress::Tcp { .. } => {}
    }
    Ok(facts)
}

fn parse(text: &str) -> Result<ClientFacts, String> {
    text.parse().map_err(|error| format!("--as: {error}"))
}

impl From<UnixFacts> for Given {
    fn from(unix: UnixFacts) -> Self {
        let known = |id: &u32| *id != u32::MAX;
        Self {
            user: unix.user,
            uid: Some(unix.uid).filter(known),
            groups: unix.group.into_iter().chain(unix.group_names).collect(),
            gids: Some(unix.gid)
                .filter(known)
                .into_iter()
                .chain(unix.groups)
                .collect(),
            pid: unix.pid,
            selinux: unix.selinux,
        }
    }
}

fn complete(given: Option<Given>) -> Result<UnixFacts, String> {
    let given = given.unwrap_or_else(|| Given {
        uid: Some(Uid::effective().as_raw()),
        ..Given::default()
    });
    let entry = match (&given.user, given.uid) {
        (Some(name), _) => User::from_name(name),
        (None, Some(uid)) => User::from_uid(Uid::from_raw(uid)),
        (None, None) => return Err("--as: a user= or uid= is needed".to_owned()),
    };
    let entry = entry.map_err(|error| format!("the user database: {error}"))?;
    let uid = given.uid.or(entry.as_ref().map(|user| user.uid.as_raw()));
    let uid = uid.ok_or("--as: no such user; give its uid= too")?;

    let mut groups = given.gids;
    for name in &given.groups {
        groups.push(group_id(name)?);
    }
    let gid = match (&entry, groups.first()) {
        (Some(user), _) => user.gid.as_raw(),
        (None, Some(first)) => *first,
        (None, None) => return Err("--as: no such user; give a group= or gid= too".to_owned()),
    };
    if let Some(user) = &entry {
        groups.extend(memberships(user)?);
    }
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|group| *group != gid);
    Ok(UnixFacts {
        uid,
        gid,
        user: given.user.or(entry.map(|user| user.name)),
        group: group_name(gid),
        group_names: groups.iter().filter_map(|gid| group_name(*gid)).collect(),
        groups,
        pid: given.pid,
        selinux: given.selinux,
        ..UnixFacts::default()
    })
}

fn group_id(name: &str) -> Result<u32, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("--as: no group {name:?}")),
        Err(error) => Err(format!("the group database: {error}")),
    }
}

fn group_name(gid: u32) -> Option<String> {
    Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name)
}

fn memberships(user: &User) -> Result<Vec<u32>, String> {
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
    let groups =
        getgrouplist(&name, user.gid).map_err(|error| format!("the group database: {error}"))?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;

    fn facts(given: Option<&str>) -> Result<UnixFacts, String> {
        let facts = super::facts(given, &listener("unix: /run/l"))?;
        Ok(facts.unix.unwrap())
    }

    fn listener(address: &str) -> Arc<Listener> {
        let text = format!(
            "version: 1\nlisteners: {{l: {{{address}}}}}\nupstreams: {{u: {{unix: /run/u}}}}\n\
             routes: [{{uri: x, upstream: u}}]"
        );
        let loaded = virtproxyd::policy::load("f", &text, &|_| None).unwrap();
        Arc::clone(loaded.policy.listeners.first().unwrap())
    }

    #[test]
    fn every_part_is_read_and_the_rest_refused() {
        let given = Given::from(
            "user=a,uid=1,group=b,group=c,gid=2"
                .parse::<UnixFacts>()
                .unwrap(),
        );
        let expected = Given {
            user: Some("a".to_owned()),
            uid: Some(1),
            groups: vec!["b".to_owned(), "c".to_owned()],
            gids: vec![2],
            ..Given::default()
        };
        assert_eq!(given, expected);
        for bad in ["", "uid=x", "uid=-1", "name=a", "a"] {
            assert!(facts(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn remote_clients_have_no_process() {
        let tls = listener("tcp: '[::]:1', tls: {}");
        let client = super::facts(Some("dn=CN=ci,address=192.0.2.1"), &tls).unwrap();
        assert_eq!(client.x509.unwrap().cn, ["ci"]);
        assert!(client.unix.is_none() && client.address.is_some());
        assert!(super::facts(None, &tls).is_ok());
        assert!(super::facts(Some("user=root"), &tls).is_err());
    }

    #[test]
    fn the_user_database_completes_what_is_given() {
        let root = facts(Some("user=root,gid=1")).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(root.group.as_deref(), Some("root"));
        assert!(root.groups.contains(&1));

        let stranger = facts(Some("user=stranger,uid=4000000,gid=4000001")).unwrap();
        assert_eq!((stranger.uid, stranger.gid), (4_000_000, 4_000_001));
        assert_eq!(stranger.user.as_deref(), Some("stranger"));
        assert!(stranger.groups.is_empty());

        for bad in [
            "user=no such user",
            "uid=4000000",
            "gid=0",
            "user=root,group=no such group",
        ] {
            assert!(facts(Some(bad)).is_err(), "{bad}");
        }
    }
}
