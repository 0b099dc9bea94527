//! A program whose standard input and output are the connection to a daemon.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Pid as GroupId, Signal, kill_process_group};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::output::{self, Output};
use crate::server::socket::{self, UnixSocket};
use crate::server::transport::{Channel, Transport};

/// How long after the end of its connection a program may take to end by itself, and then after it
/// was told to.
const GRACE: Duration = Duration::from_millis(200);
const LAST_GRACE: Duration = Duration::from_secs(2);

/// The connection. The program is ended with it.
#[derive(Debug)]
pub(crate) struct Program {
    socket: UnixSocket,
    /// Dropped at the end of the connection: whoever minds the program learns of it.
    connected: Option<oneshot::Sender<()>>,
    /// How the program has ended.
    ended: oneshot::Receiver<String>,
    has_spoken: bool,
    last_words: Option<String>,
}

/// Starts the program of an upstream.
pub(super) fn start(upstream: &Arc<str>, words: &[String]) -> io::Result<Transport> {
    let (mut command, name) =
        output::command(words).ok_or_else(|| io::Error::other("no program to start"))?;
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let input = OwnedFd::from(theirs.try_clone()?);
    command
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        // If nobody is left to mind it.
        .kill_on_drop(true);
    let socket = UnixSocket::new(ours.into())?;
    let child = command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot start {name}: {error}")))?;
    let (connected, disconnected) = oneshot::channel();
    let (ending, ended) = oneshot::channel();
    tokio::spawn(mind(
        child,
        Arc::clone(upstream),
        name,
        disconnected,
        ending,
    ));
    Ok(Transport::new(Channel::Program(Box::new(Program {
        socket,
        connected: Some(connected),
        ended,
        has_spoken: false,
        last_words: None,
    }))))
}

/// Waits for the program to end, and sees to it that it does.
async fn mind(
    mut child: Child,
    upstream: Arc<str>,
    name: Arc<str>,
    disconnected: oneshot::Receiver<()>,
    ending: oneshot::Sender<String>,
) {
    let mut output = Output::of(&mut child, &upstream, &name);
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let group = group.and_then(GroupId::from_raw);
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        _ = disconnected => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => end(&mut child, group).await,
    };
    let words = match ended {
        Ok(status) => output.obituary(&name, status).await,
        Err(error) => format!("cannot wait for {name}: {error}"),
    };
    tracing::debug!(upstream = &*upstream, "{words}");
    // Nobody asks if the connection has ended first.
    _ = ending.send(words);
}

/// Waits for the program to end, which it is told to do ever more firmly.
async fn end(child: &mut Child, group: Option<GroupId>) -> io::Result<ExitStatus> {
    for (grace, signal) in [(GRACE, Signal::TERM), (LAST_GRACE, Signal::KILL)] {
        // No process is signalled after it was waited for: its number may be another's by then.
        if let Ok(ended) = timeout(grace, child.wait()).await {
            return ended;
        }
        if let Some(group) = group {
            // One that has just ended needs no telling.
            _ = kill_process_group(group, signal);
        }
    }
    child.wait().await
}

impl Program {
    /// The end comes as an error with the program's last words where it never said anything else.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        descriptors: &mut VecDeque<OwnedFd>,
    ) -> Poll<io::Result<usize>> {
        if self.connected.is_some() {
            let received = socket::poll_recv_unix(&self.socket, cx, buffer, descriptors);
            let count = match ready!(received) {
                // It has not read all that it was sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                received => received?,
            };
            // Whatever it sends along is not the daemon's.
            descriptors.clear();
            self.has_spoken |= count > 0;
            if self.has_spoken {
                return Poll::Ready(Ok(count));
            }
            self.connected = None;
        }
        if self.last_words.is_none() {
            let ended = ready!(Pin::new(&mut self.ended).poll(cx));
            self.last_words = Some(ended.unwrap_or_else(|_| "its end was not seen".to_owned()));
        }
        let words = self.last_words.clone().unwrap_or_default();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, words)))
    }

    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(socket::poll_send_unix(&mut self.socket, cx, bytes)) {
            // What is received will tell more than that.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.has_spoken => {
                Poll::Ready(Ok(bytes.len()))
            }
            sent => Poll::Ready(sent),
        }
    }

    /// How the program ended, if it did without having said anything.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
