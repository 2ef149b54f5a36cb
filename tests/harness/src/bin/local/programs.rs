//! The programs of a deployment: nats-server, and the programs of this workspace, which lie beside this program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::directory::Directory;
use crate::process;
use crate::service::Service;

/// Paths of the programs, except PostgreSQL's, which depend on the version of the data.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Path of the nats-server program.
    pub(crate) nats_server: PathBuf,
    /// Path of the gateway.
    pub(crate) gateway: PathBuf,
    /// Path of the recorder.
    pub(crate) recorder: PathBuf,
    /// Path of the stand-in LLM.
    pub(crate) stand_in: PathBuf,
}

impl Programs {
    /// Finds the programs. A missing program is an error with the path.
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

/// Returns true if cargo has built the running gateway with the release profile.
pub(crate) fn is_release_running(directory: &Directory) -> anyhow::Result<bool> {
    let pid = process::pid(directory, Service::Gateway).context("the gateway does not run")?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(program.parent().and_then(Path::file_name) == Some(OsStr::new("release")))
}

/// Returns true if the `PATH` has a program of this name.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
