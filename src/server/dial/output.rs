//! What programs say on their standard output and error: line by line to the log, within a bound.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Bytes of a line; the rest of a longer one is left out.
const LINE: usize = 1024;

/// Lines of one pipe that are logged in a [`SPAN`], more than a daemon says that starts: a program
/// that floods would push all else out of the log.
const LINES: u32 = 200;
const SPAN: Duration = Duration::from_secs(10);

/// How long after a program's end its last words are waited for: others may hold the same pipe.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The output of one program.
#[derive(Debug)]
pub(super) struct Output {
    readers: JoinSet<()>,
    last: Arc<Mutex<String>>,
}

impl Output {
    /// Of what `child` has pipes for. It is read for as long as this is there, or
    /// [`detach`](Self::detach)ed.
    pub(super) fn of(child: &mut Child, upstream: &Arc<str>, program: &Arc<str>) -> Self {
        let mut output = Self {
            readers: JoinSet::new(),
            last: Arc::default(),
        };
        if let Some(stdout) = child.stdout.take() {
            output.read(stdout, upstream, program);
        }
        if let Some(stderr) = child.stderr.take() {
            output.read(stderr, upstream, program);
        }
        output
    }

    fn read(
        &mut self,
        from: impl AsyncRead + Send + Unpin + 'static,
        upstream: &Arc<str>,
        program: &Arc<str>,
    ) {
        let (upstream, program) = (Arc::clone(upstream), Arc::clone(program));
        let last = Arc::clone(&self.last);
        let mut flow = Flow::new(Instant::now());
        self.readers.spawn(each_line(from, move |line| {
            match flow.next(Instant::now()) {
                Line::Logged => {
                    tracing::info!(upstream = &*upstream, program = &*program, "{line}")
                }
                Line::FirstLeftOut => tracing::warn!(
                    upstream = &*upstream,
                    program = &*program,
                    "more than {LINES} lines within {} s: the rest of them are left out",
                    SPAN.as_secs()
                ),
                Line::LeftOut => {}
            }
            *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
        }));
    }

    /// How a program has ended that has, with its last line.
    pub(super) async fn obituary(&mut self, program: &str, status: ExitStatus) -> String {
        let all = async { while self.readers.join_next().await.is_some() {} };
        // Whoever else holds the pipe may go on.
        _ = tokio::time::timeout(LAST_WORDS, all).await;
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &**last {
            "" => format!("{program} has ended ({status})"),
            line => format!("{program} has ended ({status}): {line}"),
        }
    }

    /// Goes on for as long as somebody holds the pipes.
    pub(super) fn detach(mut self) {
        self.readers.detach_all();
    }
}

/// How much one pipe has said lately.
struct Flow {
    begun: Instant,
    /// Since then.
    lines: u32,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Logged,
    FirstLeftOut,
    LeftOut,
}

impl Flow {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            lines: 0,
        }
    }

    /// Counts one more line.
    fn next(&mut self, now: Instant) -> Line {
        if now.saturating_duration_since(self.begun) >= SPAN {
            *self = Self::new(now);
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines.saturating_sub(LINES) {
            0 => Line::Logged,
            1 => Line::FirstLeftOut,
            _ => Line::LeftOut,
        }
    }
}

/// A program, with its name for messages. It is none of ours for the service manager.
pub(super) fn command(words: &[String]) -> Option<(Command, Arc<str>)> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        // What a terminal sends to the proxy is not meant for it.
        .process_group(0);
    Some((command, program.as_str().into()))
}

async fn each_line(from: impl AsyncRead + Unpin, mut take: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // A pipe that cannot be read has ended.
    while let Ok(chunk @ [_, ..]) = from.fill_buf().await {
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = end.and_then(|end| chunk.get(..end)).unwrap_or(chunk);
        let room = LINE.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let used = end.map_or(chunk.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            say(&mut line, &mut take);
        }
    }
    say(&mut line, &mut take);
}

fn say(line: &mut Vec<u8>, take: &mut impl FnMut(String)) {
    let text = String::from_utf8_lossy(line).replace(char::is_control, " ");
    if !text.trim().is_empty() {
        take(text.trim().to_owned());
    }
    line.clear();
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_clean_and_the_last_needs_no_end() {
        let long = "x".repeat(LINE + 9000);
        let text = format!("one\r\n\n  \n{long}\ntwo\x1b[0m\u{7}\nthree");
        let mut lines = Vec::new();
        each_line(text.as_bytes(), |line| lines.push(line)).await;
        let cut = "x".repeat(LINE);
        assert_eq!(lines, ["one", &cut, "two [0m", "three"]);
    }

    #[test]
    fn of_a_flood_only_the_beginning_is_logged_and_that_there_is_more() {
        let mut now = Instant::now();
        let mut flow = Flow::new(now);
        for _ in 0..2 {
            for _ in 0..LINES {
                assert_eq!(flow.next(now), Line::Logged);
            }
            now += SPAN - Duration::from_millis(1);
            assert_eq!(flow.next(now), Line::FirstLeftOut);
            assert_eq!(flow.next(now), Line::LeftOut);
            now += Duration::from_millis(1);
        }
    }
}
