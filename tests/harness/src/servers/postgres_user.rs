//! The system user of PostgreSQL. PostgreSQL refuses to run as root: where this process is root, PostgreSQL's programs run as
//! another user, by way of `setpriv`.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// The system user that runs PostgreSQL's programs and owns PostgreSQL's files.
#[derive(Clone, Copy, Debug)]
pub enum PostgresUser {
    /// The user of this process, which is not root.
    Ourselves,
    /// Another user, because this process is root.
    Other {
        /// Number of the user.
        uid: u32,
        /// Number of the user's group.
        gid: u32,
    },
}

impl PostgresUser {
    /// Chooses the user `postgres` where there is one, else `nobody`. Fails without either.
    pub fn choose() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let users = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        let user = |wanted: &str| {
            let mut fields =
                users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(wanted))?;
            Some(Self::Other { uid: fields.nth(2)?.parse().ok()?, gid: fields.next()?.parse().ok()? })
        };
        user("postgres")
            .or_else(|| user("nobody"))
            .context("PostgreSQL refuses to run as root: there must be a user nobody")
    }

    /// Returns the owner of a cluster's data, because PostgreSQL reads no other user's data.
    pub fn of(data: &Path) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let owner = data.metadata().with_context(|| format!("cannot read the owner of {}", data.display()))?;
        Ok(Self::Other { uid: owner.uid(), gid: owner.gid() })
    }

    /// Makes the user the owner of a file or directory.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }

    /// Returns a command that runs `program` as the user.
    ///
    /// The user may lack permission to enter the checkout, for example below `/root`. The command then has the capability to
    /// read any file: PostgreSQL checks only the user id. `access(2)` drops that capability for every user but root, unless the
    /// securebit `no_setuid_fixup` is set.
    pub fn command(self, program: &Path, data: &Path) -> Command {
        let Self::Other { uid, gid } = self else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
        if ![program, data].into_iter().all(is_open_to_all) {
            let rights =
                ["--securebits=+no_setuid_fixup", "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"];
            command.args(rights);
        }
        command.arg(OsStr::new("--")).arg(program);
        command
    }
}

/// Returns true if every user may pass through all directories above the path.
fn is_open_to_all(path: &Path) -> bool {
    let open = |directory: &Path| directory.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    path.canonicalize().is_ok_and(|path| path.ancestors().skip(1).all(open))
}
