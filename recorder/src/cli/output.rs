//! Standard output, for the results of commands. A failed write is an error.

use std::io::Write as _;

use anyhow::Context as _;

pub(super) fn print(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("standard output could not be written")
}
