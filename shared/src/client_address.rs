//! Where a request came from, when it came through proxies.
//!
//! Each proxy appends the address that it was called from to `X-Forwarded-For`. Whatever a client put there itself stands
//! before that: so it is read from the end, as far as those are trusted who say so.

use std::net::IpAddr;
use std::str::FromStr;

/// Whose word is taken for where a request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not a list of networks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address or network")]
pub struct InvalidNetwork(String);

impl FromStr for Trusted {
    type Err = InvalidNetwork;

    /// Reads addresses and networks (`10.0.0.0/8`), with commas between them.
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts
            .map(|part| Network::parse(part).ok_or_else(|| InvalidNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Trusted {
    /// The client's address: the peer's, unless the peer is trusted to name another.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let mut at = peer.to_canonical();
        let named: Vec<&str> = forwarded.flat_map(|value| value.split(',')).map(str::trim).collect();
        for name in named.iter().rev() {
            if !self.holds(at) {
                break;
            }
            match name.parse::<IpAddr>() {
                Ok(address) => at = address.to_canonical(),
                // A trusted proxy named something that is no address: no further back is certain.
                Err(_) => break,
            }
        }
        at
    }

    /// Whether this address is one of them.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.holds(address.to_canonical()))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    fn holds(&self, address: IpAddr) -> bool {
        let same = |mine: u128, theirs: u128, width: u32| {
            let shift = width - u32::from(self.bits);
            mine.checked_shr(shift) == theirs.checked_shr(shift)
        };
        match (self.address, address) {
            (IpAddr::V4(mine), IpAddr::V4(theirs)) => same(mine.to_bits().into(), theirs.to_bits().into(), 32),
            (IpAddr::V6(mine), IpAddr::V6(theirs)) => same(mine.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Trusted = "127.0.0.1, 10.0.0.0/8,fd00::/8".parse().unwrap();
        let client = |peer: &str, forwarded: &[&str]| {
            trusted.client(peer.parse().unwrap(), forwarded.iter().copied()).to_string()
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
        assert!("10.0.0.0/33".parse::<Trusted>().is_err() && "ten".parse::<Trusted>().is_err());
        assert!("0.0.0.0/0".parse::<Trusted>().unwrap().holds("203.0.113.9".parse().unwrap()));
        assert!(!"".parse::<Trusted>().unwrap().holds("127.0.0.1".parse().unwrap()));
    }
}
