//! Listeners: where they listen, what is proven of their clients, and that no door stands open
//! unless the file says so.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Compiler, elements};
use crate::policy::model::{
    Auth, ExternalUser, ListenAddress, Listener, Mechanism, Network, NetworkError, Sasl,
};
use crate::policy::raw::{self, OneOrMany};
use crate::policy::report::{Problem, quoted};
use crate::policy::yaml::Pointer;

const DEFAULT_MODE: u32 = 0o600;
const DEFAULT_READONLY_MODE: u32 = 0o666;
const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_AUTH_TIMEOUT: Duration = Duration::from_secs(60);
/// A person may have to be asked for a password.
const DEFAULT_POLKIT_TIMEOUT: Duration = Duration::from_secs(300);
/// As libvirt's `tcp_min_ssf`: the strength of single DES, the least that it takes.
const DEFAULT_MIN_SSF: u16 = 56;

impl Compiler<'_, '_> {
    pub(super) fn listener(
        &mut self,
        name: &Arc<str>,
        listener: &raw::Listener,
        at: &Pointer,
    ) -> Option<Arc<Listener>> {
        let readonly = listener.readonly.unwrap_or(false);
        let address = self.address(listener, readonly, at);
        self.misplaced(listener, at);
        let keepalive = self.keepalive(listener.keepalive.as_ref(), &at.key("keepalive"));
        let auth = match listener.auth {
            None | Some(raw::Auth::None) => Auth::None,
            Some(raw::Auth::Polkit) => Auth::Polkit,
            Some(raw::Auth::Sasl) => Auth::Sasl,
        };
        let tls = match &listener.tls {
            None => Some(None),
            Some(tls) => self.tls(tls, &at.key("tls")).map(Some),
        };
        let sasl = match (auth, &listener.sasl) {
            (Auth::Sasl, given) => self.sasl(given.as_ref(), listener, at).map(Some),
            (_, None) => Some(None),
            (_, Some(_)) => {
                let problem = Problem::error(
                    "auth",
                    Some(self.document.key_place(&at.key("sasl"))),
                    "`sasl` has no effect without `auth: sasl`",
                );
                self.problems.push(problem.help("add `auth: sasl`"));
                None
            }
        };
        let proxies = self.networks(listener.proxy_protocol.as_ref(), &at.key("proxy_protocol"));
        let handshake_timeout = match &listener.handshake_timeout {
            Some(text) => self.duration(&text.0, &at.key("handshake_timeout"), false),
            None => Some(DEFAULT_HANDSHAKE_TIMEOUT),
        };
        let auth_timeout = match &listener.auth_timeout {
            Some(text) => self.duration(&text.0, &at.key("auth_timeout"), false),
            None if auth == Auth::Polkit => Some(DEFAULT_POLKIT_TIMEOUT),
            None => Some(DEFAULT_AUTH_TIMEOUT),
        };
        let listener = Listener {
            name: Arc::clone(name),
            address: address?,
            readonly,
            keepalive: keepalive?,
            auth,
            tls: tls?,
            sasl: sasl?,
            proxy_protocol: proxies?.unwrap_or_default(),
            handshake_timeout: handshake_timeout?,
            auth_timeout: auth_timeout?,
            unsafe_plain_tcp: listener.unsafe_plain_tcp.unwrap_or(false),
        };
        self.unprotected(&listener, at).then(|| Arc::new(listener))
    }

    fn address(
        &mut self,
        listener: &raw::Listener,
        readonly: bool,
        at: &Pointer,
    ) -> Option<ListenAddress> {
        match (&listener.unix, &listener.tcp) {
            (Some(path), None) => {
                let path = self.socket_path(path, &at.key("unix"));
                let mode = match &listener.mode {
                    Some(mode) => u32::from_str_radix(&mode.0, 8).ok(),
                    None if readonly => Some(DEFAULT_READONLY_MODE),
                    None => Some(DEFAULT_MODE),
                };
                Some(ListenAddress::Unix {
                    path: path?,
                    mode: mode?,
                    group: listener.group.clone(),
                })
            }
            (None, Some(addresses)) => self
                .tcp_addresses(addresses, &at.key("tcp"))
                .map(|addresses| ListenAddress::Tcp { addresses }),
            (Some(_), Some(_)) => {
                self.problems.push(
                    Problem::error(
                        "address",
                        Some(self.document.key_place(&at.key("tcp"))),
                        "a listener has `unix` or `tcp`, not both",
                    )
                    .related(self.document.key_place(&at.key("unix")), "`unix` is here")
                    .help("make it two listeners"),
                );
                None
            }
            (None, None) => {
                // An unknown or unusable key may well have been meant for it.
                if !self.flaws.incomplete(at) {
                    let problem = Problem::error(
                        "address",
                        Some(self.document.key_place(at)),
                        "this listener listens nowhere",
                    );
                    self.problems.push(problem.help(
                        "add `unix` with the path of a socket, or `tcp` with an address and port",
                    ));
                }
                None
            }
        }
    }

    fn tcp_addresses(
        &mut self,
        addresses: &OneOrMany<raw::TcpAddress>,
        at: &Pointer,
    ) -> Option<Vec<SocketAddr>> {
        let mut parsed = Vec::new();
        let mut failed = false;
        for (at, text) in elements(addresses, at) {
            match tcp_address(&text.0) {
                Ok(address) => parsed.push(address),
                Err((message, help)) => {
                    failed = true;
                    let place = Some(self.document.place(&at));
                    self.problems
                        .push(Problem::error("address", place, message).help(help));
                }
            }
        }
        (!failed).then_some(parsed)
    }

    /// Keys that go with the other kind of socket.
    fn misplaced(&mut self, listener: &raw::Listener, at: &Pointer) {
        let tcp = [
            ("tls", listener.tls.is_some()),
            ("proxy_protocol", listener.proxy_protocol.is_some()),
            ("handshake_timeout", listener.handshake_timeout.is_some()),
            ("unsafe_plain_tcp", listener.unsafe_plain_tcp.is_some()),
        ];
        let unix = [
            ("mode", listener.mode.is_some()),
            ("group", listener.group.is_some()),
        ];
        let (kind, misplaced) = match (&listener.unix, &listener.tcp) {
            (Some(_), None) => ("tcp", &tcp[..]),
            (None, Some(_)) => ("unix", &unix[..]),
            _ => return,
        };
        for (key, _) in misplaced.iter().filter(|(_, present)| *present) {
            let place = Some(self.document.key_place(&at.key(key)));
            self.problems.push(
                Problem::error("address", place, format!("`{key}` goes with `{kind}`"))
                    .help("remove it"),
            );
        }
    }

    fn sasl(
        &mut self,
        given: Option<&raw::Sasl>,
        listener: &raw::Listener,
        listener_at: &Pointer,
    ) -> Option<Sasl> {
        let at = listener_at.key("sasl");
        // What is wrong in it is said already; what it lacks for that reason is not.
        if self.flaws.incomplete(&at) {
            return None;
        }
        let mut mechanisms = Vec::new();
        match given.and_then(|sasl| sasl.mechanisms.as_ref()) {
            None => {
                let default = Mechanism::ScramSha256;
                if let Err(why) = fits(default, listener) {
                    self.error("auth", &listener_at.key("auth"), why);
                    return None;
                }
                mechanisms.push(default);
            }
            Some(named) => {
                for (index, name) in named.iter().enumerate() {
                    let at = at.key("mechanisms").index(index);
                    let mechanism = mechanism(*name);
                    if let Err(why) = fits(mechanism, listener) {
                        self.error("auth", &at, why);
                        return None;
                    }
                    if !mechanisms.contains(&mechanism) {
                        mechanisms.push(mechanism);
                    }
                }
            }
        }
        let passwords = given.and_then(|sasl| sasl.passwords.as_ref());
        let external_user = given.and_then(|sasl| sasl.external_user);
        let min_ssf = given.and_then(|sasl| sasl.min_ssf);
        let by_password = mechanisms.iter().any(|mechanism| mechanism.has_passwords());
        let gssapi = mechanisms.contains(&Mechanism::Gssapi);
        let external = mechanisms.contains(&Mechanism::External);
        for (key, present, used, by) in [
            (
                "passwords",
                passwords.is_some(),
                by_password,
                "a mechanism with passwords",
            ),
            ("min_ssf", min_ssf.is_some(), gssapi, "GSSAPI"),
            (
                "external_user",
                external_user.is_some(),
                external,
                "EXTERNAL",
            ),
        ] {
            if present && !used {
                let place = Some(self.document.key_place(&at.key(key)));
                self.problems.push(
                    Problem::error("auth", place, format!("`{key}` has no effect without {by}"))
                        .help("remove it, or add the mechanism"),
                );
            }
        }
        if by_password && passwords.is_none() {
            let place = match given {
                Some(_) => self.document.key_place(&at),
                None => self.document.place(&listener_at.key("auth")),
            };
            self.problems.push(
                Problem::error("auth", Some(place), "`passwords` is missing").help(
                    "name the file with the users' passwords, `sasl: { passwords: FILE }`; \
                     `virtproxyd passwd` writes it",
                ),
            );
            return None;
        }
        let passwords = match passwords {
            None => None,
            Some(path) => Some(self.file_path(path, &at.key("passwords"))?),
        };
        Some(Sasl {
            mechanisms,
            passwords,
            external_user: match external_user {
                None | Some(raw::ExternalUser::Cn) => ExternalUser::Cn,
                Some(raw::ExternalUser::Dn) => ExternalUser::Dn,
            },
            min_ssf: min_ssf.unwrap_or(DEFAULT_MIN_SSF),
        })
    }

    /// `Some(None)` if the key is absent.
    pub(super) fn networks(
        &mut self,
        networks: Option<&OneOrMany<raw::NetworkText>>,
        at: &Pointer,
    ) -> Option<Option<Vec<Network>>> {
        let Some(networks) = networks else {
            return Some(None);
        };
        let mut parsed = Vec::new();
        let mut failed = false;
        for (at, text) in elements(networks, at) {
            match text.0.parse() {
                Ok(network) => parsed.push(network),
                Err(error) => {
                    failed = true;
                    let place = Some(self.document.place(&at));
                    let problem = match error {
                        NetworkError::HostBits(network) => {
                            let message = format!("{} has bits behind its length", quoted(&text.0));
                            let help = format!("write {network}, or the address alone");
                            Problem::error("network", place, message).help(help)
                        }
                        other => Problem::error("network", place, other.to_string()),
                    };
                    self.problems.push(problem);
                }
            }
        }
        (!failed).then_some(Some(parsed))
    }

    /// What others than this host could read or change, or enter by. `false` if it is refused.
    fn unprotected(&mut self, listener: &Listener, at: &Pointer) -> bool {
        let ListenAddress::Tcp { addresses } = &listener.address else {
            return true;
        };
        // What protects it may be among what could not be read.
        if self.flaws.incomplete(at) {
            return false;
        }
        if listener.auth == Auth::Polkit {
            let place = Some(self.document.place(&at.key("auth")));
            self.problems.push(
                Problem::error(
                    "auth",
                    place,
                    "polkit knows the processes of this host only",
                )
                .help("use `tls` with certificates, or `auth: sasl`"),
            );
            return false;
        }
        if listener.unsafe_plain_tcp && listener.tls.is_some() {
            let place = Some(self.document.key_place(&at.key("unsafe_plain_tcp")));
            self.problems.push(
                Problem::error("plain-tcp", place, "`unsafe_plain_tcp` with `tls`")
                    .help("remove one of the two"),
            );
            return false;
        }
        let far = addresses.iter().find(|address| !is_loopback(address.ip()));
        let Some(far) = far.filter(|_| listener.is_loopback_only()) else {
            return true;
        };
        // SASL without TLS is by GSSAPI alone, which protects the whole connection.
        let message = format!("whoever reaches {far} could do everything, unknown and unprotected");
        let place = Some(self.document.place(&at.key("tcp")));
        self.problems
            .push(Problem::error("plain-tcp", place, message).help(
                "add `tls`, or `auth: sasl` with GSSAPI, or listen on 127.0.0.1; \
                 `unsafe_plain_tcp: true` overrides this",
            ));
        false
    }
}

/// An address, or what is wrong and what to write.
fn tcp_address(text: &str) -> Result<SocketAddr, (String, &'static str)> {
    const EXAMPLE: &str = "an IP address and a port, such as \"[::]:16514\" or \"0.0.0.0:16514\"; \
                           names of hosts and services are not looked up";
    let no_address = || (format!("{} is no address", quoted(text)), EXAMPLE);
    let address: SocketAddr = text.parse().map_err(|_| no_address())?;
    if address.port() == 0 {
        return Err((
            "port 0 is none".to_owned(),
            "libvirt's ports are 16514 with TLS and 16509 without",
        ));
    }
    if address.ip().to_canonical() != address.ip() {
        return Err((
            "this is an IPv4 address in IPv6 clothes".to_owned(),
            "write it as an IPv4 address",
        ));
    }
    Ok(address)
}

/// Whether nothing that goes there leaves this host.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

pub(super) fn mechanism(name: raw::Mechanism) -> Mechanism {
    match name {
        raw::Mechanism::ScramSha256 => Mechanism::ScramSha256,
        raw::Mechanism::ScramSha512 => Mechanism::ScramSha512,
        raw::Mechanism::Plain => Mechanism::Plain,
        raw::Mechanism::External => Mechanism::External,
        raw::Mechanism::Gssapi => Mechanism::Gssapi,
    }
}

/// Whether a mechanism can be offered on a listener.
fn fits(mechanism: Mechanism, listener: &raw::Listener) -> Result<(), &'static str> {
    let certificates = listener
        .tls
        .as_ref()
        .is_some_and(|tls| !matches!(tls.client_cert, Some(raw::ClientCert::UnsafeNone)));
    let plain_tcp = listener.tcp.is_some() && listener.tls.is_none();
    match mechanism {
        Mechanism::Plain if plain_tcp => {
            Err("PLAIN would send passwords readable: it needs `tls` or a UNIX socket")
        }
        Mechanism::ScramSha256 | Mechanism::ScramSha512 if plain_tcp => Err(
            "SCRAM protects the password and nothing after it, so that clients refuse it on plain \
             TCP: it needs `tls` or a UNIX socket",
        ),
        Mechanism::External if !certificates => {
            Err("EXTERNAL is by the client's certificate: it needs `tls` that asks for one")
        }
        _ => Ok(()),
    }
}
