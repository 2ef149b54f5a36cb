//! The copy of the state on the gateway's disk: one line for each entry, replaced as a whole by a rename.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use shared::access::Entry;

use super::state::AccessEntries;

/// The first line of the file: the version of the format.
const FORMAT: &str = "stenograph access 1";

/// The last line of the file, so that a file that was cut off is noticed.
const END: &str = "end";

/// The copy of the state on disk.
#[derive(Clone, Debug)]
pub struct DiskCopy {
    path: PathBuf,
}

impl DiskCopy {
    /// Returns the copy in the journal's directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("access") }
    }

    /// Reads the copy; none if there is no copy, or none of this format.
    pub fn read(&self) -> io::Result<Option<AccessEntries>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file).lines();
        if lines.next().transpose()?.as_deref() != Some(FORMAT) {
            return Ok(None);
        }
        let mut entries = AccessEntries::default();
        for line in lines {
            let line = line?;
            if line == END {
                return Ok(Some(entries));
            }
            let entry = line.split_once(' ').and_then(|(name, value)| Entry::read(name, value.as_bytes()));
            entry.into_iter().for_each(|entry| entries.apply(entry));
        }
        Ok(None)
    }

    /// Writes the copy: a crash leaves the copy of before.
    pub fn write(&self, entries: &AccessEntries) -> io::Result<()> {
        let unfinished = self.path.with_extension("new");
        let mut file = BufWriter::new(File::create(&unfinished)?);
        writeln!(file, "{FORMAT}")?;
        for entry in entries.all() {
            file.write_all(entry.name().as_bytes())?;
            file.write_all(b" ")?;
            file.write_all(&entry.encode()?)?;
            file.write_all(b"\n")?;
        }
        writeln!(file, "{END}")?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&unfinished, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_cut_off_or_of_another_format_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let copy = DiskCopy::in_directory(directory.path());
        assert!(copy.read().unwrap().is_none());
        copy.write(&AccessEntries::default()).unwrap();
        assert!(copy.read().unwrap().is_some());
        let whole = std::fs::read_to_string(&copy.path).unwrap();
        for text in [whole.replace(END, ""), whole.replace(" 1\n", " 2\n"), String::new()] {
            std::fs::write(&copy.path, text).unwrap();
            assert!(copy.read().unwrap().is_none());
        }
    }
}
