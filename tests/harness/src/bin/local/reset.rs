//! `reset`: stops all services and deletes data, keys and logs.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::directory::Directory;
use crate::failure::Outcome;
use crate::{lock, output, process};

/// Consent of a person to the deletion of all data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Given on the command line, by `--yes`.
    Given,
    /// To be asked for at the terminal.
    Ask,
}

/// Stops all services and deletes data, keys and logs. Fetched programs stay.
pub(crate) async fn reset(directory: &Directory, consent: Consent) -> Outcome {
    if consent == Consent::Ask {
        ask()?;
    }
    let _lock = lock::take(directory)?;
    process::stop_all(directory).await?;
    for place in [directory.data(), directory.logs(), directory.keys()] {
        delete(std::fs::remove_dir_all(&place), &place)?;
    }
    for file in [directory.settings(), directory.ports(), directory.nats_configuration()] {
        delete(std::fs::remove_file(&file), &file)?;
    }
    output::line("Deleted.");
    Ok(ExitCode::SUCCESS)
}

fn ask() -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("reset deletes all data in .local: confirm with --yes");
    }
    let mut out = std::io::stdout();
    let _ = write!(out, "Delete all data, keys and logs in .local? [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was deleted");
    }
    Ok(())
}

fn delete(deleted: std::io::Result<()>, place: &Path) -> anyhow::Result<()> {
    match deleted {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", place.display()))
        }
        _ => Ok(()),
    }
}
