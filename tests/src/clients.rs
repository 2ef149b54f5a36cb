//! Third-party programs from package registries. Tests skip programs that cannot be installed.

use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use harness::program;

/// Exit code of a script that skips, because a program cannot be installed.
const SKIPPED: i32 = 77;

/// Runs a script of `tests/clients` with these arguments and variables, and returns the output. None if the script skips; the
/// script says so on standard error.
pub async fn run(script: &str, arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Option<String>> {
    let mut command = Command::new(program::checkout().join("tests/clients").join(script));
    command.args(arguments).envs(variables.iter().copied()).stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("cannot run {script}"))?;
    let printed = String::from_utf8(output.stdout)?.trim().to_owned();
    match output.status.code() {
        Some(0) => Ok(Some(printed)),
        Some(SKIPPED) => Ok(None),
        _ => bail!("{script} failed ({}): {printed}", output.status),
    }
}

/// Returns the fenced code blocks of this language in a page of the documentation, in order.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let begun = page.split(&fence).skip(1);
    begun.filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned() + "\n")).collect()
}
