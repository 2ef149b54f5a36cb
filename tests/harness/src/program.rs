//! Paths of programs: nats-server and PostgreSQL, from `deploy/local.sh` or from the machine, and the programs of this
//! workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Major version of the oldest supported PostgreSQL.
const OLDEST_POSTGRES: u32 = 15;

/// Version of the oldest supported nats-server.
const OLDEST_NATS: [u32; 3] = [2, 10, 25];

/// Root of the checkout that this crate was built from.
pub fn checkout() -> PathBuf {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory.ancestors().nth(2).unwrap_or(crate_directory).to_owned()
}

/// Path of nats-server: `NATS_SERVER`, else from the `PATH`, else the one that `deploy/local.sh` has fetched.
pub fn nats_server() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("NATS_SERVER").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let on_path = on_path().map(|directory| directory.join("nats-server"));
    let mut candidates = on_path.chain([checkout().join(".local/bin/nats-server")]).filter(|file| file.is_file());
    candidates
        .find(|program| nats_version(program).is_some_and(|version| version >= OLDEST_NATS))
        .context("found no nats-server 2.10.25 or newer: `deploy/local.sh tools` fetches one")
}

/// Path of the oldest supported nats-server: `NATS_SERVER_OLDEST`, else from the directory of [`nats_server`], else the one
/// that `deploy/local.sh tools` has fetched.
pub fn oldest_nats_server() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("NATS_SERVER_OLDEST").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let [major, minor, patch] = OLDEST_NATS;
    let name = format!("nats-server-{major}.{minor}.{patch}");
    let beside = nats_server().ok().and_then(|program| Some(program.parent()?.join(&name)));
    let mut candidates = beside.into_iter().chain([checkout().join(".local/bin").join(&name)]);
    candidates
        .find(|program| nats_version(program) == Some(OLDEST_NATS))
        .with_context(|| format!("found no {name}: `deploy/local.sh tools` fetches one"))
}

/// Directory of PostgreSQL's server programs, of this major version if one is given: `PG_BIN`, else the newest on the machine,
/// else the ones that `deploy/local.sh` has fetched.
pub fn postgres(major: Option<u32>) -> anyhow::Result<PathBuf> {
    let suits = |version: u32| major.map_or(version >= OLDEST_POSTGRES, |wanted| version == wanted);
    if let Some(named) = std::env::var_os("PG_BIN").filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        let version =
            postgres_version(&named).with_context(|| format!("no PostgreSQL in PG_BIN={}", named.display()))?;
        ensure!(suits(version), "PG_BIN has PostgreSQL {version}, expected {}", major.unwrap_or(OLDEST_POSTGRES));
        return Ok(named);
    }
    let packaged = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed: Vec<_> = packaged.map(|entry| entry.path().join("bin")).chain(on_path()).collect();
    let best = |directories: Vec<PathBuf>| {
        let versions = directories.into_iter().filter_map(|bin| Some((postgres_version(&bin)?, bin)));
        versions.filter(|(version, _)| suits(*version)).max_by_key(|(version, _)| *version).map(|(_, bin)| bin)
    };
    best(installed).or_else(|| best(vec![checkout().join(".local/postgres/bin")])).with_context(|| match major {
        None => format!("found no PostgreSQL {OLDEST_POSTGRES} or newer: `deploy/local.sh tools` fetches one"),
        Some(major) => {
            format!("the data in .local is of PostgreSQL {major}, whose programs were not found: set PG_BIN to their directory")
        }
    })
}

/// Path of a program of this workspace, built by `cargo build --workspace --bins`. A program older than the sources is an
/// error: a test of an old program proves nothing.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    const BUILD: &str = "run `cargo build --workspace --bins` first, or everything with `deploy/local.sh test`";
    let program = target_directory()?.join(name);
    let built = program.metadata().and_then(|file| file.modified());
    let built = built.with_context(|| format!("{} does not exist: {BUILD}", program.display()))?;
    for part in [name, "shared"] {
        if let Some(newer) = newer_than(built, &checkout().join(part).join("src"))? {
            bail!("{name} is older than {}: {BUILD}", newer.display());
        }
    }
    Ok(program)
}

/// Returns a file below this directory that was changed after `built`, if there is one.
fn newer_than(built: std::time::SystemTime, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(newer) = newer_than(built, &entry.path())? {
                return Ok(Some(newer));
            }
        } else if entry.metadata()?.modified()? > built {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Directory of the running program, and so of the other programs of this workspace.
pub fn target_directory() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.parent().context("the running program has no directory")?;
    // Tests and benchmarks are one level down.
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    Ok(directory.to_owned())
}

fn on_path() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn nats_version(program: &Path) -> Option<[u32; 3]> {
    let text = first_line(program, "--version")?;
    let mut numbers = text.rsplit_once('v')?.1.split(['.', '-']).map_while(|number| number.parse().ok());
    Some([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// Major version of the PostgreSQL in this directory. Requires `initdb`: a machine may have the client programs alone.
fn postgres_version(bin: &Path) -> Option<u32> {
    let text = bin.join("initdb").is_file().then(|| first_line(&bin.join("postgres"), "--version"))??;
    text.split_ascii_whitespace().nth(2)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn first_line(program: &Path, argument: &str) -> Option<String> {
    let output = program.is_file().then(|| Command::new(program).arg(argument).output().ok())??;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}
