//! The PROXY protocol, version 2: a load balancer says who is behind it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length of the rest.
const FIXED: usize = 16;
/// Bytes behind the fixed part that are read: addresses and some hundred of what we skip. The
/// protocol allows 65535, no balancer sends 2 KiB.
const MAX_REST: usize = 4096;

const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("no PROXY header (version 2)")]
    Missing,
    #[error("PROXY header: {0}")]
    Malformed(&'static str),
    #[error("PROXY header: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header and nothing behind it. `None`: the balancer speaks for itself (a health
/// check), so that its own address counts. The caller bounds the time.
///
/// # Errors
/// What is sent is not such a header, or the connection fails.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, HeaderError> {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).await?;
    let (command, family, length) = fixed_part(&fixed)?;
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    source(command, family, &rest)
}

fn fixed_part(bytes: &[u8; FIXED]) -> Result<(u8, u8, usize), HeaderError> {
    let (signature, [command, family, high, low]) =
        bytes.split_last_chunk().ok_or(HeaderError::Missing)?;
    if *signature != SIGNATURE {
        return Err(HeaderError::Missing);
    }
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_REST {
        return Err(HeaderError::Malformed("too long"));
    }
    Ok((*command, *family, length))
}

fn source(command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, HeaderError> {
    const SHORT: HeaderError = HeaderError::Malformed("too short for its addresses");
    match (command, family) {
        (VERSION_2_LOCAL, _) => Ok(None),
        (VERSION_2_PROXY, TCP_OVER_IPV4) => {
            let (source, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let (_, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            address(IpAddr::V4(Ipv4Addr::from(*source)), rest).ok_or(SHORT)
        }
        (VERSION_2_PROXY, TCP_OVER_IPV6) => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let (_, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            address(IpAddr::V6(Ipv6Addr::from(*source)), rest).ok_or(SHORT)
        }
        // Taking the balancer's own address in place of one that we cannot read would let whoever
        // comes that way pass for the balancer.
        (VERSION_2_PROXY, _) => Err(HeaderError::Malformed("not about TCP over IP")),
        _ => Err(HeaderError::Malformed("unknown version or command")),
    }
}

/// The source port is followed by that of the destination; what comes after is not for us.
fn address(source: IpAddr, rest: &[u8]) -> Option<Option<SocketAddr>> {
    let (ports, _) = rest.split_first_chunk::<4>()?;
    let [high, low, ..] = *ports;
    let port = u16::from_be_bytes([high, low]);
    Some(Some(SocketAddr::new(source.to_canonical(), port)))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(length);
        header.extend(rest);
        header
    }

    async fn parse(bytes: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, Vec<u8>) {
        let mut stream = bytes;
        let result = read(&mut stream).await;
        (result, stream.to_vec())
    }

    const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0x40, 0x82];

    #[tokio::test]
    async fn the_client_is_told_and_nothing_behind_the_header_is_taken() {
        let mut bytes = header(VERSION_2_PROXY, TCP_OVER_IPV4, V4);
        bytes.extend(b"\x16\x03\x01");
        let (found, rest) = parse(&bytes).await;
        assert_eq!(found.unwrap().unwrap().to_string(), "192.0.2.1:4660");
        assert_eq!(rest, b"\x16\x03\x01");

        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 1;
        v6[33] = 7;
        let (found, _) = parse(&header(VERSION_2_PROXY, TCP_OVER_IPV6, &v6)).await;
        assert_eq!(found.unwrap().unwrap().to_string(), "[2001::1]:7");
    }

    #[tokio::test]
    async fn what_comes_after_the_addresses_is_skipped() {
        let mut rest = V4.to_vec();
        rest.extend([0x03, 0, 4, 1, 2, 3, 4, 0xff, 0xff]);
        let mut bytes = header(VERSION_2_PROXY, TCP_OVER_IPV4, &rest);
        bytes.push(b'x');
        let (found, left) = parse(&bytes).await;
        assert_eq!(found.unwrap().unwrap().port(), 0x1234);
        assert_eq!(left, b"x");
    }

    #[tokio::test]
    async fn a_balancer_may_speak_for_itself() {
        for rest in [&b""[..], V4] {
            assert_eq!(
                parse(&header(VERSION_2_LOCAL, 0, rest)).await.0.unwrap(),
                None
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let bad: [Vec<u8>; 9] = [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(),
            vec![0x16; 64],
            header(0x11, TCP_OVER_IPV4, V4),
            header(0x22, TCP_OVER_IPV4, V4),
            header(VERSION_2_PROXY, 0x12, V4),
            header(VERSION_2_PROXY, 0x31, &[0; 216]),
            header(VERSION_2_PROXY, 0x00, &[]),
            header(VERSION_2_PROXY, TCP_OVER_IPV6, V4),
            header(VERSION_2_PROXY, TCP_OVER_IPV4, &[0; MAX_REST + 1]),
        ];
        for bytes in bad {
            assert!(parse(&bytes).await.0.is_err(), "{bytes:?}");
        }
        let whole = header(VERSION_2_PROXY, TCP_OVER_IPV4, V4);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).await.0.is_err(), "{end}");
        }
    }

    #[tokio::test]
    async fn any_bytes_are_answered() {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize
        };
        let whole = header(VERSION_2_PROXY, TCP_OVER_IPV6, &[7; 60]);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..next() % 4 + 1 {
                let at = next() % bytes.len();
                bytes[at] = u8::try_from(next() % 256).unwrap();
            }
            bytes.truncate(next() % (bytes.len() + 1));
            if let (Ok(_), rest) = parse(&bytes).await {
                assert!(bytes.starts_with(&SIGNATURE) && rest.len() <= bytes.len() - FIXED);
            }
        }
    }
}
