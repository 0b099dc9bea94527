//! The thread that writes records.

use std::sync::Arc;

use super::entry::Entry;
use super::file::AuditFile;
use super::log;
use super::queue::{Batch, Job, Queue};

/// Bytes that are collected before they are written.
const CHUNK: usize = 64 * 1024;

/// Where records go. With neither, the daemon's log has a line per refusal.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    /// The file that they are appended to.
    pub(crate) file: Option<AuditFile>,
    /// They go to the daemon's log, with all fields.
    pub(crate) journal: bool,
}

/// Writes until nothing will come any more.
pub(super) fn run(queue: &Arc<Queue>, sinks: Sinks) {
    let mut writer = Writer::new(sinks);
    while let Some(batch) = queue.wait() {
        writer.write(batch);
    }
}

/// What is being written.
struct Writer {
    sinks: Sinks,
    /// Lines for the file.
    lines: Vec<u8>,
    /// Records among them.
    records: u64,
    /// Records that are in no file and should be, since the last that could be written.
    lost: u64,
    /// The file cannot be written, or opened anew: said once.
    failing: bool,
}

impl Writer {
    fn new(sinks: Sinks) -> Self {
        Self {
            sinks,
            lines: Vec::new(),
            records: 0,
            lost: 0,
            failing: false,
        }
    }

    fn write(&mut self, batch: Batch) {
        let Batch { jobs, lost } = batch;
        let mut done = Vec::new();
        for job in jobs {
            match job {
                Job::Record(entry) => self.record(&entry),
                Job::Reopen => {
                    self.flush();
                    self.reopen();
                }
                Job::SetSinks(sinks) => {
                    self.flush();
                    self.sinks = sinks;
                    self.failing = false;
                }
                Job::Flush(told) => done.push(told),
            }
        }
        if lost > 0 {
            self.flush();
            self.lose(lost);
        }
        self.flush();
        for told in done {
            // Whoever asked may not wait any longer.
            _ = told.send(());
        }
    }

    fn record(&mut self, entry: &Entry) {
        if self.sinks.journal {
            log::write(entry);
        } else if self.sinks.file.is_none() {
            log::mention(entry);
        }
        if self.sinks.file.is_some() {
            entry.write(&mut self.lines);
            self.records += 1;
            if self.lines.len() >= CHUNK {
                self.flush();
            }
        }
    }

    /// There was no room for records in the queue.
    fn lose(&mut self, count: u64) {
        tracing::warn!(
            count,
            "audit records are lost: more come than can be written"
        );
        if self.sinks.journal {
            log::write(&Entry::lost(count));
        }
        if self.sinks.file.is_some() {
            self.lost += count;
        }
    }

    /// Writes the lines to the file, after one that says how many are missing before them.
    fn flush(&mut self) {
        if self.records == 0 && (self.lost == 0 || self.failing) {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let records = std::mem::take(&mut self.records);
        self.follow();
        let Some(file) = &mut self.sinks.file else {
            return;
        };
        if self.lost > 0 {
            let mut missing = Vec::new();
            Entry::lost(self.lost).write(&mut missing);
            if let Err(failure) = file.append(&missing) {
                self.lost += records;
                self.fail("cannot be written", &failure.error);
                return;
            }
            self.lost = 0;
        }
        match file.append(&lines) {
            Ok(()) => self.recover(),
            Err(failure) => {
                let written = u64::try_from(failure.written).unwrap_or(records);
                self.lost += records.saturating_sub(written);
                self.fail("cannot be written", &failure.error);
            }
        }
        if lines.capacity() <= 2 * CHUNK {
            self.lines = lines;
            self.lines.clear();
        }
    }

    /// Opens the file anew if it was moved away.
    fn follow(&mut self) {
        if self
            .sinks
            .file
            .as_ref()
            .is_some_and(|file| !file.is_current())
        {
            self.reopen();
        }
    }

    /// Opens the file anew. If that fails, the one that is open is used on.
    fn reopen(&mut self) {
        let Some(file) = &mut self.sinks.file else {
            return;
        };
        match AuditFile::open(file.path()) {
            Ok(new) => *file = new,
            Err(error) => self.fail("cannot be opened again, the one before is used on", &error),
        }
    }

    fn fail(&mut self, what: &str, error: &std::io::Error) {
        if !self.failing {
            let path = self.sinks.file.as_ref().map(AuditFile::path);
            tracing::error!(?path, %error, "the audit file {what}; records may be lost");
        }
        self.failing = true;
    }

    fn recover(&mut self) {
        if self.failing && self.sinks.file.as_ref().is_some_and(AuditFile::is_current) {
            tracing::info!("the audit file is written again");
            self.failing = false;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn entry(object: &str) -> Job {
        Job::Record(Box::new(Entry {
            verdict: super::super::entry::Verdict::Refused,
            object: Some(object.to_owned()),
            count: 1,
            ..Entry::default()
        }))
    }

    fn writer(path: &Path) -> Writer {
        Writer::new(Sinks {
            file: Some(AuditFile::open(path).unwrap()),
            journal: false,
        })
    }

    fn write(writer: &mut Writer, jobs: impl IntoIterator<Item = Job>, lost: u64) {
        let jobs = VecDeque::from_iter(jobs);
        writer.write(Batch { jobs, lost });
    }

    /// Objects of the records, or how many are lost.
    fn written(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text}");
        let entries = text
            .lines()
            .map(|line| serde_json::from_str::<Entry>(line).unwrap());
        entries
            .map(|entry| {
                entry
                    .object
                    .unwrap_or_else(|| format!("lost {}", entry.count))
            })
            .collect()
    }

    #[test]
    fn records_follow_a_rotated_file_told_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut writer = writer(&path("audit"));
        write(&mut writer, [entry("a")], 0);
        fs::rename(path("audit"), path("audit.1")).unwrap();
        write(&mut writer, [Job::Reopen], 0);
        assert_eq!(written(&path("audit")), [""; 0]);
        write(&mut writer, [entry("b")], 0);
        fs::rename(path("audit"), path("audit.2")).unwrap();
        write(&mut writer, [entry("c")], 0);
        fs::remove_file(path("audit")).unwrap();
        write(&mut writer, [entry("d"), entry("e")], 0);
        let files = ["audit.1", "audit.2", "audit"].map(|name| written(&path(name)));
        assert_eq!(files, [vec!["a"], vec!["b"], vec!["d", "e"]]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_used_on_until_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut writer = writer(&path("audit"));
        fs::rename(path("audit"), path("audit.1")).unwrap();
        fs::write(path("target"), "").unwrap();
        symlink(path("target"), path("audit")).unwrap();
        write(&mut writer, [Job::Reopen, entry("a")], 0);
        assert!(writer.failing);
        assert_eq!(written(&path("audit.1")), ["a"]);
        assert_eq!(written(&path("target")), [""; 0], "never through a link");
        fs::remove_file(path("audit")).unwrap();
        write(&mut writer, [entry("b")], 0);
        assert!(!writer.failing);
        assert_eq!(written(&path("audit")), ["b"]);
    }

    #[test]
    fn records_before_a_change_of_the_file_go_to_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut writer = writer(&path("old"));
        let sinks = Sinks {
            file: Some(AuditFile::open(&path("new")).unwrap()),
            journal: false,
        };
        write(
            &mut writer,
            [entry("a"), Job::SetSinks(sinks), entry("b")],
            0,
        );
        assert_eq!(written(&path("old")), ["a"]);
        assert_eq!(written(&path("new")), ["b"]);
    }

    #[test]
    fn it_is_written_how_many_records_found_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut writer = writer(&path);
        write(&mut writer, [entry("a")], 3);
        write(&mut writer, [entry("b")], 0);
        assert_eq!(written(&path), ["a", "lost 3", "b"]);
    }

    #[test]
    fn what_a_full_disk_loses_is_counted_and_said_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut writer = writer(&path);
        // A disk that is always full.
        let full = fs::File::options().append(true).open("/dev/full").unwrap();
        let good = writer.sinks.file.as_mut().unwrap().replace(full);
        write(&mut writer, [entry("a"), entry("b")], 0);
        assert!(writer.failing);
        write(&mut writer, [entry("c")], 1);
        assert_eq!((written(&path), writer.lost), (vec![], 4));
        writer.sinks.file.as_mut().unwrap().replace(good);
        write(&mut writer, [entry("d")], 0);
        assert_eq!(written(&path), ["lost 4", "d"]);
        assert!(!writer.failing);
    }

    #[test]
    fn a_flush_is_answered_when_all_before_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut writer = writer(&path);
        let (told, mut flushed) = tokio::sync::oneshot::channel();
        write(&mut writer, [entry("a"), Job::Flush(told)], 0);
        flushed.try_recv().unwrap();
        assert_eq!(written(&path), ["a"]);
    }

    #[test]
    fn texts_are_escaped_and_one_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let mut writer = writer(&path);
        let odd = "a\"b\\c\nd\u{1b}[31m\u{2028}é";
        write(&mut writer, [entry(odd)], 0);
        assert_eq!(written(&path), [odd]);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r#""a\"b\\c\nd\u001b[31m"#), "{text}");
        let Job::Record(entry) = entry(odd) else {
            return;
        };
        let said = entry.to_string();
        assert_eq!(said, "refused on a\"b\\c\\nd\\u{1b}[31m\u{2028}é");
    }
}
