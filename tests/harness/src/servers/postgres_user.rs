//! PostgreSQL refuses to run as root. Where we are root, its programs run as another user, by way of `setpriv`.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// Whom PostgreSQL's programs run as and its files belong to.
#[derive(Clone, Copy, Debug)]
pub enum PostgresUser {
    /// Us: we are not root.
    Ourselves,
    /// This user and group.
    Other {
        /// Number of the user.
        uid: u32,
        /// Number of the user's group.
        gid: u32,
    },
}

impl PostgresUser {
    /// The user `postgres` where there is one, else `nobody`.
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

    /// The user that a cluster's data belongs to: PostgreSQL reads nobody else's. Ourselves where we are not root.
    pub fn of(data: &Path) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let owner = data.metadata().with_context(|| format!("cannot read the owner of {}", data.display()))?;
        Ok(Self::Other { uid: owner.uid(), gid: owner.gid() })
    }

    /// Gives a file or directory to this user.
    pub fn own(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }

    /// A command that runs `program` as this user.
    ///
    /// The checkout may be where that user cannot look (below `/root`). It is then allowed to: PostgreSQL asks only
    /// which user it runs as. `access(2)` drops such rights for any user but root unless told not to by that securebit.
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

/// Whether everyone may pass through all directories above this.
fn is_open_to_all(path: &Path) -> bool {
    let open = |directory: &Path| directory.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0);
    path.canonicalize().is_ok_and(|path| path.ancestors().skip(1).all(open))
}
