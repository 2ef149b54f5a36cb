//! User accounts: registration, login, sessions, passwords, and the limits on guessing.
//!
//! A login returns two tokens. The access token is short-lived, and services verify the access token with public keys
//! alone. The refresh token is good for one use.

mod account;
pub mod audit;
mod common_password;
mod error;
pub mod password;
pub mod refresh;
mod registration;
pub mod signing_key;
pub mod throttle;

pub use account::{Accounts, Session, SigningKeys, delete_expired, set_disabled, set_password};
pub use error::AccountError;
pub use registration::{InviteCode, Registration, name_error, password_error};
