//! The environment of a service: the settings of the service, and no setting of the calling process.

use std::path::Path;
use std::process::Command;

/// Variables of this process that every service inherits.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "TMPDIR", "RUST_BACKTRACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "LLVM_PROFILE_FILE"];

/// Returns a command for `program` with these variables, the inherited variables, and no other environment.
pub(super) fn command<'a>(program: &Path, variables: impl IntoIterator<Item = (&'a str, String)>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(variables);
    command
}

/// Returns the same command with these soft and hard limits of open files. A shell sets the limits, and becomes the program.
pub(super) fn with_open_files(command: &Command, (soft, hard): (u64, u64)) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.arg("-c").arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\"")).arg(command.get_program());
    limited.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}
