//! Certificates, read again when their files change, without the policy being read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::auth::certificates::{self, Certificates, Finding};
use super::context::Context;
use super::file_watch::FileWatch;
use crate::policy::FileOwner;
use crate::policy::model::Policy;
use crate::policy::report::Severity;

/// Watches the files of the policy in force.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    files: Vec<PathBuf>,
    watch: Option<FileWatch>,
    changed: Arc<Notify>,
    running: Option<JoinHandle<Attempt>>,
}

/// What was read for a generation of the policy.
#[derive(Debug)]
struct Attempt {
    generation: u64,
    /// The files are those that are in force: there is nothing to do.
    is_current: bool,
    certificates: Option<Certificates>,
    findings: Vec<(FileOwner, Finding)>,
}

impl Renewal {
    /// Watches the files of `policy`, which has come into force. Files that cannot be watched are read
    /// again with the policy only.
    pub(crate) fn follow(&mut self, policy: &Policy) {
        // They may have changed after they were read with the policy, where nobody watched or where
        // what was read then came into force before it.
        self.changed.notify_one();
        let files = certificates::files(policy);
        if files == self.files {
            return;
        }
        self.watch = None;
        if !files.is_empty() {
            match FileWatch::start(files.clone(), Arc::clone(&self.changed)) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => {
                    tracing::error!(%error, "cannot watch certificates and passwords; a change needs a SIGHUP");
                }
            }
        }
        self.files = files;
    }

    /// Does what is due: reads after a change, and puts what was read in force, whole or not at all.
    /// Returns after each step. Cancel-safe.
    pub(crate) async fn step(&mut self, ctx: &Arc<Context>) {
        let Some(running) = &mut self.running else {
            self.changed.notified().await;
            let (generation, in_force) = (ctx.policy.load(), ctx.certificates.load());
            self.running = Some(tokio::task::spawn_blocking(move || {
                let mut findings = Vec::new();
                let policy = &generation.policy;
                let is_current = in_force.is_current(policy);
                let certificates = (!is_current)
                    .then(|| Certificates::load(policy, SystemTime::now(), &mut findings));
                Attempt {
                    generation: generation.number,
                    is_current,
                    certificates: certificates.flatten(),
                    findings,
                }
            }));
            return;
        };
        let attempt = running.await;
        self.running = None;
        match attempt {
            // A new policy came with certificates of its own, which may be older than the change.
            Ok(attempt) if attempt.generation != ctx.policy.generation() => {
                self.changed.notify_one();
            }
            Ok(attempt) if attempt.is_current => {}
            Ok(attempt) => attempt.conclude(ctx),
            Err(error) => tracing::error!(%error, "reading the certificates"),
        }
    }
}

impl Attempt {
    fn conclude(self, ctx: &Context) {
        for (owner, found) in &self.findings {
            let Finding {
                message, severity, ..
            } = found;
            match severity {
                Severity::Error => tracing::error!(?owner, "{message}"),
                Severity::Warning => tracing::warn!(?owner, "{message}"),
            }
        }
        match self.certificates {
            Some(certificates) => {
                ctx.certificates.swap(certificates);
                tracing::info!("certificates and passwords read again");
            }
            None => tracing::error!("the certificates and passwords in force stay"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use crate::server::audit::{Audit, Sinks};
    use crate::server::auth::passwords::Passwords;

    fn write(path: &std::path::Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[tokio::test]
    async fn what_changed_between_reading_and_watching_is_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        write(&path, "");
        let text = format!(
            "version: 1\nlisteners: {{main: {{unix: /run/m, auth: sasl, sasl: {{passwords: {}}}}}}}\n\
             upstreams: {{u: {{unix: /run/u}}}}\nroutes: [{{uri: x, upstream: u}}]\n",
            path.display()
        );
        let policy = crate::policy::load("f", &text, &|_| None).unwrap().policy;
        let read = Certificates::load(&policy, SystemTime::now(), &mut Vec::new());
        let audit = Audit::start(Sinks::default()).unwrap();
        let ctx = Arc::new(Context::new("f".into(), policy, read.unwrap(), audit));
        let users = || {
            ctx.certificates
                .load()
                .sasl("main")
                .unwrap()
                .passwords
                .clone()
        };
        assert_eq!(*users(), Passwords::default());
        // RFC 7677's.
        let user = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
            $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        write(&path, user);

        let mut renewal = Renewal::default();
        renewal.follow(&ctx.policy.load().policy);
        let mut steps = async || {
            for _ in 0..2 {
                let step = renewal.step(&ctx);
                tokio::time::timeout(Duration::from_secs(60), step)
                    .await
                    .unwrap();
            }
        };
        steps().await;
        assert_eq!(users().users().count(), 1);
        assert!(
            ctx.certificates
                .load()
                .is_current(&ctx.policy.load().policy)
        );
    }
}
