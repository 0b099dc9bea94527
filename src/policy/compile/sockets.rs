//! The daemon's own settings, and what listeners and upstreams share: pings, lengths of time, paths.

use std::path::PathBuf;
use std::time::Duration;

use super::Compiler;
use crate::policy::model::{Daemon, Keepalive};
use crate::policy::raw;
use crate::policy::report::{Problem, quoted};
use crate::policy::template::MAX_SOCKET_PATH;
use crate::policy::yaml::Pointer;

/// No wait in a policy is longer; a slip of the unit would otherwise pass for a setting.
const MAX_DURATION: Duration = Duration::from_secs(7 * 24 * 3600);
/// libvirt's own defaults.
const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    interval: Some(Duration::from_secs(5)),
    count: 5,
};
const DEFAULT_MAX_CLIENTS: usize = 5000;
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
/// Much more than libvirt's `max_anonymous_clients` of 20, which makes new clients wait; ours pushes
/// the oldest out, which must not happen to the many that a script starts at once.
const DEFAULT_MAX_UNAUTHENTICATED: usize = 500;
/// What Linux takes.
const MAX_FILE_PATH: usize = 4095;

impl Compiler<'_, '_> {
    pub(super) fn daemon(&mut self, daemon: &raw::Daemon, at: &Pointer) -> Option<Daemon> {
        Some(Daemon {
            watch: daemon.watch.unwrap_or(false),
            drain: match &daemon.drain {
                Some(drain) => self.duration(&drain.0, &at.key("drain"), true)?,
                None => DEFAULT_DRAIN,
            },
            workers: daemon.workers,
            max_clients: daemon.max_clients.unwrap_or(DEFAULT_MAX_CLIENTS),
            max_unauthenticated: daemon
                .max_unauthenticated
                .unwrap_or(DEFAULT_MAX_UNAUTHENTICATED),
        })
    }

    pub(super) fn keepalive(
        &mut self,
        keepalive: Option<&raw::Keepalive>,
        at: &Pointer,
    ) -> Option<Keepalive> {
        let Some(keepalive) = keepalive else {
            return Some(DEFAULT_KEEPALIVE);
        };
        let interval = match &keepalive.interval {
            None => DEFAULT_KEEPALIVE.interval,
            Some(raw::KeepaliveInterval::Number(-1)) => None,
            Some(raw::KeepaliveInterval::Number(_)) => return None,
            Some(raw::KeepaliveInterval::Text(text)) if text == "never" => None,
            Some(raw::KeepaliveInterval::Text(text)) => {
                Some(self.duration(text, &at.key("interval"), false)?)
            }
        };
        Some(Keepalive {
            interval,
            count: keepalive.count.unwrap_or(DEFAULT_KEEPALIVE.count),
        })
    }

    pub(super) fn duration(&mut self, text: &str, at: &Pointer, zero: bool) -> Option<Duration> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let number: u64 = digits.parse().ok()?;
        let duration = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return None,
        };
        if duration > MAX_DURATION {
            self.error(
                "out-of-range",
                at,
                format!("{} is more than a week", quoted(text)),
            );
            return None;
        }
        if duration.is_zero() && !zero {
            self.error(
                "out-of-range",
                at,
                format!("{} must be more than nothing", quoted(text)),
            );
            return None;
        }
        Some(duration)
    }

    pub(super) fn socket_path(&mut self, path: &raw::SocketPath, at: &Pointer) -> Option<PathBuf> {
        self.path(&path.0, "socket", MAX_SOCKET_PATH, at)
    }

    pub(super) fn file_path(&mut self, path: &raw::FilePath, at: &Pointer) -> Option<PathBuf> {
        self.path(&path.0, "file", MAX_FILE_PATH, at)
    }

    fn path(&mut self, path: &str, what: &str, max: usize, at: &Pointer) -> Option<PathBuf> {
        let out = self.expand(path, at)?;
        let wrong = if !out.starts_with('/') {
            format!("a {what}'s path must be absolute")
        } else if out.len() > max {
            format!(
                "a {what}'s path has at most {max} bytes, this one {}",
                out.len()
            )
        } else if out.chars().any(char::is_control) {
            "a path has no control characters".to_owned()
        } else if out.ends_with('/') {
            format!("this names a directory, not a {what}")
        } else {
            return Some(PathBuf::from(out));
        };
        self.error("path", at, wrong);
        None
    }

    /// Puts in what the environment says.
    pub(super) fn expand(&mut self, path: &str, at: &Pointer) -> Option<String> {
        let mut out = String::new();
        let mut rest = path;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, after)) = after.split_once('}') else {
                self.error("path", at, "`${` without `}`");
                return None;
            };
            match (self.env)(name).filter(|value| !value.is_empty()) {
                Some(value) => out.push_str(&value),
                None => {
                    self.problems.push(
                        Problem::error(
                            "undefined-variable",
                            Some(self.document.place(at)),
                            format!("the environment variable {} is not set", quoted(name)),
                        )
                        .help("set it, or write the path out"),
                    );
                    return None;
                }
            }
            rest = after;
        }
        out.push_str(rest);
        Some(out)
    }
}
