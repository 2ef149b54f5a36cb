//! `.local/env`: a deployment's URLs, names and secrets, as a file that a shell can source.

use std::fmt::Write as _;

use crate::directory::Directory;
use crate::secrets;

/// The variables of the file, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SettingsFile(Vec<(String, String)>);

impl SettingsFile {
    /// Makes a file with these variables in memory.
    pub(crate) fn new<'a>(variables: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The file of the last complete start, if there was one.
    pub(crate) fn read(directory: &Directory) -> Option<Self> {
        Some(Self::parse(&std::fs::read_to_string(directory.settings()).ok()?))
    }

    /// Writes the file with mode 0600. The file appears whole or not at all.
    pub(crate) fn write(&self, directory: &Directory) -> anyhow::Result<()> {
        secrets::write(&directory.settings(), &self.to_text())
    }

    /// The value of a variable; empty if the file does not have it.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let quoted = value.replace('\'', r"'\''");
            let _ = writeln!(text, "export {name}='{quoted}'");
        }
        text
    }

    fn parse(text: &str) -> Self {
        let variables = text.lines().filter_map(|line| {
            let (name, quoted) = line.strip_prefix("export ")?.split_once("='")?;
            Some((name.to_owned(), quoted.strip_suffix('\'')?.replace(r"'\''", "'")))
        });
        Self(variables.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_and_this_program_read_the_same_values() {
        let values = ["plain", "", "with 'quotes'", "$HOME `id` \\ \"x\"", "'"];
        for value in values {
            let file = SettingsFile::new([("OTHER", "x".to_owned()), ("VALUE", value.to_owned())]);
            assert_eq!(SettingsFile::parse(&file.to_text()), file, "{value}");
            let script = format!("{}printf %s \"$VALUE\"", file.to_text());
            let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(shell.stdout).unwrap(), value, "{value}");
        }
    }

    #[test]
    fn a_variable_that_is_missing_is_empty() {
        assert_eq!(SettingsFile::parse("nothing\nexport A=b\nexport C='d'").get("A"), "");
    }
}
