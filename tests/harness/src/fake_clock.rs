//! The clock of a service, set by a test: a library that is loaded into the process (libfaketime) and reads the offset from a
//! file. The monotonic clock stays true.

use std::path::{Path, PathBuf};

/// Places of the library: of Debian's package `libfaketime`, by architecture.
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// A clock that a test sets while the service runs.
#[derive(Clone, Debug)]
pub struct FakeClock {
    library: &'static str,
    file: PathBuf,
}

impl FakeClock {
    /// Creates a clock that shows the true time, with a file of this name. None on a machine without the library.
    pub fn new(file: &Path) -> anyhow::Result<Option<Self>> {
        let Some(library) = LIBRARIES.into_iter().find(|library| Path::new(library).exists()) else { return Ok(None) };
        let clock = Self { library, file: file.to_owned() };
        clock.set(0)?;
        Ok(Some(clock))
    }

    /// Environment variables of the service that uses the clock.
    pub fn variables(&self) -> Vec<(String, String)> {
        let file = self.file.display().to_string();
        let variables = [
            ("LD_PRELOAD", self.library),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Sets the clock to the true time plus so many seconds.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        // A rename, so that the service never reads half of the offset.
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, &self.file)?)
    }
}
