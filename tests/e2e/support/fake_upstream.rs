//! A scripted driver daemon, well-behaved unless its script says otherwise.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::wire::{Frame, FrameStream, KEEPALIVE, REMOTE, kind, procedure};
use super::workdir::WorkDir;
use super::xdr::{Reader, TypedValue, Writer};

/// What the upstream does after its script has looked at a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: the script did what it wanted, an answer included.
    Done,
    /// What a good daemon does: opens, takes the identity, answers pings, and echoes the body of
    /// any other call as its reply.
    Standard,
    /// Reads no more from this connection and leaves it open.
    StopReading,
    /// Closes this connection.
    Close,
}

/// Looks at every frame of every connection, and may send on the connection that it came on.
type Script = dyn Fn(&FrameStream, &Frame) -> Next + Send + Sync;

/// The daemon; ends with all its connections on drop.
pub(crate) struct FakeUpstream {
    dir: WorkDir,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    ended: AtomicBool,
    /// Those that are open.
    connections: Mutex<Vec<(usize, FrameStream)>>,
    accepted: AtomicUsize,
    received: Mutex<Vec<Frame>>,
    closed: AtomicUsize,
    changed: Condvar,
}

impl FakeUpstream {
    /// A good daemon.
    pub(crate) fn start() -> Self {
        Self::scripted(|_, _| Next::Standard)
    }

    /// A daemon which asks `script` first for every frame.
    pub(crate) fn scripted(
        script: impl Fn(&FrameStream, &Frame) -> Next + Send + Sync + 'static,
    ) -> Self {
        let dir = WorkDir::new();
        let listener = UnixListener::bind(dir.join("sock")).unwrap();
        open_to_all(&dir.join("sock"));
        let shared = Arc::new(Shared {
            script: Box::new(script),
            ended: AtomicBool::new(false),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            received: Mutex::default(),
            closed: AtomicUsize::new(0),
            changed: Condvar::new(),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = thread::spawn(move || for_acceptor.accept(&listener));
        Self {
            dir,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// Every frame received so far, over all connections, in order.
    pub(crate) fn received(&self) -> Vec<Frame> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The received calls of one procedure of the remote program.
    pub(crate) fn calls(&self, procedure: i32) -> Vec<Frame> {
        let is_it = |frame: &Frame| {
            (frame.program, frame.procedure) == (REMOTE, procedure)
                && matches!(frame.kind, kind::CALL | kind::CALL_WITH_FDS)
        };
        self.received().into_iter().filter(is_it).collect()
    }

    /// The name and flags of each `CONNECT_OPEN` received.
    pub(crate) fn opened(&self) -> Vec<(Option<String>, u32)> {
        let read = |call: Frame| {
            let mut reader = Reader::new(&call.body);
            (reader.optional(), reader.u32())
        };
        self.calls(procedure::CONNECT_OPEN)
            .into_iter()
            .map(read)
            .collect()
    }

    /// The parameters of each `CONNECT_SET_IDENTITY` received.
    pub(crate) fn identities(&self) -> Vec<BTreeMap<String, TypedValue>> {
        let read = |call: Frame| Reader::new(&call.body).typed_params();
        self.calls(procedure::CONNECT_SET_IDENTITY)
            .into_iter()
            .map(read)
            .collect()
    }

    /// How many connections were ever accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn connected(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// How many of these have ended, by either side.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Sends a frame on every connection which is still open.
    pub(crate) fn send_to_all(&self, frame: &Frame) {
        for (_, connection) in &*self.shared.connections.lock().unwrap() {
            // A connection whose client has gone is not a fault of the daemon.
            let _gone = connection.send(frame);
        }
    }

    /// Closes every connection, as a daemon that dies does.
    pub(crate) fn hang_up(&self) {
        for (_, connection) in &*self.shared.connections.lock().unwrap() {
            // Already closed is as good.
            let _closed = connection.socket().shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &UnixListener) {
        let mut threads: Vec<JoinHandle<()>> = Vec::new();
        for socket in listener.incoming() {
            // A thread that has ended keeps its stack until it is joined.
            for thread in threads.extract_if(.., |thread| thread.is_finished()) {
                thread.join().unwrap();
            }
            if self.ended.load(Ordering::SeqCst) {
                break;
            }
            let shared = Arc::clone(&self);
            let stream = FrameStream::new(socket.unwrap());
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            self.connections
                .lock()
                .unwrap()
                .push((number, stream.try_clone().unwrap()));
            threads.push(thread::spawn(move || {
                shared.serve(&stream);
                let mut connections = shared.connections.lock().unwrap();
                connections.retain(|(other, _)| *other != number);
            }));
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    fn serve(&self, stream: &FrameStream) {
        // A client that breaks off, or sends what is no frame, ends its own connection only.
        while let Ok(Some(frame)) = stream.receive() {
            self.received.lock().unwrap().push(frame.clone());
            let sent = match (self.script)(stream, &frame) {
                Next::Done => Ok(()),
                Next::Standard => standard(stream, &frame),
                Next::StopReading => return self.wait_for_the_end(),
                Next::Close => break,
            };
            if sent.is_err() {
                break;
            }
        }
        // The handle kept for `send_to_all` would otherwise hold the connection open.
        let _closed = stream.socket().shutdown(Shutdown::Both);
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn wait_for_the_end(&self) {
        let mut guard = self.received.lock().unwrap();
        while !self.ended.load(Ordering::SeqCst) {
            guard = self.changed.wait(guard).unwrap();
        }
    }
}

/// What a good daemon does with a frame.
fn standard(stream: &FrameStream, frame: &Frame) -> io::Result<()> {
    if frame.program == KEEPALIVE {
        return if frame.procedure == 1 {
            stream.send(&Frame {
                procedure: 2,
                ..frame.clone()
            })
        } else {
            Ok(())
        };
    }
    if !matches!(frame.kind, kind::CALL | kind::CALL_WITH_FDS) {
        return Ok(());
    }
    let body = match frame.procedure {
        // One kind of authentication: none.
        procedure::AUTH_LIST => Writer::new().u32(1).i32(0).end(),
        procedure::CONNECT_SUPPORTS_FEATURE => {
            let known = [8, 10, 14, 15].contains(&Reader::new(&frame.body).i32());
            Writer::new().i32(known.into()).end()
        }
        procedure::CONNECT_OPEN | procedure::CONNECT_CLOSE | procedure::CONNECT_SET_IDENTITY => {
            Vec::new()
        }
        _ => frame.body.clone(),
    };
    stream.send(&frame.reply(body))
}

/// Lets clients of any user connect.
fn open_to_all(socket: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        {
            let _received = self.shared.received.lock();
            self.shared.changed.notify_all();
        }
        // The acceptor looks at the flag only when somebody connects.
        let _wakes = UnixStream::connect(self.socket());
        self.hang_up();
        let joined = self.acceptor.take().map(JoinHandle::join);
        assert!(
            thread::panicking() || matches!(joined, Some(Ok(()))),
            "a script of the fake upstream panicked"
        );
    }
}
