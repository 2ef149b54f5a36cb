//! Where a request came from, when it came through proxies.
//!
//! Each proxy appends the address that it was called from to `X-Forwarded-For`. Whatever a client put there itself stands
//! before that: so it is read from the end, as far as those are trusted who say so.

use std::net::IpAddr;
use std::str::FromStr;

/// Whose word is taken for where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<Network>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix_length: u8,
}

/// Not a list of networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address or network")]
pub struct InvalidNetwork(String);

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    /// Reads addresses and networks (`10.0.0.0/8`), with commas between them.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| Network::parse(part).ok_or_else(|| InvalidNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(|networks| Self { networks })
    }
}

impl TrustedProxies {
    /// The client's address: the peer's, unless the peer is trusted to name another.
    pub fn client_address<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        for hop in hops.iter().rev() {
            if !self.contains(client) {
                break;
            }
            match hop.parse::<IpAddr>() {
                Ok(address) => client = address.to_canonical(),
                // A trusted proxy named something that is no address: no further back is certain.
                Err(_) => break,
            }
        }
        client
    }

    /// Whether this address is one of them.
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
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "a client that names another");
        assert_eq!(client("127.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            client("127.0.0.1", &["6.6.6.6, 203.0.113.9, 10.1.2.3"]),
            "203.0.113.9",
            "the last that is not ours"
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
