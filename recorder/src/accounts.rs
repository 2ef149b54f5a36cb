//! Accounts: who may use this deployment, how they prove it, and how guessing is kept slow.
//!
//! A login gives a short access token, which services check with public keys alone, and a refresh token, which is good once.

mod account;
mod error;
pub mod password;
pub mod refresh;
mod registration;
pub mod throttle;

pub use account::{Accounts, Session, SigningKeys, delete_expired, set_disabled};
pub use error::AccountError;
pub use registration::{InviteCode, Registration, name_error, password_error};
