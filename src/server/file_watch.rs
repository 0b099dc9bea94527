//! Notices that a file may have changed: written in place, replaced by a rename, or reached
//! through symbolic links of which one now leads elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Quiet time after which a burst of changes is taken to be over.
const QUIET: Duration = Duration::from_millis(100);
/// Longest burst: a file that changes all the time is looked at this often.
const LONGEST_BURST: Duration = Duration::from_secs(2);
/// Symbolic links followed, as the kernel does.
const MAX_LINKS: usize = 40;

/// Watches files until dropped.
#[derive(Debug)]
pub(crate) struct FileWatch {
    task: JoinHandle<()>,
}

impl FileWatch {
    /// Calls `changed.notify_one()` after each burst of changes to one of `paths`, absolute paths.
    /// The files may also be found unchanged then.
    ///
    /// # Errors
    /// The system cannot watch (no such directory, or too many watches).
    pub(crate) fn start(paths: Vec<PathBuf>, changed: Arc<Notify>) -> notify::Result<Self> {
        let event = Arc::new(Notify::new());
        let mut armed = Armed::new(&paths, Arc::clone(&event))?;
        let task = tokio::spawn(async move {
            loop {
                event.notified().await;
                let start = Instant::now();
                while start.elapsed() < LONGEST_BURST
                    && timeout(QUIET, event.notified()).await.is_ok()
                {}
                // Links may have moved. Watch the new way before the file is read, so that no
                // change falls in between.
                match Armed::new(&paths, Arc::clone(&event)) {
                    // The old watches go only now: what they saw meanwhile is not lost.
                    Ok(new) => drop(std::mem::replace(&mut armed, new)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot follow the files that are watched")
                    }
                }
                changed.notify_one();
            }
        });
        Ok(Self { task })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches on every directory on the way to the files.
struct Armed {
    _watcher: RecommendedWatcher,
}

impl Armed {
    fn new(paths: &[PathBuf], event: Arc<Notify>) -> notify::Result<Self> {
        let ways = paths.iter().flat_map(|path| names_on_the_way(path));
        let names: BTreeSet<PathBuf> = ways.collect();
        let directories: BTreeSet<PathBuf> = names
            .iter()
            .filter_map(|name| Some(name.parent()?.to_path_buf()))
            .collect();
        let mut watcher =
            notify::recommended_watcher(move |seen: notify::Result<Event>| match seen {
                Ok(seen) if !concerns(&seen, &names) => {}
                // An error may mean a lost event: look at the file.
                Ok(_) | Err(_) => event.notify_one(),
            })?;
        for directory in directories {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(Self { _watcher: watcher })
    }
}

/// Whether an event may change what the file's path leads to. Reading the file makes events too,
/// which must not make us read it again.
fn concerns(event: &Event, names: &BTreeSet<PathBuf>) -> bool {
    if event.need_rescan() {
        return true;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.paths.iter().any(|path| {
        names
            .iter()
            .any(|name| name == path || name.parent() == Some(path))
    })
}

/// The symbolic links that are followed to reach `path`, and the file in the end.
fn names_on_the_way(path: &Path) -> BTreeSet<PathBuf> {
    let mut names = BTreeSet::new();
    let mut links = 0;
    let mut reached = PathBuf::from("/");
    let mut rest = components(path);
    while let Some(component) = rest.pop_front() {
        if component == ".." {
            reached.pop();
            continue;
        }
        reached.push(component);
        let Ok(target) = reached.read_link() else {
            continue;
        };
        names.insert(reached.clone());
        links += 1;
        if links > MAX_LINKS {
            return names;
        }
        if target.is_absolute() {
            reached = PathBuf::from("/");
        } else {
            reached.pop();
        }
        for component in components(&target).into_iter().rev() {
            rest.push_front(component);
        }
    }
    names.insert(reached);
    names
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory as Kubernetes mounts a ConfigMap: `routes.yaml` → `..data/routes.yaml`,
    /// `..data` → `..one`.
    fn config_map() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("..one")).unwrap();
        fs::write(root.join("..one/routes.yaml"), "one").unwrap();
        symlink("..one", root.join("..data")).unwrap();
        symlink("..data/routes.yaml", root.join("routes.yaml")).unwrap();
        (dir, root)
    }

    #[test]
    fn every_link_and_the_file_are_on_the_way() {
        let (_dir, root) = config_map();
        let names: Vec<_> = names_on_the_way(&root.join("routes.yaml"))
            .into_iter()
            .map(|name| name.strip_prefix(&root).unwrap().to_path_buf())
            .collect();
        assert_eq!(
            names,
            ["..data", "..one/routes.yaml", "routes.yaml"].map(PathBuf::from)
        );
    }

    #[test]
    fn a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loop");
        symlink("loop", &path).unwrap();
        assert!(names_on_the_way(&path).contains(&path));
    }

    async fn expect(changed: &Notify) {
        timeout(Duration::from_secs(10), changed.notified())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_write_a_rename_and_a_moved_link_are_seen() {
        let (_dir, root) = config_map();
        let changed = Arc::new(Notify::new());
        let _watch =
            FileWatch::start(vec![root.join("routes.yaml")], Arc::clone(&changed)).unwrap();

        fs::write(root.join("..one/routes.yaml"), "written").unwrap();
        expect(&changed).await;

        fs::write(root.join("..one/new"), "renamed").unwrap();
        fs::rename(root.join("..one/new"), root.join("..one/routes.yaml")).unwrap();
        expect(&changed).await;

        fs::create_dir(root.join("..two")).unwrap();
        fs::write(root.join("..two/routes.yaml"), "two").unwrap();
        symlink("..two", root.join("..tmp")).unwrap();
        fs::rename(root.join("..tmp"), root.join("..data")).unwrap();
        expect(&changed).await;

        // The way leads through the new directory now.
        let way = names_on_the_way(&root.join("routes.yaml"));
        assert!(way.contains(&root.join("..two/routes.yaml")));
        fs::write(root.join("..two/routes.yaml"), "three").unwrap();
        expect(&changed).await;
    }

    #[test]
    fn reading_and_neighbours_are_no_change() {
        let names = BTreeSet::from([PathBuf::from("/d/f")]);
        let event = |kind, path: &str| Event::new(kind).add_path(path.into());
        let open = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let close = EventKind::Access(AccessKind::Close(AccessMode::Write));
        assert!(!concerns(&event(open, "/d/f"), &names));
        assert!(concerns(&event(close, "/d/f"), &names));
        assert!(!concerns(&event(close, "/d/g"), &names));
        assert!(concerns(&event(EventKind::Any, "/d"), &names));
    }
}
