//! Upstreams: where they are reached, whom they are taken for, and that nothing goes there
//! unprotected unless the file says so.

use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use super::addresses::is_loopback;
use super::listeners::mechanism;
use crate::policy::model::{Address, ClientSasl, ForwardIdentity, Mechanism, Upstream};
use crate::policy::raw;
use crate::policy::report::Problem;
use crate::policy::template::Destination;
use crate::policy::yaml::Pointer;

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How an upstream is reached: the key that says it.
const KINDS: [&str; 4] = ["unix", "tls", "tcp", "command"];

impl Compiler<'_, '_> {
    pub(super) fn upstream(
        &mut self,
        name: &Arc<str>,
        upstream: &raw::Upstream,
        at: &Pointer,
    ) -> Option<Destination> {
        let kind = self.kind(upstream, at);
        if let Some(kind) = kind {
            self.misplaced_in_upstream(upstream, kind, at);
        }
        let addresses = kind.and_then(|_| self.addresses_of(upstream, at));
        let sasl = match (&upstream.sasl, kind) {
            (None, _) => Some(None),
            (Some(sasl), Some(kind)) => self.client_sasl(sasl, kind == "tcp", at).map(Some),
            (Some(_), None) => None,
        };
        let connect_timeout = match &upstream.connect_timeout {
            Some(text) => self.duration(&text.0, &at.key("connect_timeout"), false),
            None => Some(DEFAULT_CONNECT_TIMEOUT),
        };
        let keepalive = self.keepalive(upstream.keepalive.as_ref(), &at.key("keepalive"));
        let start = match &upstream.start {
            Some(words) => self.words(words, &at.key("start")).map(Some),
            None => Some(None),
        };
        let compiled = Upstream {
            name: Arc::clone(name),
            addresses: addresses?,
            connect_timeout: connect_timeout?,
            keepalive: keepalive?,
            identity: match upstream.identity {
                None | Some(raw::ForwardIdentity::Require) => ForwardIdentity::Require,
                Some(raw::ForwardIdentity::Try) => ForwardIdentity::Try,
                Some(raw::ForwardIdentity::Never) => ForwardIdentity::Never,
            },
            reconnect: upstream.reconnect.unwrap_or(false),
            sasl: sasl?.map(Arc::new),
            start: start?.map(Arc::from),
        };
        let unsafe_plain_tcp = upstream.unsafe_plain_tcp.unwrap_or(false);
        let is_protected = self.is_protected(&compiled, unsafe_plain_tcp, at);
        let destination = self.destination(compiled, &upstream.values, at)?;
        is_protected.then_some(destination)
    }

    /// The one key that says where it is reached.
    fn kind(&mut self, upstream: &raw::Upstream, at: &Pointer) -> Option<&'static str> {
        let there = [
            upstream.unix.is_some(),
            upstream.tls.is_some(),
            upstream.tcp.is_some(),
            upstream.command.is_some(),
        ];
        let mut kinds = KINDS.into_iter().zip(there).filter(|(_, there)| *there);
        match (kinds.next(), kinds.next()) {
            (Some((kind, _)), None) => return Some(kind),
            (Some((first, _)), Some((second, _))) => self.problems.push(
                Problem::error(
                    "address",
                    Some(self.document.key_place(&at.key(second))),
                    format!("an upstream has `{first}` or `{second}`, not both"),
                )
                .related(
                    self.document.key_place(&at.key(first)),
                    format!("`{first}` is here"),
                )
                .help("make it two upstreams; several addresses of one daemon are a list"),
            ),
            // An unknown or unusable key may well have been meant for it.
            (None, _) if self.flaws.incomplete(at) => {}
            (None, _) => self.problems.push(
                Problem::error(
                    "address",
                    Some(self.document.key_place(at)),
                    "this upstream is nowhere",
                )
                .help(
                    "add `unix` with the path of a daemon's socket, or `tls`, `tcp` or `command`",
                ),
            ),
        }
        None
    }

    /// Keys that go with another kind.
    fn misplaced_in_upstream(
        &mut self,
        upstream: &raw::Upstream,
        kind: &'static str,
        at: &Pointer,
    ) {
        let keys = [
            ("unix_ro", upstream.unix_ro.is_some(), "unix"),
            ("start", upstream.start.is_some(), "unix"),
            ("ca", upstream.ca.is_some(), "tls"),
            ("cert", upstream.cert.is_some(), "tls"),
            ("key", upstream.key.is_some(), "tls"),
            ("crl", upstream.crl.is_some(), "tls"),
            ("server_name", upstream.server_name.is_some(), "tls"),
            ("min_version", upstream.min_version.is_some(), "tls"),
            (
                "unsafe_plain_tcp",
                upstream.unsafe_plain_tcp.is_some(),
                "tcp",
            ),
        ];
        for (key, _, owner) in keys
            .into_iter()
            .filter(|(_, there, owner)| *there && *owner != kind)
        {
            let place = Some(self.document.key_place(&at.key(key)));
            let message = format!("`{key}` goes with `{owner}`, not with `{kind}`");
            self.problems
                .push(Problem::error("address", place, message).help("remove it"));
        }
    }

    fn client_sasl(
        &mut self,
        sasl: &raw::ClientSasl,
        is_plain_tcp: bool,
        upstream_at: &Pointer,
    ) -> Option<ClientSasl> {
        let at = upstream_at.key("sasl");
        // What is wrong in it is said already; what it lacks for that reason is not.
        if self.flaws.incomplete(&at) {
            return None;
        }
        let mut mechanisms = Vec::new();
        match &sasl.mechanisms {
            None if sasl.user.is_some() => {
                mechanisms.extend([Mechanism::ScramSha512, Mechanism::ScramSha256]);
            }
            None => mechanisms.push(Mechanism::Gssapi),
            Some(named) => mechanisms.extend(named.iter().map(|name| mechanism(*name))),
        }
        for (index, mechanism) in mechanisms.iter().enumerate() {
            let Err(why) = fits(*mechanism, is_plain_tcp) else {
                continue;
            };
            let at = match sasl.mechanisms {
                Some(_) => at.key("mechanisms").index(index),
                None => at.key("user"),
            };
            self.error("auth", &at, why);
            return None;
        }
        let has_passwords = mechanisms.iter().any(|it| it.has_passwords());
        let keys = [
            ("user", sasl.user.is_some()),
            ("password_file", sasl.password_file.is_some()),
        ];
        for (key, there) in keys {
            let (place, message, help) = match (there, has_passwords) {
                (true, false) => (
                    at.key(key),
                    format!("`{key}` has no effect without a mechanism with passwords"),
                    "remove it, or add the mechanism",
                ),
                (false, true) => (
                    at.clone(),
                    format!("`{key}` is missing"),
                    "who logs in by a password has `user` and `password_file`",
                ),
                _ => continue,
            };
            let place = Some(self.document.key_place(&place));
            self.problems
                .push(Problem::error("auth", place, message).help(help));
            return None;
        }
        let password_file = match &sasl.password_file {
            Some(path) => Some(self.file_path(path, &at.key("password_file"))?),
            None => None,
        };
        let mut once = Vec::new();
        for mechanism in mechanisms {
            if !once.contains(&mechanism) {
                once.push(mechanism);
            }
        }
        Some(ClientSasl {
            mechanisms: once,
            user: sasl.user.clone(),
            password_file,
        })
    }

    /// What others than this host could read or change. `false` if it is refused.
    fn is_protected(&mut self, upstream: &Upstream, is_unsafe: bool, at: &Pointer) -> bool {
        let sealed = upstream.sasl.as_ref().is_some_and(|sasl| sasl.is_sealed());
        // What protects it may be among what could not be read.
        if is_unsafe || sealed || self.flaws.incomplete(at) {
            return true;
        }
        let is_far = |address: &Address| match address {
            Address::Tcp { host, .. } => !is_loopback(host),
            _ => false,
        };
        let mut addresses = upstream.addresses.iter().enumerate();
        let Some((index, far)) = addresses.find(|(_, address)| is_far(address)) else {
            return true;
        };
        let message = format!("whoever is on the way to {far} could read and change everything");
        let place = Some(self.document.place(&at.key("tcp").index(index)));
        self.problems
            .push(Problem::error("plain-tcp", place, message).help(
                "write `tls` in place of `tcp`, or add `sasl` with GSSAPI; \
                 `unsafe_plain_tcp: true` overrides this",
            ));
        false
    }
}

/// Whether a mechanism can be used towards a daemon.
fn fits(mechanism: Mechanism, is_plain_tcp: bool) -> Result<(), &'static str> {
    match mechanism {
        Mechanism::Plain if is_plain_tcp => {
            Err("PLAIN would send the password readable: it needs `tls` or a UNIX socket")
        }
        Mechanism::ScramSha256 | Mechanism::ScramSha512 if is_plain_tcp => Err(
            "SCRAM protects the password and nothing after it, so that daemons refuse it on plain \
             TCP: write GSSAPI, or `tls` in place of `tcp`",
        ),
        Mechanism::External => Err(
            "EXTERNAL is the certificate, which the daemon sees without SASL: write another \
             mechanism, or leave `sasl` out",
        ),
        _ => Ok(()),
    }
}
