//! Addresses of upstreams.

use core::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::{Compiler, elements, listeners};
use crate::policy::model::Address;
use crate::policy::raw::{self, OneOrMany};
use crate::policy::report::{Problem, quoted};
use crate::policy::template::{self, MAX_HOST};
use crate::policy::yaml::Pointer;

/// libvirt's own ports.
const TLS_PORT: u16 = 16514;
const TCP_PORT: u16 = 16509;
/// What stands for an address in examples.
const EXAMPLE: &str = "write a name or IP address, and perhaps a port: \"hv1.example.com:16514\", \
                       \"[2001:db8::1]\"";

/// What is wrong, and what to write.
type Wrong = (String, &'static str);

impl Compiler<'_, '_> {
    /// Where an upstream is reached, by the one key that says so.
    pub(super) fn addresses_of(
        &mut self,
        upstream: &raw::Upstream,
        at: &Pointer,
    ) -> Option<Vec<Address>> {
        if let Some(paths) = &upstream.unix {
            return self.unix_addresses(paths, upstream.unix_ro.as_ref(), at);
        }
        if let Some(words) = &upstream.command {
            let words = self.words(words, &at.key("command"))?;
            return Some(vec![Address::Command(words.into())]);
        }
        if let Some(hosts) = &upstream.tcp {
            let ends = self.ends(hosts, TCP_PORT, &at.key("tcp"))?;
            let address = |(host, port)| Address::Tcp { host, port };
            return Some(ends.into_iter().map(address).collect());
        }
        let ends = self.ends(upstream.tls.as_ref()?, TLS_PORT, &at.key("tls"));
        let tls = Arc::new(self.client_tls(upstream, at)?);
        let address = |(host, port)| Address::Tls {
            host,
            port,
            tls: Arc::clone(&tls),
        };
        Some(ends?.into_iter().map(address).collect())
    }

    fn unix_addresses(
        &mut self,
        paths: &OneOrMany<raw::SocketPath>,
        readonly: Option<&raw::SocketPath>,
        at: &Pointer,
    ) -> Option<Vec<Address>> {
        let at_readonly = at.key("unix_ro");
        let readonly = match readonly {
            Some(path) => self.socket_path(path, &at_readonly).map(Some),
            None => Some(None),
        };
        if paths.as_slice().len() > 1 && readonly != Some(None) {
            let place = Some(self.document.key_place(&at_readonly));
            let message = "`unix_ro` goes with one path in `unix`";
            self.problems.push(
                Problem::error("address", place, message)
                    .help("remove it: readers then use `unix`, opened read-only"),
            );
            return None;
        }
        let paths: Vec<_> = elements(paths, &at.key("unix"))
            .map(|(at, path)| self.socket_path(path, &at))
            .collect();
        let readonly = readonly?;
        let address = |path: Option<_>| {
            Some(Address::Unix {
                path: path?,
                readonly: readonly.clone(),
            })
        };
        paths.into_iter().map(address).collect()
    }

    /// Hosts and ports.
    fn ends(
        &mut self,
        hosts: &OneOrMany<raw::HostText>,
        default: u16,
        at: &Pointer,
    ) -> Option<Vec<(String, u16)>> {
        let ends: Vec<Option<(String, u16)>> = elements(hosts, at)
            .map(|(at, text)| {
                let text = self.expand(&text.0, &at)?;
                self.told(&at, end(&text, default))
            })
            .collect();
        ends.into_iter().collect()
    }

    pub(super) fn server_name(&mut self, name: &raw::HostText, at: &Pointer) -> Option<String> {
        let text = self.expand(&name.0, at)?;
        let name = match text.parse::<IpAddr>() {
            Ok(_) => Ok(text),
            Err(_) => host(&text).map_err(|_| {
                let message = format!("{} is no name of a host", quoted(&text));
                (message, "write a name or IP address, without a port")
            }),
        };
        self.told(at, name)
    }

    /// A program and its arguments.
    pub(super) fn words(&mut self, words: &[raw::Word], at: &Pointer) -> Option<Vec<String>> {
        let mut out = Vec::new();
        for (index, word) in words.iter().enumerate() {
            let at = at.index(index);
            let word = self.expand(&word.0, &at)?;
            let wrong = match (index, word.as_str()) {
                (0, "") => Some(("empty-value", "the program is missing")),
                // Looked up from wherever the daemon happens to stand.
                (0, program) if program.contains('/') && !program.starts_with('/') => {
                    Some(("path", "a program's path must be absolute"))
                }
                (_, word) if word.contains('\0') => Some(("path", "a word has no NUL character")),
                _ => None,
            };
            if let Some((code, message)) = wrong {
                let help = "write the program's path, or its name alone: `[ssh, host, …]`";
                let place = Some(self.document.place(&at));
                self.problems
                    .push(Problem::error(code, place, message).help(help));
                return None;
            }
            out.push(word);
        }
        Some(out)
    }

    fn told<T>(&mut self, at: &Pointer, outcome: Result<T, Wrong>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err((message, help)) => {
                let place = Some(self.document.place(at));
                self.problems
                    .push(Problem::error("address", place, message).help(help));
                None
            }
        }
    }
}

/// Whether nothing that goes to this host leaves ours, by its name or address.
pub(super) fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => listeners::is_loopback(address),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Host and port.
fn end(text: &str, default: u16) -> Result<(String, u16), Wrong> {
    let no_address = || (format!("{} is no address", quoted(text)), EXAMPLE);
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(no_address)?;
            address.parse::<Ipv6Addr>().map_err(|_| no_address())?;
            (address.to_owned(), port)
        }
        None if text.parse::<Ipv6Addr>().is_ok() => {
            let message = format!("{} is an IPv6 address without brackets", quoted(text));
            return Err((message, "write it in brackets: \"[2001:db8::1]:16514\""));
        }
        None => {
            let colon = text.find(':').unwrap_or(text.len());
            let (name, port) = text.split_at_checked(colon).ok_or_else(no_address)?;
            (host(name).map_err(|()| no_address())?, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default,
        None => return Err(no_address()),
        Some(rest) if rest.starts_with("//") => return Err(no_address()),
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => {
                let message = format!("{} is no port", quoted(digits));
                return Err((message, "a port is a number from 1 to 65535"));
            }
            Ok(port) => port,
        },
    };
    Ok((name, port))
}

/// A name of DNS or an IPv4 address, whatever values come into it.
fn host(text: &str) -> Result<String, ()> {
    let name = template::fill(text, &|_| "x");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_host = (1..=MAX_HOST).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name.chars().all(is_plain);
    is_host.then(|| text.to_owned()).ok_or(())
}
