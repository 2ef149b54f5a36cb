//! The environment of a service: what it is told, and nothing that was meant for something else.

use std::path::Path;
use std::process::Command;

/// What every program of ours may see of this process's environment: never settings that were meant for something else.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "TMPDIR", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "LLVM_PROFILE_FILE"];

/// A command with this environment and nothing of ours but what any program needs.
pub(super) fn command<'a>(program: &Path, variables: impl IntoIterator<Item = (&'a str, String)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(variables);
    command
}
