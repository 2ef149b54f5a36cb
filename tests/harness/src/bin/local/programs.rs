//! The programs of a deployment: nats-server, and our own, which are built beside this one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::directory::Directory;
use crate::process;
use crate::service::Service;

/// Programs to start. Those of PostgreSQL depend on the data, and are found with it.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The broker.
    pub(crate) nats_server: PathBuf,
    /// The gateway.
    pub(crate) gateway: PathBuf,
    /// The recorder.
    pub(crate) recorder: PathBuf,
    /// The stand-in LLM.
    pub(crate) stand_in: PathBuf,
}

impl Programs {
    /// Finds all of them.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let directory = harness::program::target_directory()?;
        let ours = |name: &str| {
            let program = directory.join(name);
            ensure!(program.is_file(), "{} is missing: run deploy/local.sh up, which builds it", program.display());
            anyhow::Ok(program)
        };
        Ok(Self {
            nats_server: harness::program::nats_server()?,
            gateway: ours("gateway")?,
            recorder: ours("recorder")?,
            stand_in: ours("stand-in-llm")?,
        })
    }
}

/// Whether the gateway that runs has been built with cargo's release profile.
pub(crate) fn is_release_running(directory: &Directory) -> anyhow::Result<bool> {
    let pid = process::pid(directory, Service::Gateway).context("the gateway does not run")?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(program.parent().and_then(Path::file_name) == Some(OsStr::new("release")))
}

/// Whether a program of this name is on the `PATH`.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
