//! `guards`.

use crate::policy::compile::{Compiler, elements};
use crate::policy::guard::{ForbidSet, Guards, Max};
use crate::policy::pattern::Pattern;
use crate::policy::raw;
use crate::policy::report::Problem;
use crate::policy::yaml::Pointer;

impl Compiler<'_, '_> {
    pub(super) fn guards(&mut self, guards: &raw::Guards, at: &Pointer) -> Option<Guards> {
        let host_paths = match &guards.host_paths {
            Some(paths) => self.folders(paths, &at.key("host_paths")).map(Some),
            None => Some(None),
        };
        let mut list = |texts: &Option<raw::AnyNumber<raw::PatternText>>, key: &str| {
            let texts = texts.as_ref().map(|texts| &texts.0);
            self.patterns(texts, &at.key(key))
        };
        let networks = list(&guards.networks, "networks");
        let pools = list(&guards.pools, "pools");
        let bridges = list(&guards.bridges, "bridges");
        let monitor_commands = list(&guards.monitor_commands, "monitor_commands");
        let agent_commands = list(&guards.agent_commands, "agent_commands");
        let max = match &guards.max {
            Some(max) => self.max(max, &at.key("max")),
            None => Some(Max::default()),
        };
        Some(Guards {
            host_paths: host_paths?,
            networks: networks?,
            pools: pools?,
            bridges: bridges?,
            forbid: forbidden(guards),
            max: max?,
            monitor_commands: monitor_commands?,
            agent_commands: agent_commands?,
        })
    }

    fn max(&mut self, max: &raw::Max, at: &Pointer) -> Option<Max> {
        Some(Max {
            vcpus: max.vcpus.map(u64::from),
            memory: match &max.memory {
                Some(size) => Some(self.size(size, &at.key("memory"))?),
                None => None,
            },
            disks: max.disks.map(u64::from),
        })
    }

    fn folders(
        &mut self,
        paths: &raw::AnyNumber<raw::FolderPath>,
        at: &Pointer,
    ) -> Option<Vec<String>> {
        let (mut folders, mut failed) = (Vec::new(), false);
        for (at, path) in elements(&paths.0, at) {
            match self.folder(&path.0, &at) {
                Some(folder) => folders.push(folder),
                None => failed = true,
            }
        }
        (!failed).then_some(folders)
    }

    fn folder(&mut self, path: &str, at: &Pointer) -> Option<String> {
        let path = self.expand(path, at)?;
        let error = |this: &mut Self, message: &str, help: &str| {
            let place = Some(this.document.place(at));
            this.problems
                .push(Problem::error("path", place, message).help(help));
        };
        if Pattern::is_regex(&path) || path.contains(['*', '?']) {
            let message = "a folder is named, not matched by a pattern";
            error(
                self,
                message,
                "everything in the folder is admitted; name each of several",
            );
        } else if !path.starts_with('/') {
            error(
                self,
                "a folder's path must be absolute",
                "begin it with `/`",
            );
        } else if path.split('/').any(|part| part == "..") {
            error(self, "a folder's path has no `..`", "write where it leads");
        } else if path.chars().any(char::is_control) {
            error(self, "a path has no control characters", "remove them");
        } else {
            let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
            let folder: String = parts.flat_map(|part| ["/", part]).collect();
            return Some(if folder.is_empty() {
                "/".to_owned()
            } else {
                folder
            });
        }
        None
    }
}

fn forbidden(guards: &raw::Guards) -> ForbidSet {
    let Some(words) = &guards.forbid else {
        return ForbidSet::default();
    };
    let each = words.iter().map(|word| match word {
        raw::ForbidWord::All => None,
        raw::ForbidWord::Word(word) => Some(*word),
    });
    each.collect::<Option<ForbidSet>>()
        .unwrap_or(ForbidSet::ALL)
}
