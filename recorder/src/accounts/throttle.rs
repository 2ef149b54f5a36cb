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
const PAIR: i32 = 10;
/// At any account from one address, behind which there may be many people.
const ADDRESS: i32 = 100;
/// At one account from addresses that it does not know.
const ACCOUNT: i32 = 200;

/// Counts a try at a password, before it is looked at: however many come at once, no more than the limit are.
pub async fn login(pool: &PgPool, name: &str, address: &str, now: OffsetDateTime) -> Result<(), AccountError> {
    count(pool, "pair", &pair(name, address), PAIR, now).await?;
    // What the first count refuses does not count further: or one address could use up the account's tries.
    count(pool, "address", &key(&[address]), ADDRESS, now).await?;
    if !sessions::knows_address(pool, name, address).await? {
        count(pool, "account", &key(&[name]), ACCOUNT, now).await?;
    }
    Ok(())
}

/// It was the right one.
pub async fn login_succeeded(pool: &PgPool, name: &str, address: &str) -> Result<(), sqlx::Error> {
    guesses::forget(pool, "pair", &pair(name, address)).await?;
    guesses::forgive(pool, "address", &key(&[address])).await?;
    guesses::forgive(pool, "account", &key(&[name])).await
}

/// Counts a try at an invite code.
pub async fn invite(pool: &PgPool, address: &str, now: OffsetDateTime) -> Result<(), AccountError> {
    count(pool, "address", &key(&[address]), ADDRESS, now).await
}

/// It was a good one.
pub async fn invite_succeeded(pool: &PgPool, address: &str) -> Result<(), sqlx::Error> {
    guesses::forgive(pool, "address", &key(&[address])).await
}

/// An address as it is counted: whoever has an IPv6 address usually has the 2^64 around it.
pub fn address_of(address: IpAddr) -> String {
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

fn pair(name: &str, address: &str) -> [u8; 32] {
    key(&[name, address])
}

fn key(parts: &[&str]) -> [u8; 32] {
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
    fn addresses_are_counted_as_people_have_them() {
        let counted = |text: &str| address_of(text.parse().unwrap());
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
    }
}
