//! The keys of session tokens and API keys: files, rights, and whether the published key belongs to the private key.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use shared::token::KeySet;

use super::finding::Finding;
use crate::accounts::signing_key::public_key;

const SUBJECT: &str = "keys";
/// The name of the file with the public keys, beside the private key.
const PUBLIC_KEYS_FILE: &str = "jwks.json";

/// Examines the files.
pub(super) fn examine(private: Option<&Path>, public: Option<&Path>, findings: &mut Vec<Finding>) {
    let Some(private) = private else {
        findings.push(Finding::skipped(SUBJECT, "RECORDER_SIGNING_KEY_FILE is not set"));
        return;
    };
    let beside = private.with_file_name(PUBLIC_KEYS_FILE);
    findings.push(examine_pair(private, public.unwrap_or(&beside)).unwrap_or_else(|wrong| *wrong));
    if let Ok(file) = fs::metadata(private)
        && file.mode() & 0o077 != 0
    {
        let found =
            format!("{} can be read by other users of the machine (mode {:o})", private.display(), file.mode() & 0o777);
        findings.push(Finding::wrong(SUBJECT, found, format!("chmod 600 {}", private.display())));
    }
}

fn examine_pair(private: &Path, public: &Path) -> Result<Finding, Box<Finding>> {
    let wrong = |found: String, action: &str| Box::new(Finding::wrong(SUBJECT, found, action));
    let pem = fs::read_to_string(private).map_err(|error| {
        wrong(
            format!("{}: {error}", private.display()),
            "Set RECORDER_SIGNING_KEY_FILE, or run `recorder keys create`.",
        )
    })?;
    let key = public_key(&pem)
        .map_err(|error| wrong(format!("{}: {error}", private.display()), "Put the right key there."))?;
    let published = fs::read_to_string(public).map_err(|error| {
        wrong(format!("{}: {error}", public.display()), "Set TOKEN_KEYS_FILE, or run `recorder keys create`.")
    })?;
    let published: KeySet = serde_json::from_str(&published).map_err(|error| {
        wrong(format!("{} is no JSON Web Key Set: {error}", public.display()), "Put the right keys there.")
    })?;
    if !published.keys.contains(&key) {
        let found = format!("{} lacks the public key of {}", public.display(), private.display());
        return Err(wrong(found, "Publish it: `recorder keys stage`, or copy jwks.json from beside the private key."));
    }
    Ok(Finding::ok(SUBJECT, format!("tokens are signed with a published key, of {} in force", published.keys.len())))
}
