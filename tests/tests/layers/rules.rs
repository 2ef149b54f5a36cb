//! The rules. Each function returns one message for every place where the code breaks the rule.

use std::path::Path;

use crate::arrows::{Arrow, Outside};
use crate::circles;
use crate::sources::Texts;
use crate::table::Table;
use crate::uses;

/// The maximum number of lines of a file, tests included.
const LONGEST: usize = 400;

/// Every file has a row in the table, and every folder and file of the table exists.
pub(crate) fn table_is_whole(table: &Table, texts: &Texts) -> Vec<String> {
    let folder = table.folder.display();
    let without = texts.keys().filter(|file| table.find(file).is_none());
    let mut broken: Vec<_> = without
        .map(|file| format!("{folder}/{} is in no row of the table of {folder} in ARCHITECTURE.md", file.display()))
        .collect();
    for row in &table.rows {
        let missing = row.places.iter().filter(|place| !texts.keys().any(|file| place.holds(file)));
        broken.extend(missing.map(|place| format!("ARCHITECTURE.md:{}: {folder} has no {place}", row.line)));
    }
    broken
}

/// A file names only its own place and the places of lower rows.
pub(crate) fn rows_are_kept(table: &Table, arrows: &[Arrow]) -> Vec<String> {
    let check = |arrow: &Arrow| {
        let ((from, own), (to, other)) = (table.find(&arrow.from)?, table.find(&arrow.to)?);
        if to < from || own == other {
            return None;
        }
        let rule = if to == from {
            format!("{own} and {other} stand in one row, so neither names the other")
        } else {
            format!("the row of {own} is below the row of {other}")
        };
        let (place, line) = (at(table, &arrow.from, arrow.line), table.rows[from].line);
        Some(format!("{place} names {}: {rule} (ARCHITECTURE.md:{line})", arrow.name))
    };
    arrows.iter().filter_map(check).collect()
}

/// A file uses other crates only as far as the last column of the row allows.
pub(crate) fn uses_are_listed(table: &Table, outside: &[Outside]) -> Vec<String> {
    let check = |name: &Outside| {
        let (row, place) = table.find(&name.from)?;
        let row = &table.rows[row];
        let word = row.lacks(&name.name)?;
        let from = at(table, &name.from, name.line);
        Some(format!(
            "{from} names {}: the row of {place} does not list `{word}` (ARCHITECTURE.md:{})",
            name.name, row.line
        ))
    };
    let mut broken: Vec<_> = outside.iter().filter_map(check).collect();
    broken.dedup();
    broken
}

/// Each word in the last column of a row is used by a file of the row.
pub(crate) fn listed_uses_are_used(table: &Table, outside: &[Outside]) -> Vec<String> {
    let uses = |row: usize, word| {
        let of_row = outside.iter().filter(|name| table.find(&name.from).is_some_and(|(found, _)| found == row));
        of_row.filter_map(|name| uses::needed_for(&name.name)).any(|used| used == word)
    };
    let mut broken = Vec::new();
    for (index, row) in table.rows.iter().enumerate() {
        let unused = row.uses.iter().filter(|word| !uses(index, **word));
        broken.extend(unused.map(|word| {
            format!("ARCHITECTURE.md:{}: the row of {} lists `{word}`, and no file uses it", row.line, row.places[0])
        }));
    }
    broken
}

/// No file of `folder` that `from` holds names the crate or module `path`.
pub(crate) fn never(folder: &Path, outside: &[Outside], from: impl Fn(&Path) -> bool, path: &str) -> Vec<String> {
    let found = outside.iter().filter(|name| from(&name.from) && uses::begins(&name.name, path));
    found
        .map(|name| format!("{}/{}:{} names {}", folder.display(), name.from.display(), name.line, name.name))
        .collect()
}

/// No files lead to each other.
pub(crate) fn no_circles(folder: &Path, arrows: &[Arrow]) -> Vec<String> {
    let show = |arrow: &&Arrow| {
        let (from, to) = (folder.join(&arrow.from), folder.join(&arrow.to));
        format!("\n    {}:{} names {} of {}", from.display(), arrow.line, arrow.name, to.display())
    };
    circles::of(arrows).iter().map(|ring| format!("a circle:{}", ring.iter().map(show).collect::<String>())).collect()
}

/// No file has more than 400 lines.
pub(crate) fn files_are_short(folder: &Path, texts: &Texts) -> Vec<String> {
    let lengths = texts.iter().map(|(file, text)| (file, text.lines().count())).filter(|(_, lines)| *lines > LONGEST);
    let say = |(file, lines): (&std::path::PathBuf, usize)| {
        format!("{}/{}: {lines} lines, and at most {LONGEST} are allowed", folder.display(), file.display())
    };
    lengths.map(say).collect()
}

fn at(table: &Table, file: &Path, line: usize) -> String {
    format!("{}:{line}", table.folder.join(file).display())
}
