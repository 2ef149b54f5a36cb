//! Guessing is slow: wrong passwords are counted, for all processes together, and past a limit nobody's are looked at.
//!
//! Three counts, so that neither one address with many names, nor many addresses with one name get far, and yet nobody can
//! lock a user out: what one address did to an account counts against that address; what all of them did counts only for
//! addresses that the account never logged in from.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgPool;
use time::{Duration, OffsetDateTime};

use super::error::{AccountError, Throttled};
use crate::store::{guesses, sessions};

/// How long guesses count, from the first one on.
pub const WINDOW: Duration = Duration::minutes(15);

/// At one account from one address.
const MAX_PER_ACCOUNT_AND_ADDRESS: i32 = 10;
/// At any account from one address, behind which there may be many people.
const MAX_PER_ADDRESS: i32 = 100;
/// At one account from addresses that it does not know.
const MAX_PER_ACCOUNT: i32 = 200;

/// Counts a try at a password, before it is looked at: however many come at once, no more than the limit are.
pub async fn count_login_attempt(
    pool: &PgPool,
    name: &str,
    address: &str,
    now: OffsetDateTime,
) -> Result<(), AccountError> {
    count(pool, "pair", &account_and_address_key(name, address), MAX_PER_ACCOUNT_AND_ADDRESS, now).await?;
    // What the first count refuses does not count further: or one address could use up the account's tries.
    count(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await?;
    if !sessions::knows_address(pool, name, address).await? {
        count(pool, "account", &hashed_key(&[name]), MAX_PER_ACCOUNT, now).await?;
    }
    Ok(())
}

/// It was the right one.
pub async fn clear_login_attempts(pool: &PgPool, name: &str, address: &str) -> Result<(), sqlx::Error> {
    guesses::clear(pool, "pair", &account_and_address_key(name, address)).await?;
    guesses::decrement(pool, "address", &hashed_key(&[address])).await?;
    guesses::decrement(pool, "account", &hashed_key(&[name])).await
}

/// Counts a try at an invite code.
pub async fn count_invite_attempt(pool: &PgPool, address: &str, now: OffsetDateTime) -> Result<(), AccountError> {
    count(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await
}

/// It was a good one.
pub async fn clear_invite_attempt(pool: &PgPool, address: &str) -> Result<(), sqlx::Error> {
    guesses::decrement(pool, "address", &hashed_key(&[address])).await
}

/// An address as it is counted: whoever has an IPv6 address usually has the 2^64 around it.
pub fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

async fn count(
    pool: &PgPool,
    scope: &str,
    key: &[u8; 32],
    limit: i32,
    now: OffsetDateTime,
) -> Result<(), AccountError> {
    let (count, since) = guesses::count(pool, scope, key, now, now - WINDOW).await?;
    if count <= limit {
        return Ok(());
    }
    let left = (since + WINDOW - now).whole_seconds().max(1);
    Err(Throttled { retry_after: left.unsigned_abs() }.into())
}

fn account_and_address_key(name: &str, address: &str) -> [u8; 32] {
    hashed_key(&[name, address])
}

fn hashed_key(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_counts_as_its_64_bit_network() {
        let counted = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_ne!(account_and_address_key("ab", "c"), account_and_address_key("a", "bc"));
    }
}
