//! The paths in a file, as written in imports, code, macros and attributes.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, ExprMethodCall, Field, FieldValue, ImplItem, Item, ItemMod, ItemUse, Local, Macro, Meta, TraitItem,
    UseTree, Visibility,
};

use crate::sources::{ModulePath, SourceFile, is_test};

/// A path as written, with the module around the path.
#[derive(Debug)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    pub(crate) scope: ModulePath,
    pub(crate) segments: Vec<String>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A path in code or a public import. The item counts, and so does a module.
    Name,
    /// A private import. An imported module counts only where a longer path leads through the module.
    Import,
    /// A path with `::` in front, or a path known to be whole.
    Absolute,
}

/// The whole paths behind short names: by the module with the `use`, and the short name.
pub(crate) type Imports = BTreeMap<(ModulePath, String), Vec<String>>;

/// The paths of a file, and the imports that the paths may begin with.
#[derive(Debug)]
pub(crate) struct Names {
    scope: ModulePath,
    pub(crate) mentions: Vec<Mention>,
    pub(crate) imports: Imports,
}

impl Names {
    pub(crate) fn of(file: &SourceFile) -> Self {
        let mut names = Self { scope: file.module.clone(), mentions: Vec::new(), imports: Imports::new() };
        names.visit_file(&file.syntax);
        names
    }

    fn mention(&mut self, line: usize, segments: Vec<String>, kind: Kind) {
        self.mentions.push(Mention { line, scope: self.scope.clone(), segments, kind });
    }

    fn import(&mut self, tree: &UseTree, mut prefix: Vec<String>, kind: Kind) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(&path.tree, prefix, kind);
            }
            UseTree::Group(group) => group.items.iter().for_each(|item| self.import(item, prefix.clone(), kind)),
            UseTree::Name(name) => {
                let called = name.ident.to_string();
                self.leaf(name.ident.span().start().line, prefix, &called, &called, kind);
            }
            UseTree::Rename(rename) => {
                let (name, called) = (rename.ident.to_string(), rename.rename.to_string());
                self.leaf(rename.ident.span().start().line, prefix, &name, &called, kind);
            }
            UseTree::Glob(glob) => {
                let kind = if kind == Kind::Import { Kind::Name } else { kind };
                self.mention(glob.star_token.spans[0].start().line, prefix, kind);
            }
        }
    }

    fn leaf(&mut self, line: usize, mut path: Vec<String>, name: &str, called: &str, kind: Kind) {
        let mut called = called.to_owned();
        if name != "self" {
            path.push(name.to_owned());
        } else if called == "self" {
            called = path.last().cloned().unwrap_or_default();
        }
        self.mention(line, path.clone(), kind);
        if path != [called.as_str()] {
            self.imports.insert((self.scope.clone(), called), path);
        }
    }

    /// Finds the paths among tokens without a syntax tree: the arguments of macros and attributes.
    ///
    /// `prefix` is the path in front of a group, as in `use crate::{…}`.
    fn tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let mut path: Vec<String> = prefix.to_vec();
        let (mut line, mut colons, mut is_after_dot) = (0, 2, false);
        for token in tokens {
            let was_after_dot = std::mem::take(&mut is_after_dot);
            match token {
                TokenTree::Ident(ident) => {
                    line = ident.span().start().line;
                    if colons < 2 {
                        self.path_of_tokens(line, &mut path, prefix);
                    }
                    if was_after_dot && ident == "elapsed" {
                        self.asks_for_elapsed_time(line);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && colons < 2 => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    let continues = colons == 2 && path.len() > prefix.len() && group.delimiter() == Delimiter::Brace;
                    let within = if continues { path.clone() } else { Vec::new() };
                    self.tokens(group.stream(), &within);
                }
                TokenTree::Literal(literal) => self.literal(&literal.to_string(), literal.span().start().line),
                TokenTree::Punct(punct) => is_after_dot = punct.as_char() == '.',
            }
            self.path_of_tokens(line, &mut path, prefix);
            colons = 2;
        }
        self.path_of_tokens(line, &mut path, prefix);
    }

    /// Ends a path among tokens, and begins the next path.
    fn path_of_tokens(&mut self, line: usize, path: &mut Vec<String>, prefix: &[String]) {
        let path = std::mem::replace(path, prefix.to_vec());
        if path.len() > 1 && path.len() > prefix.len() {
            self.mention(line, path, Kind::Name);
        }
    }

    fn asks_for_elapsed_time(&mut self, line: usize) {
        self.mention(line, ["std", "time", "Instant", "elapsed"].map(str::to_owned).to_vec(), Kind::Absolute);
    }

    /// A string in an attribute or a macro may be a path: `#[serde(with = "crate::time")]`.
    fn literal(&mut self, literal: &str, line: usize) {
        let text = literal.trim_matches('"');
        let is_path = text.contains("::")
            && text.split("::").all(|name| syn::parse_str::<syn::Ident>(name).is_ok() || is_keyword(name));
        if literal.starts_with('"') && is_path {
            self.mention(line, text.split("::").map(str::to_owned).collect(), Kind::Name);
        }
    }
}

fn is_keyword(name: &str) -> bool {
    matches!(name, "crate" | "super" | "self")
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Fn(item) => &item.attrs[..],
            ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if !matches!(item, TraitItem::Fn(item) if is_test(&item.attrs)) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if !is_test(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'ast FieldValue) {
        if !is_test(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let kind = match (item.leading_colon, &item.vis) {
            (Some(_), _) => Kind::Absolute,
            (None, Visibility::Inherited) => Kind::Import,
            (None, _) => Kind::Name,
        };
        self.import(&item.tree, Vec::new(), kind);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A path of one segment is a local name or an imported name; an imported name is counted at its import.
        if let Some(last) = path.segments.last().filter(|_| path.segments.len() > 1) {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            let kind = if path.leading_colon.is_some() { Kind::Absolute } else { Kind::Name };
            self.mention(last.ident.span().start().line, segments, kind);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "elapsed" {
            self.asks_for_elapsed_time(call.method.span().start().line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, node: &'ast Macro) {
        self.tokens(node.tokens.clone(), &[]);
        visit::visit_macro(self, node);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            // Doc comments and lint attributes hold text, not names of modules.
            meta if ["doc", "expect", "allow", "cfg"].iter().any(|name| meta.path().is_ident(name)) => {}
            Meta::List(list) => self.tokens(list.tokens.clone(), &[]),
            _ => {}
        }
        visit::visit_attribute(self, attribute);
    }

    /// Skips `pub(in crate::journal)`: a visibility uses no item.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
