//! `recorder keys create`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use sha2::{Digest as _, Sha256};
use shared::token::{KeySet, PublicKey};

use super::print;

const PRIVATE: &str = "signing-key.pem";
const PUBLIC: &str = "jwks.json";

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make the key pair that signs and verifies session tokens: `signing-key.pem` for the recorder, `jwks.json` for gateways.
    Create {
        /// Where to put them.
        #[arg(long)]
        dir: PathBuf,
    },
}

pub(super) fn run(command: &KeysCommand) -> anyhow::Result<()> {
    let KeysCommand::Create { dir } = command;
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let private = dir.join(PRIVATE);
    let made = write_new(&private, 0o600, &new_key()?)?;
    let pem = fs::read_to_string(&private).with_context(|| format!("{} cannot be read", private.display()))?;
    let key = public_key(&pem).with_context(|| private.display().to_string())?;
    let public = dir.join(PUBLIC);
    let set = serde_json::to_string_pretty(&KeySet { keys: vec![key.clone()] })? + "\n";
    // An existing set may hold more keys than this one: keys change by being both in it for a while.
    let published = write_new(&public, 0o644, set.as_bytes())?;
    let found = fs::read_to_string(&public).with_context(|| format!("{} cannot be read", public.display()))?;
    if !serde_json::from_str::<KeySet>(&found).is_ok_and(|set| set.keys.contains(&key)) {
        bail!("{} does not hold the public key of {}", public.display(), private.display());
    }
    for (path, made) in [(private, made), (public, published)] {
        print(&format!("{} {}", if made { "made" } else { "kept" }, path.display()))?;
    }
    Ok(())
}

/// The public half of a private key. Its name is the key's thumbprint (RFC 7638), so that it follows from the key.
pub(super) fn public_key(pem: &str) -> anyhow::Result<PublicKey> {
    let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| anyhow!("expected an Ed25519 private key in PKCS#8 PEM"))?;
    let bytes = key.verifying_key().to_bytes();
    let x = URL_SAFE_NO_PAD.encode(bytes);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
    Ok(PublicKey::ed25519(&kid, &bytes))
}

fn new_key() -> anyhow::Result<Vec<u8>> {
    let key = SigningKey::from_bytes(&rand::random());
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| anyhow!("the key could not be encoded"))?;
    Ok(pem.as_bytes().to_vec())
}

/// Writes a file that is not there; otherwise leaves it, and says false.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<bool> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be made", path.display())),
    };
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.with_context(|| format!("{} cannot be written", path.display())).map(|()| true)
}

#[cfg(test)]
mod tests {
    use shared::token::{Claims, ISSUER, Minter, Verifier};

    use super::*;

    #[test]
    fn a_token_signed_with_the_private_key_is_verified_with_the_public_one() {
        let dir = tempfile::tempdir().unwrap();
        let command = KeysCommand::Create { dir: dir.path().join("keys") };
        run(&command).unwrap();
        let read = |name| fs::read_to_string(dir.path().join("keys").join(name)).unwrap();
        let (pem, jwks) = (read(PRIVATE), read(PUBLIC));
        run(&command).unwrap();
        assert_eq!((&pem, &jwks), (&read(PRIVATE), &read(PUBLIC)), "existing keys are kept");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("keys").join(PRIVATE)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let sub = "u1".parse().unwrap();
        let claims = Claims { iss: ISSUER.into(), sub, iat: 0, exp: 4_000_000_000, role: None, sid: None };
        let token = Minter::from_pem(&public_key(&pem).unwrap().kid, &pem).unwrap().mint(&claims).unwrap();
        assert_eq!(Verifier::from_jwks(&jwks).unwrap().verify(&token).unwrap(), claims);
    }
}
