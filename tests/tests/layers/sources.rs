//! The files of a crate, and the tree of modules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta};

/// The files below a folder: the path relative to the folder, and the text.
pub(crate) type Texts = BTreeMap<PathBuf, String>;

/// The absolute path of a module. The first segment is the root file without its ending: `lib`, `main`, `bin/load`.
pub(crate) type ModulePath = Vec<String>;

/// A Rust file outside the tests.
pub(crate) struct SourceFile {
    /// The path relative to `src`.
    pub(crate) path: PathBuf,
    pub(crate) module: ModulePath,
    pub(crate) syntax: syn::File,
}

/// The Rust files of one crate, without the modules of `#[cfg(test)]`.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) files: Vec<SourceFile>,
    /// The files of every module, inline modules included: indices into `files`. A module has two files if `cfg` chooses the file.
    pub(crate) modules: BTreeMap<ModulePath, Vec<usize>>,
}

/// Reads the files below `folder` with the given endings.
pub(crate) fn read(folder: &Path, endings: &[&str]) -> Result<Texts, String> {
    let mut texts = Texts::new();
    collect(folder, folder, endings, &mut texts).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(texts)
}

fn collect(root: &Path, folder: &Path, endings: &[&str], texts: &mut Texts) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, endings, texts)?;
        } else if path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending)) {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            texts.insert(relative, std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

impl Crate {
    /// Follows the `mod` lines from the root files: `lib.rs`, `main.rs`, `bin/*.rs` and `bin/*/main.rs`.
    ///
    /// A file that no `mod` line leads to is an error, and so is a `mod` line without a file.
    pub(crate) fn parse(name: &str, texts: &Texts) -> Result<Self, String> {
        let mut tree = Self { name: name.to_owned(), files: Vec::new(), modules: BTreeMap::new() };
        let mut seen = Vec::new();
        for path in texts.keys().filter(|path| is_root(path)) {
            let root = path.with_extension("").to_string_lossy().into_owned();
            tree.add(texts, path, vec![root], &mut seen)?;
        }
        match texts.keys().find(|path| !seen.contains(path)) {
            Some(path) => Err(format!("{}: no `mod` line leads to this file", path.display())),
            None => Ok(tree),
        }
    }

    fn add<'a>(
        &mut self,
        texts: &'a Texts,
        path: &'a Path,
        module: ModulePath,
        seen: &mut Vec<&'a PathBuf>,
    ) -> Result<(), String> {
        let (path, text) = texts.get_key_value(path).ok_or_else(|| format!("no file {}", path.display()))?;
        let syntax = syn::parse_file(text).map_err(|error| format!("{}: {error}", path.display()))?;
        seen.push(path);
        let index = self.files.len();
        let children = self.declare(&syntax.items, &module, index);
        self.files.push(SourceFile { path: path.clone(), module, syntax });
        for child in children {
            let found = child.candidates(path).into_iter().find_map(|path| texts.get_key_value(&path));
            let Some((found, _)) = found else {
                let name = child.module.last().map_or("", String::as_str);
                return Err(format!("{}: no file for `mod {name}`", path.display()));
            };
            if child.is_test {
                seen.extend(texts.keys().filter(|path| *path == found || path.starts_with(found.with_extension(""))));
            } else {
                self.add(texts, found, child.module, seen)?;
            }
        }
        Ok(())
    }

    /// Enters `module` and the inline modules. Returns the modules with files of their own.
    fn declare(&mut self, items: &[Item], module: &ModulePath, file: usize) -> Vec<Child> {
        self.modules.entry(module.clone()).or_default().push(file);
        let mut children = Vec::new();
        for item in items {
            let Item::Mod(item) = item else { continue };
            let mut path = module.clone();
            path.push(item.ident.to_string());
            let is_test = is_test(&item.attrs);
            match &item.content {
                None => children.push(Child { module: path, path: path_attribute(&item.attrs), is_test }),
                Some((_, inner)) if !is_test => children.extend(self.declare(inner, &path, file)),
                Some(_) => {}
            }
        }
        children
    }
}

struct Child {
    module: ModulePath,
    /// The value of `#[path]`.
    path: Option<String>,
    is_test: bool,
}

impl Child {
    /// Returns the paths where the file of the module may be. `parent` is the file with the `mod` line.
    fn candidates(&self, parent: &Path) -> Vec<PathBuf> {
        let beside = parent.parent().unwrap_or(Path::new(""));
        if let Some(path) = &self.path {
            return vec![beside.join(path)];
        }
        let is_folders_own = is_root(parent) || parent.ends_with("mod.rs");
        let folder = if is_folders_own { beside.to_owned() } else { parent.with_extension("") };
        let name = self.module.last().map_or("", String::as_str);
        vec![folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]
    }
}

/// Returns the file name in `#[path = "…"]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}

fn is_root(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new(""));
    match path.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs") => folder == Path::new(""),
        Some("main.rs") => folder == Path::new("") || folder.parent() == Some(Path::new("bin")),
        _ => folder == Path::new("bin"),
    }
}

/// Tells an item of the tests by its `#[cfg(test)]`, `#[cfg(all(test, …))]` or `#[test]`.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test" || (condition.starts_with("all") && condition.contains("test"))
        }
        _ => false,
    })
}
