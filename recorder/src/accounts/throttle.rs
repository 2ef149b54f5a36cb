//! Limits on guessing passwords and invite codes. Attempts are counted in the database, for all processes together.
//! Past a limit, passwords and codes are not checked any more.
//!
//! Three counters stop both a single address with many names and many addresses with a single name, and yet let no
//! attacker lock a user out:
//!
//! - attempts of an address at an account: past the limit, only the address is refused, and only at the account;
//! - attempts of an address at any accounts from which no login came before: past the limit, only the address is refused, and
//!   only at such accounts;
//! - attempts at an account from addresses without an earlier login: past the limit, only such addresses are refused.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgPool;
use time::{Duration, OffsetDateTime};

use super::error::{AccountError, Throttled};
use crate::name_key::name_key;
use crate::store::{guesses, sessions};

/// The time for which attempts count, from the first attempt on.
pub const WINDOW: Duration = Duration::minutes(15);

/// The maximum number of attempts in a window, at an account from an address.
const MAX_PER_ACCOUNT_AND_ADDRESS: i32 = 10;
/// The maximum number of attempts in a window, at all accounts from an address. Many people may share an address.
const MAX_PER_ADDRESS: i32 = 100;
/// The maximum number of attempts in a window, at an account from addresses without an earlier login to the account.
const MAX_PER_ACCOUNT: i32 = 200;

/// Counts an attempt at a password, before the password is checked: of many simultaneous attempts, at most the limit is
/// checked. Past a limit, fails with [`AccountError::Throttled`].
pub async fn count_login_attempt(
    pool: &PgPool,
    name: &str,
    address: &str,
    now: OffsetDateTime,
) -> Result<(), AccountError> {
    let key = name_key(name);
    let is_known = sessions::knows_address(pool, name, address).await?;
    // A throttled address writes nothing: with a new name each time, every attempt would else write a row.
    if !is_known {
        check(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await?;
    }
    let pair = account_and_address_key(&key, address);
    check(pool, "pair", &pair, MAX_PER_ACCOUNT_AND_ADDRESS, now).await?;
    count(pool, "pair", &pair, MAX_PER_ACCOUNT_AND_ADDRESS, now).await?;
    // An attempt refused by the first counter does not reach the other counters. Otherwise a single address could use
    // up the limit of the account.
    if !is_known {
        count(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await?;
        count(pool, "account", &hashed_key(&[&key]), MAX_PER_ACCOUNT, now).await?;
    }
    Ok(())
}

/// Takes back an attempt with the right password from every counter, and clears the counter of the address at the
/// account.
pub async fn clear_login_attempts(pool: &PgPool, name: &str, address: &str) -> Result<(), sqlx::Error> {
    let key = name_key(name);
    guesses::clear(pool, "pair", &account_and_address_key(&key, address)).await?;
    guesses::decrement(pool, "address", &hashed_key(&[address])).await?;
    guesses::decrement(pool, "account", &hashed_key(&[&key])).await
}

/// Counts an attempt at an invite code against the limit of the address, and against the limit of the address at the code: with
/// a valid code, taken names could be found out. Past a limit, fails with [`AccountError::Throttled`].
pub async fn count_invite_attempt(
    pool: &PgPool,
    code_hash: &[u8; 32],
    address: &str,
    now: OffsetDateTime,
) -> Result<(), AccountError> {
    check(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await?;
    let pair = invite_and_address_key(code_hash, address);
    check(pool, "pair", &pair, MAX_PER_ACCOUNT_AND_ADDRESS, now).await?;
    count(pool, "pair", &pair, MAX_PER_ACCOUNT_AND_ADDRESS, now).await?;
    count(pool, "address", &hashed_key(&[address]), MAX_PER_ADDRESS, now).await
}

/// Takes back an attempt that has made an account.
pub async fn clear_invite_attempt(pool: &PgPool, code_hash: &[u8; 32], address: &str) -> Result<(), sqlx::Error> {
    guesses::decrement(pool, "pair", &invite_and_address_key(code_hash, address)).await?;
    guesses::decrement(pool, "address", &hashed_key(&[address])).await
}

/// Returns the form in which a client's address is counted. IPv6 addresses are counted by /64 network, because the
/// holder of an IPv6 address usually has all 2^64 addresses of the network.
pub fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Fails with [`AccountError::Throttled`] if a limit has been reached already. Writes nothing.
async fn check(
    pool: &PgPool,
    scope: &str,
    key: &[u8; 32],
    limit: i32,
    now: OffsetDateTime,
) -> Result<(), AccountError> {
    match guesses::current(pool, scope, key, now - WINDOW).await? {
        Some((count, since)) if count >= limit => Err(throttled(since, now)),
        Some(_) | None => Ok(()),
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
    Err(throttled(since, now))
}

fn throttled(since: OffsetDateTime, now: OffsetDateTime) -> AccountError {
    let left = (since + WINDOW - now).whole_seconds().max(1);
    Throttled { retry_after: left.unsigned_abs() }.into()
}

fn invite_and_address_key(code_hash: &[u8; 32], address: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"invite");
    hash.update(code_hash);
    hash.update(address);
    hash.finalize().into()
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
