//! Records that were written, found again by the id of a refusal.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use super::entry::{Client, Entry};
use super::log::TARGET;

/// Bytes of a line that is looked at; the proxy writes none so long.
const MAX_LINE: u64 = 64 * 1024;

/// Whether a text looks like the id of a refusal: `1f2e3d4c-5-1`, or `1f2e3d4c-5-h1` of one that the
/// client is not told of.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match text.split('-').collect::<Vec<_>>()[..] {
        [process, connection, number] => {
            process.len() == 8
                && is_hex(process)
                && is_hex(connection)
                && is_number(number.strip_prefix(['h', 'o']).unwrap_or(number))
        }
        _ => false,
    }
}

/// The files that records of `file` are in, oldest first: those that rotation has left beside it,
/// and itself. Blocks.
#[must_use]
pub fn files(file: &Path) -> Vec<PathBuf> {
    let mut files: Vec<(std::time::SystemTime, PathBuf)> = Vec::new();
    let folder = file.parent().map(fs::read_dir);
    for entry in folder.into_iter().flatten().flatten().flatten() {
        let is_of = file
            .file_name()
            .is_some_and(|name| is_rotated(name, &entry.file_name()));
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        if let (true, Ok(changed)) = (is_of, changed) {
            files.push((changed, entry.path()));
        }
    }
    files.sort();
    let mut files: Vec<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    files.push(file.to_owned());
    files
}

/// Whether `other` is what rotation makes of a name: `NAME.1`, `NAME-20260131`.
fn is_rotated(name: &OsStr, other: &OsStr) -> bool {
    let (name, other) = (name.as_encoded_bytes(), other.as_encoded_bytes());
    match other.strip_prefix(name) {
        Some([b'.' | b'-', number @ ..]) => {
            !number.is_empty() && number.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// The records of a refusal in one file, in order. Lines that are no records are passed over.
/// Blocks.
///
/// # Errors
/// The file cannot be read.
pub fn in_file(file: &Path, id: &str) -> io::Result<Vec<Entry>> {
    let mut reader = BufReader::new(File::open(file)?);
    let (mut found, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut reader, MAX_LINE);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Ok(text) = str::from_utf8(&line) else {
            continue;
        };
        if text.contains(id) {
            let entry = serde_json::from_str::<Entry>(text).ok();
            found.extend(entry.filter(|entry| entry.id.as_deref() == Some(id)));
        }
    }
}

/// The records of a refusal in the journal, in order. Blocks.
///
/// # Errors
/// `journalctl` is not there, or fails.
pub fn in_journal(id: &str) -> io::Result<Vec<Entry>> {
    let own = rustix::process::geteuid();
    let output = Command::new("journalctl")
        .args(["--quiet", "--all", "--no-pager", "--output=json"])
        .arg(format!("TARGET={TARGET}"))
        .arg(format!("F_ID={id}"))
        // Others may write what they like: the system's records count, and one's own.
        .args(["_UID=0".to_owned(), format!("_UID={}", own.as_raw())])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("journalctl: {}", why.trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(of_journal).collect())
}

/// The record that a journal entry is, as `journalctl` prints it: every field is a text.
fn of_journal(line: &str) -> Option<Entry> {
    let fields: Map<String, Value> = serde_json::from_str(line).ok()?;
    let text = |name: &str| Some(fields.get(&format!("F_{name}"))?.as_str()?.to_owned());
    fn number<T: std::str::FromStr>(text: Option<String>) -> Option<T> {
        text?.parse().ok()
    }
    let word = |name: &str| text(name).map(Value::String);
    Some(Entry {
        time: text("TIME")?,
        verdict: serde_json::from_value(word("VERDICT")?).ok()?,
        id: text("ID").map(Into::into),
        connection: text("CONNECTION").map(Into::into),
        identities: text("IDENTITIES").map(|names| {
            let names = names.split(',').filter(|name| !name.is_empty());
            names.map(Into::into).collect()
        }),
        client: Some(
            Client {
                user: text("USER"),
                uid: number(text("UID")),
                gid: number(text("GID")),
                pid: number(text("PID")),
                sasl: text("SASL"),
                dn: text("DN"),
                address: text("ADDRESS"),
            }
            .into(),
        ),
        listener: text("LISTENER").map(Into::into),
        upstream: text("UPSTREAM").map(Into::into),
        procedure: text("PROCEDURE"),
        object: text("OBJECT"),
        permission: text("PERMISSION"),
        rule: number(text("RULE")),
        cause: word("CAUSE").and_then(|word| serde_json::from_value(word).ok()),
        reason: text("REASON"),
        generation: number(text("GENERATION")),
        policy: text("POLICY").map(Into::into),
        count: number(text("COUNT"))?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::fmt;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    use tracing::field::{Field, Visit};
    use tracing::{Event, Subscriber};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    #[test]
    fn ids_are_told_from_everything_else() {
        for id in [
            "1f2e3d4c-5-1",
            "00000000-0-12",
            "ffffffff-1a2b-h3",
            "ffffffff-0-o1",
        ] {
            assert!(is_id(id), "{id}");
        }
        for other in [
            "",
            "domain:start",
            "DOMAIN_CREATE",
            "1f2e3d4c-5",
            "1f2e3d4c-5-",
            "1f2e3d4c-5-a",
            "1f2e3d4c--1",
            "1f2e3d4-5-1",
            "1f2e3d4c-5-1-1",
            "7a3b1c9e-0a3c-4f21-9b66-2a54b1f2c6d8",
        ] {
            assert!(!is_id(other), "{other}");
        }
    }

    #[test]
    fn rotated_files_come_first_and_foreign_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let aged = [
            ("audit.jsonl.2", 30),
            ("audit.jsonl.1", 20),
            ("audit.jsonl-20260131", 10),
            ("audit.jsonl", 40),
        ];
        for (name, age) in aged {
            let file = File::create(path(name)).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(time).unwrap();
        }
        for name in [
            "audit.jsonl.1.gz",
            "audit.jsonl.old",
            "audit.jsonl.",
            "audit",
            "x.1",
        ] {
            File::create(path(name)).unwrap();
        }
        let expected = [
            "audit.jsonl.2",
            "audit.jsonl.1",
            "audit.jsonl-20260131",
            "audit.jsonl",
        ];
        assert_eq!(files(&path("audit.jsonl")), expected.map(path));
    }

    #[test]
    fn records_are_found_by_their_id_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let record = |id: &str, object: &str| {
            format!(
                "{{\"time\":\"t\",\"verdict\":\"refused\",\"id\":\"{id}\",\
                 \"object\":\"{object}\",\"count\":1,\"later\":\"unknown\"}}\n"
            )
        };
        let mut text = record("00000001-1-1", "a").into_bytes();
        text.extend(b"torn {\"id\":\"00000001-1-1\"\n\xff\n\n");
        text.extend(record("00000001-1-11", "b").bytes());
        text.extend(record("00000001-1-2", "names 00000001-1-1").bytes());
        text.extend(vec![b'x'; MAX_LINE as usize * 2]);
        text.extend(b"\n");
        text.extend(record("00000001-1-1", "c").trim_end().bytes());
        fs::write(&path, text).unwrap();
        let found = in_file(&path, "00000001-1-1").unwrap();
        let objects: Vec<_> = found.iter().filter_map(|it| it.object.as_deref()).collect();
        assert_eq!(objects, ["a", "c"]);
        assert!(in_file(&dir.path().join("missing"), "x").is_err());
    }

    fn entry() -> Entry {
        Entry {
            time: "2026-01-31T10:00:00.000000Z".into(),
            verdict: super::super::entry::Verdict::Hidden,
            id: Some("00000001-1-1".into()),
            connection: Some("00000001-1".into()),
            identities: Some(["acme".into(), "lab".into()].into()),
            client: Some(
                Client {
                    user: Some("ann".into()),
                    uid: Some(1000),
                    gid: Some(100),
                    pid: Some(7),
                    sasl: Some("alice".into()),
                    dn: Some("CN=ci,O=Acme".into()),
                    address: Some("192.0.2.1:4000".into()),
                }
                .into(),
            ),
            listener: Some("main".into()),
            upstream: Some("qemu".into()),
            procedure: Some("DOMAIN_CREATE".into()),
            object: Some("domain beta-1".into()),
            permission: Some("domain:start".into()),
            rule: Some(12),
            cause: Some(super::super::entry::Cause::NotAllowed),
            reason: Some("domain:start is not allowed".into()),
            generation: Some(3),
            policy: Some("0123456789abcdef".into()),
            count: 4,
        }
    }

    /// Fields of an event, named and written as the journal's layer does.
    #[derive(Default)]
    struct Fields(Map<String, Value>);

    impl Visit for Fields {
        fn record_str(&mut self, field: &Field, value: &str) {
            let name = format!("F_{}", field.name().to_uppercase());
            self.0.insert(name, value.into());
        }

        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    /// Keeps the target and fields of the last event.
    #[derive(Clone, Default)]
    struct Journal(Arc<Mutex<(String, Fields)>>);

    impl<S: Subscriber> Layer<S> for Journal {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let target = event.metadata().target().to_owned();
            *self.0.lock().unwrap() = (target, fields);
        }
    }

    #[test]
    fn a_journal_entry_is_the_same_record() {
        let sparse = Entry {
            client: Some(Client::default().into()),
            object: None,
            rule: None,
            cause: None,
            ..entry()
        };
        for entry in [entry(), sparse] {
            let journal = Journal::default();
            let subscriber = tracing_subscriber::registry().with(journal.clone());
            tracing::subscriber::with_default(subscriber, || super::super::log::write(&entry));
            let (target, Fields(fields)) = std::mem::take(&mut *journal.0.lock().unwrap());
            assert_eq!(target, TARGET);
            let line = Value::Object(fields).to_string();
            assert_eq!(of_journal(&line), Some(entry));
        }
        assert_eq!(of_journal("{}"), None);
    }
}
