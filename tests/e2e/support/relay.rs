//! A proxy that only copies bytes. It stands in for the real one where the tests test themselves,
//! and handles no descriptors.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::workdir::WorkDir;

/// The relay; no new connection is taken after drop.
#[derive(Debug)]
pub(crate) struct Relay {
    dir: WorkDir,
    ended: Arc<AtomicBool>,
    back: Arc<AtomicUsize>,
}

impl Relay {
    /// Relays to the socket `upstream`.
    pub(crate) fn start(upstream: &Path) -> Self {
        let dir = WorkDir::new();
        let listener = UnixListener::bind(dir.join("sock")).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let back = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&ended), Arc::clone(&back));
        let upstream = upstream.to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // An upstream that is away closes the client's connection.
                if let Ok(server) = UnixStream::connect(&upstream) {
                    both_ways(&client, &server, &count);
                }
            }
        });
        Self { dir, ended, back }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Bytes that have come back from upstream, over all connections.
    pub(crate) fn bytes_back(&self) -> usize {
        self.back.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _wakes = UnixStream::connect(self.socket());
    }
}

fn both_ways(client: &UnixStream, server: &UnixStream, back: &Arc<AtomicUsize>) {
    let unread = Arc::new(AtomicUsize::new(0));
    for (from, to, count) in [(client, server, &unread), (server, client, back)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let count = Arc::clone(count);
        thread::spawn(move || {
            // However the copying ends, so does this direction.
            let _copied = copy(&from, &to, &count);
            let _closed = to.shutdown(Shutdown::Write);
        });
    }
}

fn copy(mut from: &UnixStream, mut to: &UnixStream, count: &AtomicUsize) -> io::Result<()> {
    let mut buffer = [0; 65536];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read])?;
        count.fetch_add(read, Ordering::SeqCst);
    }
}
