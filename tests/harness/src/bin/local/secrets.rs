//! Files with secrets, readable by the owner alone.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A random secret of so many bytes, in the alphabet of base64url without padding.
pub(crate) fn random(bytes: usize) -> String {
    let random: Vec<u8> = std::iter::repeat_with(rand::random).take(bytes).collect();
    URL_SAFE_NO_PAD.encode(random)
}

/// Reads the secret in a file. None without a file, and for an empty file.
pub(crate) fn read(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// Writes a file with mode 0600. The file appears whole, by a rename, or not at all.
pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let _ = std::fs::remove_file(new);
    let written = || -> std::io::Result<()> {
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        opened.write_all(text.as_bytes())?;
        std::fs::rename(new, file)
    };
    written().with_context(|| format!("cannot write {}", file.display()))
}

/// Reads the secret in a file. Without one, calls `make` and writes the result to the file first.
pub(crate) fn read_or_make(file: &Path, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    if let Some(secret) = read(file) {
        return Ok(secret);
    }
    let secret = make();
    write(file, &secret)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn are_made_once_and_readable_by_their_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("password");
        let made = read_or_make(&file, || random(24)).unwrap();
        assert_eq!(made.len(), 32);
        assert_eq!(read_or_make(&file, || unreachable!("the file has a password already")).unwrap(), made);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_empty_file_is_no_secret() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("password");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(read(&file), None);
        assert_eq!(read_or_make(&file, || "new".into()).unwrap(), "new");
    }
}
