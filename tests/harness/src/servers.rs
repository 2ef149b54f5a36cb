//! The servers that the services need, as private child processes on the loopback address. Each server can be stopped, killed,
//! suspended and started again on the same data and port.

pub mod cluster;
pub mod nats;
pub mod postgres;
pub mod postgres_user;
mod temporary_directory;

pub use nats::Nats;
pub use postgres::Postgres;
