//! The arrows of a crate. An arrow leads from a file to another file of the crate with an item that the first file names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::names::{Imports, Kind, Mention, Names};
use crate::sources::Crate;

/// A use of another file of the crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    /// The first line of `from` with a name from `to`.
    pub(crate) line: usize,
    /// The name as seen from the crate's root: `crate::journal::Journal`.
    pub(crate) name: String,
}

/// A use of another crate or of the standard library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outside {
    pub(crate) from: PathBuf,
    pub(crate) line: usize,
    /// The whole path, such as `tokio::sync::mpsc`; the method call `.elapsed()` is `std::time::Instant::elapsed`.
    pub(crate) name: String,
}

/// The names in a crate that lead out of the file with the name.
#[derive(Debug, Default)]
pub(crate) struct Arrows {
    /// At most one arrow for two files and a direction.
    pub(crate) inside: Vec<Arrow>,
    pub(crate) outside: Vec<Outside>,
}

/// Reads the arrows of every file.
///
/// A `mod` line is no arrow. A `pub use` of a child is an arrow from the parent to the child. A name that is taken through a parent
/// is an arrow to the parent.
pub(crate) fn of(tree: &Crate) -> Arrows {
    let mut arrows = Arrows::default();
    for (index, file) in tree.files.iter().enumerate() {
        let mut names = Names::of(file);
        names.mentions.sort_by_key(|mention| mention.line);
        let mut first = BTreeMap::new();
        for mention in &names.mentions {
            match resolve(tree, &names.imports, mention) {
                Target::Inside(to, path) => {
                    for to in to.iter().filter(|_| !to.contains(&index)) {
                        first.entry(*to).or_insert_with(|| (mention.line, path.clone()));
                    }
                }
                Target::Nothing => {}
                Target::Outside(name) => {
                    arrows.outside.push(Outside { from: file.path.clone(), line: mention.line, name });
                }
            }
        }
        for (to, (line, name)) in first {
            arrows.inside.push(Arrow { from: file.path.clone(), to: tree.files[to].path.clone(), line, name });
        }
    }
    arrows.inside.sort();
    arrows
}

#[derive(Debug, PartialEq)]
enum Target<'a> {
    Inside(&'a [usize], String),
    Outside(String),
    Nothing,
}

fn resolve<'a>(tree: &'a Crate, imports: &Imports, mention: &Mention) -> Target<'a> {
    let path = if mention.kind == Kind::Absolute {
        absolute(tree, mention.segments.clone())
    } else {
        expand(tree, imports, &mention.scope, &mention.segments, 8)
    };
    let Some(root) = path.first() else { return Target::Nothing };
    if !tree.modules.contains_key(std::slice::from_ref(root)) {
        return if path.len() > 1 || mention.kind == Kind::Import {
            Target::Outside(path.join("::"))
        } else {
            Target::Nothing
        };
    }
    let deepest = (1..=path.len()).rev().find(|end| tree.modules.contains_key(&path[..*end])).unwrap_or(1);
    if deepest == path.len() && mention.kind == Kind::Import {
        return Target::Nothing;
    }
    let name = std::iter::once("crate").chain(path[1..].iter().map(String::as_str)).collect::<Vec<_>>().join("::");
    Target::Inside(&tree.modules[&path[..deepest]], name)
}

/// Returns the path from a root of the crate, or from an outside crate. `hops` bounds chains of imports.
fn expand(tree: &Crate, imports: &Imports, scope: &[String], segments: &[String], hops: u32) -> Vec<String> {
    let Some((first, rest)) = segments.split_first() else { return Vec::new() };
    let mut base = scope.to_vec();
    match first.as_str() {
        "crate" => base.truncate(1),
        "self" => {}
        "super" => {
            base.pop();
            if rest.first().is_some_and(|next| next == "super") {
                return expand(tree, imports, &base, rest, hops);
            }
        }
        _ => {
            let import = imports.get(&(scope.to_vec(), first.clone())).filter(|_| hops > 0);
            let import = import.map(|import| behind(tree, imports, scope, first, import, hops));
            if let Some(import) = import.filter(|import| rest.is_empty() || may_hold_names(tree, import)) {
                return [&import, rest].concat();
            }
            base.push(first.clone());
            if !tree.modules.contains_key(&base) {
                return absolute(tree, segments.to_vec());
            }
        }
    }
    [&base, rest].concat()
}

/// Returns the whole path behind the short name `first`.
fn behind(
    tree: &Crate,
    imports: &Imports,
    scope: &[String],
    first: &String,
    import: &[String],
    hops: u32,
) -> Vec<String> {
    // An import may have the name of the crate that the import begins with: `use time::time`.
    if import.first() == Some(first) {
        absolute(tree, import.to_vec())
    } else {
        expand(tree, imports, scope, import, hops - 1)
    }
}

/// Tells modules and types from functions, by the case of the name: after `use super::input::time`, the path `time::Duration` begins
/// with the crate `time`.
fn may_hold_names(tree: &Crate, path: &[String]) -> bool {
    let is_inside = path.first().is_some_and(|root| tree.modules.contains_key(std::slice::from_ref(root)));
    let is_function = path.last().is_some_and(|name| name.starts_with(char::is_lowercase));
    !is_inside || !is_function || tree.modules.contains_key(path)
}

/// Returns the path from a crate. The programs of a crate call the library by the name of the crate.
fn absolute(tree: &Crate, mut segments: Vec<String>) -> Vec<String> {
    if segments.first() == Some(&tree.name) {
        "lib".clone_into(&mut segments[0]);
    }
    segments
}
