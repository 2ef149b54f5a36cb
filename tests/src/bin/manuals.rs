//! Writes the manual pages of the recorder's commands and the completions for shells into a directory, for the packages.
//!
//! Usage: `manuals DIRECTORY`. The pages go into `DIRECTORY/man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

fn main() -> anyhow::Result<()> {
    let directory: PathBuf = std::env::args_os().nth(1).context("expected a directory: manuals DIRECTORY")?.into();
    let pages = directory.join("man");
    std::fs::create_dir_all(&pages).with_context(|| format!("cannot create {}", pages.display()))?;
    let mut command = recorder::cli::Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "recorder", &directory).context("cannot write a completion")?;
    }
    clap_mangen::generate_to(command, &pages).context("cannot write the manual pages")
}
