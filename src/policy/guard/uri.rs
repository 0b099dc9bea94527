//! URIs that migrations go by.

/// What a URI makes the daemon do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// Go to a host, or to one it knows itself.
    Host,
    /// Use a socket of this host.
    Socket(&'a str),
    /// Perhaps something else: read files, run programs.
    Other,
}

/// Ways to another daemon that read no more than the host's own settings.
const TRANSPORTS: [&str; 4] = ["tls", "tcp", "ssh", "libssh2"];

/// A URI that a migration goes by: of the data (`tcp://host:port`, `rdma://…`, `unix:///path`, and
/// the old `tcp:host:port`), or of the other daemon (`qemu+tls://host/system`).
///
/// A connection's URI can name key files, programs and sockets in its query, and transports that
/// run a command; none of that is let through.
pub(super) fn migration(uri: &str) -> Target<'_> {
    if uri.is_empty() {
        return Target::Host;
    }
    let Some((scheme, rest)) = uri.split_once(':') else {
        return if is_host(uri) {
            Target::Host
        } else {
            Target::Other
        };
    };
    if scheme == "unix" {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        return if path.contains(['?', '#', '%']) {
            Target::Other
        } else {
            Target::Socket(path)
        };
    }
    let transport = match scheme.split_once('+') {
        None => true,
        Some((_, transport)) => TRANSPORTS.contains(&transport),
    };
    let driver = scheme.split('+').next().unwrap_or_default();
    let known = matches!(
        driver,
        "tcp" | "rdma" | "qemu" | "xen" | "lxc" | "bhyve" | "ch" | "vz" | "test"
    );
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let plain = matches!(path, "" | "system" | "session" | "default");
    if transport && known && plain && is_host(authority) {
        Target::Host
    } else {
        Target::Other
    }
}

/// `host`, `user@host:port`, `[::1]:port`, or nothing. A host that begins with a dash would be an
/// option to a program.
fn is_host(text: &str) -> bool {
    let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
    let characters = |one: char| one.is_ascii_alphanumeric() || ".-_:[]@".contains(one);
    !host.starts_with('-') && !text.starts_with('-') && text.chars().all(characters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_uris_are_hosts() {
        for uri in [
            "",
            "tcp://hv2",
            "tcp:hv2:49152",
            "tcp://[fe80::1]:49152",
            "rdma://hv2:49152",
            "qemu+tls://hv2.example.com/system",
            "qemu+ssh://root@hv2/system",
            "qemu://hv2/system",
            "qemu:///system",
            "xen+tls://hv2",
            "hv2.example.com",
        ] {
            assert_eq!(migration(uri), Target::Host, "{uri}");
        }
        for (uri, path) in [
            ("unix:///srv/acme/s", "/srv/acme/s"),
            ("unix:/srv/acme/s", "/srv/acme/s"),
            ("unix:s", "s"),
        ] {
            assert_eq!(migration(uri), Target::Socket(path), "{uri}");
        }
        for uri in [
            "qemu+ext:///system?command=/bin/sh",
            "qemu+unix:///system?socket=/srv/x",
            "qemu+unix:///system",
            "qemu+tls://hv2/system?pkipath=/srv/acme",
            "qemu+ssh://hv2/system?command=/bin/sh",
            "qemu+libssh2://hv2/system?known_hosts=/x",
            "qemu+ssh://-oProxyCommand=x/system",
            "qemu+ssh://a@-oProxyCommand/system",
            "qemu+ssh://hv2%2f/system",
            "test:///srv/acme/x.xml",
            "exec:cat",
            "fd:3",
            "file:///etc/shadow",
            "unix:///srv/acme/%2e%2e/x",
            "/etc/shadow",
        ] {
            assert_eq!(migration(uri), Target::Other, "{uri}");
        }
    }
}
