//! Free ports on the loopback address.
//!
//! Ports are below 32768, where the kernel's own choices begin, so that a server that is stopped and started again finds the
//! same port free.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

use anyhow::Context as _;

const PORTS: Range<u16> = 20_000..32_000;

/// Lock files of the chosen ports. Held until this process ends, so that no other test process chooses the same port before a
/// server listens there.
static RESERVED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Returns true if no program listens on this port.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Chooses a free port that no other test process has chosen. Fails after 1,000 attempts.
pub fn reserve() -> anyhow::Result<u16> {
    let directory = std::env::temp_dir().join(format!("stenograph-ports-{}", rustix::process::getuid()));
    std::fs::create_dir_all(&directory)?;
    for _ in 0..1000 {
        let port = rand::random_range(PORTS);
        let file = File::create(directory.join(port.to_string()))?;
        if file.try_lock().is_ok() && is_free(port) {
            RESERVED.lock().ok().context("another thread panicked while reserving a port")?.push(file);
            return Ok(port);
        }
    }
    anyhow::bail!("found no free port in {PORTS:?}")
}
