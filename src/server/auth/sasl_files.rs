//! SASL of a listener, from the policy's words and the password file that they name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::passwords::{Passwords, PasswordsError};
use super::sasl::{ExternalUser, Mechanism, SaslConfig};
use super::tls_files::Finding;
use super::verifier::Hash;
use crate::policy::model;

/// Password files, each read once for all listeners that name it.
#[derive(Debug, Default)]
pub(crate) struct PasswordFiles(HashMap<PathBuf, Arc<Passwords>>);

impl PasswordFiles {
    fn read(&mut self, path: &Path) -> Result<Arc<Passwords>, PasswordsError> {
        if let Some(passwords) = self.0.get(path) {
            return Ok(Arc::clone(passwords));
        }
        let passwords = Arc::new(Passwords::read(path)?);
        self.0.insert(path.to_path_buf(), Arc::clone(&passwords));
        Ok(passwords)
    }
}

/// Reads and checks what a listener's SASL needs; `None` if some finding is an error. Blocks.
pub(crate) fn configure(
    sasl: &model::Sasl,
    files: &mut PasswordFiles,
    findings: &mut Vec<Finding>,
) -> Option<Arc<SaslConfig>> {
    let passwords = match &sasl.passwords {
        None => Some(Arc::new(Passwords::default())),
        Some(path) => match files.read(path) {
            Ok(passwords) => Some(passwords),
            Err(problem) => {
                let help = "`virtproxyd passwd FILE USER` makes the file and keeps it";
                findings.push(Finding::error("passwords", problem.to_string(), Some(help)));
                None
            }
        },
    };
    let mechanisms: Vec<Mechanism> = sasl.mechanisms.iter().map(mechanism).collect();
    findings.extend(missing(&mechanisms));
    let usable = mechanisms.iter().all(|mechanism| mechanism.is_built());
    #[cfg(feature = "gssapi")]
    if mechanisms.contains(&Mechanism::Gssapi)
        && let Err(failure) = super::gssapi::check_keytab()
    {
        // No more than a warning: whoever checks a file may not be allowed to read the daemon's
        // keytab, and a keytab may come later.
        let message = format!("no keys of a service libvirt/HOST: {failure}");
        let help =
            "they are in /etc/krb5.keytab, or where KRB5_KTNAME says in the daemon's environment";
        findings.push(Finding::warning("mechanisms", message, Some(help)));
    }
    passwords.filter(|_| usable).map(|passwords| {
        Arc::new(SaslConfig {
            mechanisms,
            passwords,
            external_user: match sasl.external_user {
                model::ExternalUser::Cn => ExternalUser::CommonName,
                model::ExternalUser::Dn => ExternalUser::DistinguishedName,
            },
            min_ssf: sasl.min_ssf,
        })
    })
}

/// What this program cannot do of these.
pub(super) fn missing(mechanisms: &[Mechanism]) -> impl Iterator<Item = Finding> {
    let missing = mechanisms.iter().filter(|mechanism| !mechanism.is_built());
    missing.map(|mechanism| {
        let message = format!("this program was built without {}", mechanism.name());
        let help = "build it with `cargo build --features gssapi`";
        Finding::error("mechanisms", message, Some(help))
    })
}

pub(super) fn mechanism(named: &model::Mechanism) -> Mechanism {
    match named {
        model::Mechanism::ScramSha256 => Mechanism::Scram(Hash::Sha256),
        model::Mechanism::ScramSha512 => Mechanism::Scram(Hash::Sha512),
        model::Mechanism::Plain => Mechanism::Plain,
        model::Mechanism::External => Mechanism::External,
        model::Mechanism::Gssapi => Mechanism::Gssapi,
    }
}
