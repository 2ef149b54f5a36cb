//! The layout of `.local/`, the directory of a deployment.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use crate::service::Service;

/// Root directory of a deployment.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Takes the path of the directory. The directory need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Creates the subdirectories, the keys' directory with access for the owner alone.
    pub(crate) fn create(&self) -> std::io::Result<()> {
        for directory in [self.run(), self.data(), self.logs()] {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.keys())
    }

    /// Data of the servers and of the gateway.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Keys, passwords and other secrets.
    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// Directory of the logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Log of a service; the log of the run before has `.old` added.
    pub(crate) fn log(&self, service: Service) -> PathBuf {
        self.logs().join(format!("{service}.log"))
    }

    /// State of the running processes.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Process file of a service: its process id and start time.
    pub(crate) fn process_file(&self, service: Service) -> PathBuf {
        self.run().join(format!("{service}.pid"))
    }

    /// Marks that the services are being stopped on purpose.
    pub(crate) fn stopping(&self) -> PathBuf {
        self.run().join("stopping")
    }

    /// Configuration file of nats-server.
    pub(crate) fn nats_configuration(&self) -> PathBuf {
        self.run().join("nats.conf")
    }

    /// Port of each service.
    pub(crate) fn ports(&self) -> PathBuf {
        self.0.join("ports")
    }

    /// URLs, names and secrets for a shell, in the form of `export NAME='value'`.
    pub(crate) fn settings(&self) -> PathBuf {
        self.0.join("env")
    }
}
