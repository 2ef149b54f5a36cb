//! Password hashing with argon2id, on blocking threads and with a bounded queue.
//!
//! A hash takes tens of milliseconds of a core and 19 MiB, on purpose. At most as many hashes run at once as there are
//! cores, 64 more may wait, and further requests fail with [`TooManyPasswords`].

use std::sync::{Arc, LazyLock};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The maximum number of passwords that wait for a core.
const MAX_WAITING: usize = 64;

/// The queue of passwords is full, or a hash could not be computed. The client should try again shortly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are waiting to be hashed")]
pub struct TooManyPasswords;

/// A bounded queue in front of argon2id.
#[derive(Debug)]
pub struct PasswordHasher {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for PasswordHasher {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Arc::new(Semaphore::new(cores)), waiting: Arc::new(Semaphore::new(cores + MAX_WAITING)) }
    }
}

impl PasswordHasher {
    /// Hashes a password with a random salt. Returns the hash in PHC string format.
    pub async fn hash(&self, password: &str) -> Result<String, TooManyPasswords> {
        let password = password.to_owned();
        self.run_on_thread(move || hash(&password)).await?.ok_or(TooManyPasswords)
    }

    /// Returns true if the password matches the hash. Without a hash, returns false after an equally long computation,
    /// so the duration does not reveal a missing account.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, TooManyPasswords> {
        let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
        self.run_on_thread(move || {
            let is_right = verify(&password, hash.as_deref().unwrap_or(&DUMMY_HASH));
            is_right && hash.is_some()
        })
        .await
    }

    async fn run_on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, TooManyPasswords> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| TooManyPasswords)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| TooManyPasswords)?;
        // The permits move into the blocking task and are released at the end of the computation. A client that
        // disconnects therefore does not make room for more computations than there are cores.
        let done = spawn_blocking(move || {
            let done = work();
            drop((waiting, turn));
            done
        });
        done.await.map_err(|_| TooManyPasswords)
    }
}

/// The hash for passwords of unknown accounts to be compared with.
static DUMMY_HASH: LazyLock<String> = LazyLock::new(|| hash("nobody's").unwrap_or_default());

fn hash(password: &str) -> Option<String> {
    // Hashing fails only if the operating system provides no random bytes.
    Argon2::default().hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}

fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let passwords = PasswordHasher::default();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            passwords.hash("correct horse").await.unwrap(),
            "two hashes of a password have different salts"
        );
        assert_eq!(passwords.verify("correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(passwords.verify("wrong horse", Some(&hash)).await, Ok(false));
        assert_eq!(passwords.verify("nobody's", None).await, Ok(false));
        assert_eq!(passwords.verify("x", Some("no hash")).await, Ok(false));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_a_password() {
        let passwords = PasswordHasher { running: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(1)) };
        let turn = Arc::clone(&passwords.waiting).try_acquire_owned().unwrap();
        assert_eq!(passwords.verify("x", None).await, Err(TooManyPasswords));
        drop(turn);
        assert_eq!(passwords.verify("x", None).await, Ok(false));
    }
}
