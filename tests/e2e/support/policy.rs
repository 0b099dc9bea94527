//! Policy files that many tests share.

use std::path::Path;

/// File name of the socket of listener `main`.
pub(crate) const MAIN: &str = "sock";
/// File name of the socket of listener `ro`.
const READONLY: &str = "sock-ro";

/// Time for a daemon to open, as long as a test waits for anything: a loaded machine is no reason to
/// refuse.
pub(crate) const CONNECT: &str = "connect_timeout: 60s";

/// The usual listeners, with their sockets in `dir` and open to all: `main`, and `ro` for reading
/// only. `more` is put into each.
pub(crate) fn listeners(dir: &Path, more: &str) -> String {
    let dir = dir.display();
    format!(
        "version: 1
listeners:
  main: {{ unix: \"{dir}/{MAIN}\", mode: \"0666\", {more} }}
  ro: {{ unix: \"{dir}/{READONLY}\", mode: \"0666\", readonly: true, {more} }}
"
    )
}

/// A whole policy: the usual listeners in `dir`, and the daemon at `upstream` for every client and
/// URI. `settings` are more keys of the upstream.
pub(crate) fn everything_to(dir: &Path, upstream: &Path, settings: &str) -> String {
    listeners(dir, "") + &every_route_to(upstream, settings)
}

/// What follows the listeners in such a policy.
pub(crate) fn every_route_to(upstream: &Path, settings: &str) -> String {
    format!(
        "upstreams:
  daemon: {{ unix: \"{upstream}\", {CONNECT}, {settings} }}
routes:
  - {{ uri: [\"*?*\", \"\"], upstream: daemon }}
",
        upstream = upstream.display(),
    )
}
