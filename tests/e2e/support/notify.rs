//! systemd's end of the notification protocol.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use super::process::Log;
use super::wait::{DEADLINE, poll};

/// A `NOTIFY_SOCKET` and what was said to it: one entry per datagram, its lines joined by `\n`.
#[derive(Debug)]
pub(crate) struct Notify {
    path: PathBuf,
    messages: Log,
    ended: Arc<AtomicBool>,
}

impl Notify {
    /// Listens at `path`.
    pub(crate) fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let (messages, ended) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let (log, stop) = (messages.clone(), Arc::clone(&ended));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                log.push(
                    String::from_utf8_lossy(&buffer[..len])
                        .trim_end()
                        .to_owned(),
                );
            }
        });
        Self {
            path: path.to_owned(),
            messages,
            ended,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn messages(&self) -> &Log {
        &self.messages
    }

    /// Waits for a message after the first `seen` that has the line `assignment`, and returns those
    /// after `seen` up to it.
    ///
    /// # Panics
    /// At the deadline, with all the messages, or as soon as `gone` tells why none can come.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        assignment: &str,
        seen: usize,
        mut gone: impl FnMut() -> Option<String>,
    ) -> Vec<String> {
        let found = poll(|| {
            // Asked first: a message sent just before the end still counts.
            let gone = gone();
            let messages = self.messages.lines().split_off(seen);
            let has_it = |message: &String| message.lines().any(|line| line == assignment);
            match (messages.iter().position(has_it), gone) {
                (Some(at), _) => Some(Ok(messages[..=at].to_vec())),
                (None, Some(why)) => Some(Err(why)),
                (None, None) => None,
            }
        });
        match found {
            Some(Ok(messages)) => messages,
            Some(Err(why)) => panic!("{assignment} was not notified: {why}"),
            None => panic!(
                "{assignment} was not notified within {DEADLINE:?}, only {:#?}",
                self.messages.lines()
            ),
        }
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _wakes = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"", &self.path));
    }
}
