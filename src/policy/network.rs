//! Networks of the policy file, in CIDR notation.

use core::fmt;
use core::net::IpAddr;
use std::str::FromStr;

/// A range of IP addresses: `192.0.2.0/24`, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, or not a number after `/`.
    #[error("this is no IP address or network such as 192.0.2.0/24 or 2001:db8::/32")]
    Form,
    /// More bits than an address has.
    #[error("an address of this kind has {0} bits")]
    Prefix(u8),
    /// Bits behind the prefix are set, so that one of the two is a slip.
    #[error("the network of that length is {0}")]
    HostBits(Network),
    /// An IPv4 address in IPv6 clothes; clients never have one.
    #[error("write it as an IPv4 address")]
    Mapped,
}

impl Network {
    /// Whether it has `address`; an IPv4 address counts as such in IPv6 clothes too.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, width) = bits(self.first);
        let (address, other) = bits(address.to_canonical());
        let mask = mask(self.prefix, width);
        width == other && first & mask == address & mask
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        if address.to_canonical() != address {
            return Err(NetworkError::Mapped);
        }
        let (number, width) = bits(address);
        let prefix = match prefix {
            None => width,
            Some(digits) if is_number(digits) => digits
                .parse()
                .ok()
                .filter(|prefix| *prefix <= width)
                .ok_or(NetworkError::Prefix(width))?,
            Some(_) => return Err(NetworkError::Form),
        };
        let masked = number & mask(prefix, width);
        let network = Self {
            first: address,
            prefix,
        };
        if masked == number {
            return Ok(network);
        }
        let first = match address {
            // The upper bits of an IPv4 address are none.
            IpAddr::V4(_) => IpAddr::V4((u32::try_from(masked).unwrap_or_default()).into()),
            IpAddr::V6(_) => IpAddr::V6(masked.into()),
        };
        Err(NetworkError::HostBits(Self { first, prefix }))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}

/// Ones in the first `prefix` of `width` bits.
fn mask(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(width));
    let rest = u32::from(width.saturating_sub(prefix));
    all & !u128::MAX.checked_shr(128 - rest).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks_alone() {
        for (network, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("192.0.2.0/24", "::c000:201", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("::/0", "::ffff:192.0.2.1", false),
            ("2001:db8::/33", "2001:db8:7fff::", true),
            ("2001:db8::/33", "2001:db8:8000::", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("::1", "::1", true),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                expected,
                "{network} {address}"
            );
        }
    }

    #[test]
    fn slips_are_refused() {
        let error = |text: &str| text.parse::<Network>().unwrap_err();
        for text in ["", "example.com", "192.0.2.0/", "192.0.2.0/+8", "1.2.3/8"] {
            assert_eq!(error(text), NetworkError::Form, "{text}");
        }
        assert_eq!(error("192.0.2.0/33"), NetworkError::Prefix(32));
        assert_eq!(error("::/999"), NetworkError::Prefix(128));
        assert_eq!(error("::ffff:192.0.2.0/120"), NetworkError::Mapped);
        assert_eq!(
            error("192.0.2.1/24"),
            NetworkError::HostBits("192.0.2.0/24".parse().unwrap())
        );
        assert_eq!(
            error("2001:db8::1/64"),
            NetworkError::HostBits("2001:db8::/64".parse().unwrap())
        );
    }
}
