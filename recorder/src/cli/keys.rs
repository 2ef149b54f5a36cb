//! `recorder keys`: creates the key pair for session tokens, and rotates the pair without stopping any service.
//!
//! A rotation has three steps, with a wait after each step: `stage` publishes the next public key, `switch` signs with
//! the next private key, `retire` removes the old public key. Each step, even if interrupted, leaves both files in a
//! state that running services can follow.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use shared::token::{KeySet, PublicKey};

use super::output::print;
use crate::accounts::signing_key::public_key;

const PRIVATE_KEY_FILE: &str = "signing-key.pem";
const PUBLIC_KEYS_FILE: &str = "jwks.json";
/// The next private key, created by `stage`. Not used for signing before `switch`.
const NEXT_PRIVATE_KEY_FILE: &str = "next-signing-key.pem";

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Create the key pair for session tokens: `signing-key.pem` for the recorder, `jwks.json` for gateways. Existing
    /// files are kept.
    Create {
        /// Directory for the keys, created if missing.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Create the next key and publish its public half beside the present one. Then wait until every gateway has read
    /// it.
    Stage {
        /// Directory of the keys.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Sign with the next key from now on. Then wait until the last token of the old key has expired
    /// (RECORDER_TOKEN_TTL, or the longest `recorder token --ttl`).
    Switch {
        /// Directory of the keys.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Remove every published public key except that of the signing key. Tokens signed with a removed key are refused.
    Retire {
        /// Directory of the keys.
        #[arg(long)]
        dir: PathBuf,
    },
}

pub(super) fn run(command: &KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Create { dir } => create(dir),
        KeysCommand::Stage { dir } => stage(dir),
        KeysCommand::Switch { dir } => switch(dir),
        KeysCommand::Retire { dir } => retire(dir),
    }
}

fn create(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let private = dir.join(PRIVATE_KEY_FILE);
    let made = write_new(&private, 0o600, &new_key()?)?;
    let key = public_key_of(&private)?;
    let public = dir.join(PUBLIC_KEYS_FILE);
    // An existing set may hold more keys than this key: during a rotation, the set holds two.
    let published = write_new(&public, 0o644, text(&KeySet { keys: vec![key.clone()] })?.as_bytes())?;
    if !published_in(&public).is_ok_and(|set| set.keys.contains(&key)) {
        bail!("{} does not hold the public key of {}", public.display(), private.display());
    }
    for (path, made) in [(private, made), (public, published)] {
        print(&format!("{} {}", if made { "made" } else { "kept" }, path.display()))?;
    }
    Ok(())
}

fn stage(dir: &Path) -> anyhow::Result<()> {
    let (next, public) = (dir.join(NEXT_PRIVATE_KEY_FILE), dir.join(PUBLIC_KEYS_FILE));
    let mut set = published_in(&public)?;
    let made = write_new(&next, 0o600, &new_key()?)?;
    let key = public_key_of(&next)?;
    if !set.keys.contains(&key) {
        set.keys.push(key.clone());
        replace(&public, 0o644, text(&set)?.as_bytes())?;
    }
    print(&format!("{} {}", if made { "made" } else { "kept" }, next.display()))?;
    print(&format!("published {} in {}", key.kid, public.display()))?;
    print("when every gateway has it (2 seconds for the file, half a minute for TOKEN_KEYS_URL): recorder keys switch")
}

fn switch(dir: &Path) -> anyhow::Result<()> {
    let (next, private, public) =
        (dir.join(NEXT_PRIVATE_KEY_FILE), dir.join(PRIVATE_KEY_FILE), dir.join(PUBLIC_KEYS_FILE));
    let key = public_key_of(&next).context("there is no next key: run `recorder keys stage` first")?;
    if !published_in(&public)?.keys.contains(&key) {
        bail!(
            "{} does not hold the public key of {}: run `recorder keys stage` first",
            public.display(),
            next.display()
        );
    }
    fs::rename(&next, &private).with_context(|| format!("{} cannot be replaced", private.display()))?;
    sync_directory(dir)?;
    print(&format!("{} signs from now on", key.kid))?;
    print(
        "when the last token of the old key has expired (RECORDER_TOKEN_TTL, by default 15 minutes): recorder keys retire",
    )
}

fn retire(dir: &Path) -> anyhow::Result<()> {
    let (private, public, next) =
        (dir.join(PRIVATE_KEY_FILE), dir.join(PUBLIC_KEYS_FILE), dir.join(NEXT_PRIVATE_KEY_FILE));
    if next.exists() {
        bail!("{} exists and is not used for signing yet: run `recorder keys switch` first", next.display());
    }
    let (key, mut set) = (public_key_of(&private)?, published_in(&public)?);
    if !set.keys.contains(&key) {
        bail!("{} does not hold the public key of {}", public.display(), private.display());
    }
    let before = set.keys.len();
    set.keys.retain(|published| *published == key);
    let retired = before - set.keys.len();
    if retired > 0 {
        replace(&public, 0o644, text(&set)?.as_bytes())?;
    }
    print(&format!("took {retired} keys out of {}", public.display()))
}

fn public_key_of(private: &Path) -> anyhow::Result<PublicKey> {
    let pem = fs::read_to_string(private).with_context(|| format!("{} cannot be read", private.display()))?;
    public_key(&pem).with_context(|| private.display().to_string())
}

fn published_in(public: &Path) -> anyhow::Result<KeySet> {
    let found = fs::read_to_string(public).with_context(|| format!("{} cannot be read", public.display()))?;
    serde_json::from_str(&found).with_context(|| format!("{} is not a JSON Web Key Set", public.display()))
}

fn text(set: &KeySet) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(set)? + "\n")
}

fn new_key() -> anyhow::Result<Vec<u8>> {
    let key = SigningKey::from_bytes(&rand::random());
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| anyhow!("the key could not be encoded"))?;
    Ok(pem.as_bytes().to_vec())
}

/// Creates and syncs a file with these bytes. Returns false, and leaves the file unchanged, if the file exists.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<bool> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be created", path.display())),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("{} cannot be written", path.display())).map(|()| true)
}

/// Replaces a file atomically by renaming: a reader sees either the old or the new content.
fn replace(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    // The temporary file of an interrupted run.
    let _ = fs::remove_file(&beside);
    write_new(&beside, mode, bytes)?;
    fs::rename(&beside, path).with_context(|| format!("{} cannot be replaced", path.display()))?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn sync_directory(dir: &Path) -> anyhow::Result<()> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("{} cannot be synced", dir.display()))
}

#[cfg(test)]
mod tests {
    use shared::token::{Claims, ISSUER, TokenSigner, Verifier};

    use super::*;

    #[test]
    fn a_token_signed_with_the_private_key_is_verified_with_the_public_one() {
        let dir = tempfile::tempdir().unwrap();
        let command = KeysCommand::Create { dir: dir.path().join("keys") };
        run(&command).unwrap();
        let read = |name| fs::read_to_string(dir.path().join("keys").join(name)).unwrap();
        let (pem, jwks) = (read(PRIVATE_KEY_FILE), read(PUBLIC_KEYS_FILE));
        run(&command).unwrap();
        assert_eq!((&pem, &jwks), (&read(PRIVATE_KEY_FILE), &read(PUBLIC_KEYS_FILE)), "existing keys are kept");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("keys").join(PRIVATE_KEY_FILE)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let sub = "u1".parse().unwrap();
        let claims = Claims { iss: ISSUER.into(), sub, iat: 0, exp: 4_000_000_000, role: None, sid: None };
        let token = TokenSigner::from_pem(&public_key(&pem).unwrap().kid, &pem).unwrap().sign(&claims).unwrap();
        assert_eq!(Verifier::from_jwks(&jwks).unwrap().verify(&token).unwrap(), claims);
    }

    #[test]
    fn each_step_of_a_key_rotation_leaves_usable_keys() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let keys = || published_in(&at(PUBLIC_KEYS_FILE)).unwrap().keys;
        let here = || dir.path().to_owned();
        run(&KeysCommand::Create { dir: here() }).unwrap();
        let old = public_key_of(&at(PRIVATE_KEY_FILE)).unwrap();
        assert!(run(&KeysCommand::Switch { dir: here() }).unwrap_err().to_string().contains("recorder keys stage"));

        run(&KeysCommand::Stage { dir: here() }).unwrap();
        run(&KeysCommand::Stage { dir: here() }).unwrap();
        let new = public_key_of(&at(NEXT_PRIVATE_KEY_FILE)).unwrap();
        assert_eq!(keys(), [old.clone(), new.clone()]);
        assert_eq!(public_key_of(&at(PRIVATE_KEY_FILE)).unwrap(), old, "the next key is not used for signing yet");
        assert!(run(&KeysCommand::Retire { dir: here() }).is_err(), "the next key would be lost");

        run(&KeysCommand::Switch { dir: here() }).unwrap();
        assert_eq!((public_key_of(&at(PRIVATE_KEY_FILE)).unwrap(), keys()), (new.clone(), vec![old, new.clone()]));
        run(&KeysCommand::Retire { dir: here() }).unwrap();
        run(&KeysCommand::Retire { dir: here() }).unwrap();
        assert_eq!(keys(), [new]);
        assert!(!at(NEXT_PRIVATE_KEY_FILE).exists());

        // A set without the signing key is refused, not changed.
        fs::write(at(PUBLIC_KEYS_FILE), r#"{"keys": []}"#).unwrap();
        assert!(run(&KeysCommand::Retire { dir: here() }).is_err());
    }
}
