//! The client that `explain` speaks of: given on the command line, completed from the user
//! database as the daemon would.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::sync::Arc;
use virtproxyd::policy::facts::{ClientFacts, UnixFacts};
use virtproxyd::policy::model::{ListenAddress, Listener};

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
                return Err("--as: user=, uid= or the like is needed".to_owned());
            }
            facts.unix = Some(complete(facts.unix)?);
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

/// An id that was not said; no user or group has it.
const UNSAID: u32 = u32::MAX;

/// Adds what this host's user database knows of the client. Names that it does not know stay as
/// they were given: a policy may be tried away from the host that it is for.
fn complete(given: Option<UnixFacts>) -> Result<UnixFacts, String> {
    let mut client = given.unwrap_or_else(|| UnixFacts {
        uid: Uid::effective().as_raw(),
        gid: UNSAID,
        ..UnixFacts::default()
    });
    let user = match &client.user {
        Some(name) => User::from_name(name),
        None if client.uid == UNSAID => Ok(None),
        None => User::from_uid(Uid::from_raw(client.uid)),
    };
    let user = user.map_err(|error| format!("the user database: {error}"))?;

    let mut names: Vec<String> = client.group.take().into_iter().collect();
    names.append(&mut client.group_names);
    let mut gids = std::mem::take(&mut client.groups);
    for name in &names {
        gids.extend(group_id(name)?);
    }
    if let Some(user) = &user {
        gids.extend(memberships(user)?);
        client.user.get_or_insert_with(|| user.name.clone());
        if client.uid == UNSAID {
            client.uid = user.uid.as_raw();
        }
        if client.gid == UNSAID {
            client.gid = user.gid.as_raw();
        }
    } else if client.gid == UNSAID
        && let Some(first) = gids.first()
    {
        client.gid = *first;
    }

    names.extend(gids.iter().filter_map(|gid| group_name(*gid)));
    client.group = group_name(client.gid);
    names.retain(|name| Some(name) != client.group.as_ref());
    gids.retain(|gid| *gid != client.gid);
    names.sort();
    names.dedup();
    gids.sort_unstable();
    gids.dedup();
    (client.group_names, client.groups) = (names, gids);
    Ok(client)
}

fn group_id(name: &str) -> Result<Option<u32>, String> {
    let group = Group::from_name(name).map_err(|error| format!("the group database: {error}"))?;
    Ok(group.map(|group| group.gid.as_raw()))
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
    fn what_is_no_client_is_refused() {
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
        let root = facts(Some("user=root")).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(root.group.as_deref(), Some("root"));
        // What is said counts; what the user has besides is still true.
        let elsewhere = facts(Some("user=root,gid=1")).unwrap();
        assert_eq!((elsewhere.uid, elsewhere.gid), (0, 1));
        assert!(elsewhere.groups.contains(&0));

        let given = "user=stranger,uid=4000000,gid=4000001,group=nobody has this";
        let stranger = facts(Some(given)).unwrap();
        assert_eq!((stranger.uid, stranger.gid), (4_000_000, 4_000_001));
        assert_eq!(stranger.user.as_deref(), Some("stranger"));
        assert_eq!(stranger.group_names, ["nobody has this"]);
        assert!(stranger.groups.is_empty());

        // What is not said is not root.
        let name_only = facts(Some("user=no such user")).unwrap();
        assert_eq!((name_only.uid, name_only.gid), (UNSAID, UNSAID));
        let in_group = facts(Some("user=no such user,group=root")).unwrap();
        assert_eq!((in_group.gid, in_group.group.as_deref()), (0, Some("root")));

        let me = facts(None).unwrap();
        assert_eq!(me.uid, Uid::effective().as_raw());
    }
}
