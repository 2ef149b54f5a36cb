//! The arrows between the pages' modules: imports of relative paths.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::arrows::Arrow;
use crate::sources::Texts;

/// Finds `import … from "./x.js"`, `export … from "./x.js"`, `import "./x.js"` and `import("./x.js")`.
///
/// An import of a file outside `texts`, such as vendored code, is no arrow.
pub(crate) fn arrows(texts: &Texts) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for (from, text) in texts {
        let mut first = BTreeMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for name in imports(line) {
                let to = join(from.parent().unwrap_or(Path::new("")), name);
                if to != *from && texts.contains_key(&to) {
                    first.entry(to).or_insert((index + 1, name.to_owned()));
                }
            }
        }
        arrows.extend(first.into_iter().map(|(to, (line, name))| Arrow { from: from.clone(), to, line, name }));
    }
    arrows
}

/// The quoted relative paths in a line that come after `from` or `import`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices(['"', '\'']).filter_map(move |(at, quote)| {
        let before = line[..at].trim_end().trim_end_matches('(').trim_end();
        let name = line[at + 1..].split(quote).next()?;
        let is_import = before.ends_with("from") || before.ends_with("import");
        (is_import && name.starts_with('.')).then_some(name)
    })
}

/// `a/b` and `../c.js` make `a/c.js`.
fn join(folder: &Path, name: &str) -> PathBuf {
    let mut path = folder.to_owned();
    for part in Path::new(name).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(part) => path.push(part),
            _ => {}
        }
    }
    path
}
