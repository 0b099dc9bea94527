//! A proxy that only copies bytes. It stands in for the real one where the tests test themselves,
//! and handles no descriptors.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::workdir::WorkDir;

/// The relay; no new connection is taken after drop.
#[derive(Debug)]
pub(crate) struct Relay {
    dir: WorkDir,
    ended: Arc<AtomicBool>,
}

impl Relay {
    /// Relays to the socket `upstream`.
    pub(crate) fn start(upstream: &Path) -> Self {
        let dir = WorkDir::new();
        let listener = UnixListener::bind(dir.join("sock")).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, upstream) = (Arc::clone(&ended), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // An upstream that is away closes the client's connection.
                if let Ok(server) = UnixStream::connect(&upstream) {
                    both_ways(&client, &server);
                }
            }
        });
        Self { dir, ended }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _wakes = UnixStream::connect(self.socket());
    }
}

fn both_ways(client: &UnixStream, server: &UnixStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        thread::spawn(move || {
            // However the copying ends, so does this direction.
            let _copied = io::copy(&mut from, &mut to);
            let _closed = to.shutdown(Shutdown::Write);
        });
    }
}
