//! The client that `explain` speaks of: given on the command line, completed from the user
//! database as the daemon would.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use virtproxyd::policy::facts::UnixFacts;

/// What `--as` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Given {
    user: Option<String>,
    uid: Option<u32>,
    groups: Vec<String>,
    gids: Vec<u32>,
}

/// The facts of a client `given` as `user=NAME,uid=ID,group=NAME,gid=ID`; of whoever runs us if
/// nothing is given.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn facts(given: Option<&str>) -> Result<UnixFacts, String> {
    let given = match given {
        Some(text) => parse(text)?,
        None => Given {
            uid: Some(Uid::effective().as_raw()),
            ..Given::default()
        },
    };
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
        ..UnixFacts::default()
    })
}

fn parse(text: &str) -> Result<Given, String> {
    let mut given = Given::default();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let id = || {
            value
                .parse()
                .map_err(|_| format!("--as: {part:?} is not a number"))
        };
        match key {
            "user" if !value.is_empty() => given.user = Some(value.to_owned()),
            "group" if !value.is_empty() => given.groups.push(value.to_owned()),
            "uid" => given.uid = Some(id()?),
            "gid" => given.gids.push(id()?),
            _ => {
                return Err(format!(
                    "--as: {part:?} is none of user=NAME, uid=ID, group=NAME, gid=ID"
                ));
            }
        }
    }
    Ok(given)
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

    #[test]
    fn every_part_is_read_and_the_rest_refused() {
        let given = parse("user=a,uid=1,group=b,group=c,gid=2").unwrap();
        let expected = Given {
            user: Some("a".to_owned()),
            uid: Some(1),
            groups: vec!["b".to_owned(), "c".to_owned()],
            gids: vec![2],
        };
        assert_eq!(given, expected);
        for bad in ["", "user=", "uid=x", "uid=-1", "name=a", "user=a,", "a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
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
