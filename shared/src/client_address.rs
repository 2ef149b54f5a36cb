//! The client address of a request that passed through reverse proxies.
//!
//! Each proxy appends the address of its own peer to `X-Forwarded-For`. Entries that a client forged stand in front of
//! the entries of the proxies, so the header is read from the end, and reading stops at the first address that is not a
//! trusted proxy.

use std::net::IpAddr;
use std::str::FromStr;

/// The proxies whose `X-Forwarded-For` entries are believed. The default trusts no proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_length: u8,
}

/// The error for an entry of the list that is neither an IP address nor a network in CIDR notation. Holds the entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IP address or a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    /// Parses a comma-separated list of IP addresses and networks such as `10.0.0.0/8`. An empty list is valid.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| Network::parse(part).ok_or_else(|| InvalidNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(|networks| Self { networks })
    }
}

impl TrustedProxies {
    /// Returns the address of the client.
    ///
    /// `peer` is the address of the connection, `forwarded` the values of the `X-Forwarded-For` headers in their order.
    /// The peer's own address is returned if the peer is not a trusted proxy. IPv4-mapped IPv6 addresses become IPv4
    /// addresses.
    pub fn client_address<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            if !self.contains(client) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => client = address.to_canonical(),
                // A trusted proxy appended an entry that is not an IP address: no earlier entry can be trusted.
                Err(_) => break,
            }
        }
        client
    }

    /// Returns true if `address` is the address of a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address.to_canonical()))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix_length) = match text.split_once('/') {
            Some((address, prefix_length)) => (address, Some(prefix_length.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let max_prefix_length = if address.is_ipv4() { 32 } else { 128 };
        let prefix_length = prefix_length.unwrap_or(max_prefix_length);
        (prefix_length <= max_prefix_length).then_some(Self { address, prefix_length })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let prefix_matches = |network: u128, address: u128, width: u32| {
            let shift = width - u32::from(self.prefix_length);
            network.checked_shr(shift) == address.checked_shr(shift)
        };
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                prefix_matches(network.to_bits().into(), address.to_bits().into(), 32)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => prefix_matches(network.to_bits(), address.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_address_is_taken_from_trusted_proxies_only() {
        let trusted: TrustedProxies = "127.0.0.1, 10.0.0.0/8,fd00::/8".parse().unwrap();
        let client = |peer: &str, forwarded: &[&str]| {
            trusted.client_address(peer.parse().unwrap(), forwarded.iter().copied()).to_string()
        };
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "the header of an untrusted peer is ignored");
        assert_eq!(client("127.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.2.3"]),
            "203.0.113.9",
            "the last entry that is not a trusted proxy"
        );
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("127.0.0.1", &["unknown"]), "127.0.0.1");
        assert_eq!(client("::ffff:127.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("fd12::1", &[]), "fd12::1");
        assert!("10.0.0.0/33".parse::<TrustedProxies>().is_err() && "ten".parse::<TrustedProxies>().is_err());
        assert!("0.0.0.0/0".parse::<TrustedProxies>().unwrap().contains("203.0.113.9".parse().unwrap()));
        assert!(!"".parse::<TrustedProxies>().unwrap().contains("127.0.0.1".parse().unwrap()));
    }
}
