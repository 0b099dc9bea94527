//! Listening TCP sockets of our own.

use core::net::SocketAddr;
use std::net::TcpListener;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt,
};

/// Connections that the kernel holds until they are accepted: libvirt's `max_queued_clients`.
const BACKLOG: i32 = 1000;

/// Opens a listening, non-blocking socket. An IPv6 socket takes no IPv4 clients, whatever the host's
/// default is; an address that was in use a moment ago may be used again.
///
/// # Errors
/// The address is in use, is none of this host's, or the port is privileged.
pub(crate) fn open(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn both_kinds_of_address_share_a_port() {
        let six = open("[::]:0".parse().unwrap()).unwrap();
        let port = six.local_addr().unwrap().port();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        let four = open(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        assert_eq!(
            open(four.local_addr().unwrap()).unwrap_err(),
            Errno::ADDRINUSE
        );
    }
}
