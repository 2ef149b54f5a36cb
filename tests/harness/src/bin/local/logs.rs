//! `logs`: the logs of the services, by way of `cat` and `tail`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::directory::Directory;
use crate::failure::Outcome;
use crate::service::Service;

/// Lines of each log, unless one log is shown whole.
const LAST_LINES: &str = "20";

/// Options of the command `logs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Service to show the log of. None shows the logs of all services.
    pub(crate) service: Option<Service>,
    /// Keep showing further lines.
    pub(crate) follow: bool,
}

/// Becomes `tail` or `cat`.
pub(crate) fn logs(directory: &Directory, options: Options) -> Outcome {
    let services = Service::ALL.into_iter().filter(|service| options.service.is_none_or(|wanted| wanted == *service));
    let files: Vec<_> = services.map(|service| directory.log(service)).filter(|file| file.exists()).collect();
    let check = || {
        ensure!(!files.is_empty(), "there is no log yet: deploy/local.sh up starts everything");
        Ok(())
    };
    check()?;
    let mut command = Command::new(if options.service.is_some() && !options.follow { "cat" } else { "tail" });
    if options.follow {
        command.args(["-n", LAST_LINES, "-F"]);
    } else if options.service.is_none() {
        command.args(["-n", LAST_LINES]);
    }
    let error = command.args(&files).exec();
    Err(error).context("cannot show the logs: cat and tail are needed")?
}
