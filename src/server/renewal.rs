//! Certificates, read again when their files change, without the policy being read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::auth::certificates::{self, Certificates, Finding};
use super::context::Context;
use super::file_watch::FileWatch;
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
    certificates: Option<Certificates>,
    findings: Vec<(Arc<str>, Finding)>,
}

impl Renewal {
    /// Watches the files of `policy`. Files that cannot be watched are read again with the policy
    /// only.
    pub(crate) fn follow(&mut self, policy: &Policy) {
        let files = certificates::files(&policy.listeners);
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
            let generation = ctx.policy.load();
            self.running = Some(tokio::task::spawn_blocking(move || {
                let mut findings = Vec::new();
                let listeners = &generation.policy.listeners;
                let certificates = Certificates::load(listeners, SystemTime::now(), &mut findings);
                Attempt {
                    generation: generation.number,
                    certificates,
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
            Ok(attempt) => attempt.conclude(ctx),
            Err(error) => tracing::error!(%error, "reading the certificates"),
        }
    }
}

impl Attempt {
    fn conclude(self, ctx: &Context) {
        for (listener, found) in &self.findings {
            let Finding {
                message, severity, ..
            } = found;
            match severity {
                Severity::Error => tracing::error!(listener = &**listener, "{message}"),
                Severity::Warning => tracing::warn!(listener = &**listener, "{message}"),
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
