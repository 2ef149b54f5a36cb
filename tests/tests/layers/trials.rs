//! The rules tried on small crates: each of them can fail.

use std::path::{Path, PathBuf};

use crate::arrows::{self, Arrows};
use crate::sources::{Crate, Texts};
use crate::table::{self, Table};
use crate::{javascript, rules};

const TABLE: &str = "\
# Architecture
## Where things are
### `app/src`
| layer | folders and files | hold | may use |
|---|---|---|---|
| pure | `fold/`, `limits.rs` | sums | nothing |
| pure | `retry.rs` | pauses; the time is handed in | `std::time` |
| edge | `journal/` | the log | `std::fs`, `clock` |
| surface | `server/` | the routes | `axum` |
| wiring | `lib.rs` | the start | nothing |
## More
| layer | is no table of layers |
";

fn table() -> Table {
    table::parse(TABLE).expect("the table is well formed").remove(0)
}

fn texts(files: &[(&str, &str)]) -> Texts {
    files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
}

/// The arrows of a crate `app` with these files. `lib.rs` gets a `mod` line for each file beside `lib.rs`.
fn arrows(files: &[(&str, &str)]) -> Arrows {
    let mut texts = texts(files);
    let declared: String = files
        .iter()
        .filter(|(path, _)| !path.contains('/') && *path != "lib.rs")
        .map(|(path, _)| format!("pub mod {};\n", path.trim_end_matches(".rs")))
        .collect();
    texts.entry("lib.rs".into()).or_default().push_str(&declared);
    arrows::of(&Crate::parse("app", &texts).expect("the crate is well formed"))
}

/// The arrows as `from:line to name`.
fn shown(files: &[(&str, &str)]) -> Vec<String> {
    let show =
        |arrow: arrows::Arrow| format!("{}:{} {} {}", arrow.from.display(), arrow.line, arrow.to.display(), arrow.name);
    arrows(files).inside.into_iter().map(show).collect()
}

fn broken_rows(files: &[(&str, &str)]) -> Vec<String> {
    rules::rows_are_kept(&table(), &arrows(files).inside)
}

fn broken_uses(files: &[(&str, &str)]) -> Vec<String> {
    rules::uses_are_listed(&table(), &arrows(files).outside)
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    rules::no_circles(Path::new("app/src"), &arrows(files).inside)
}

#[test]
fn a_pure_module_that_names_an_edge_is_found() {
    let files = [("fold.rs", "\nuse crate::journal::Journal;"), ("journal.rs", "pub struct Journal;")];
    assert_eq!(
        broken_rows(&files),
        ["app/src/fold.rs:2 names crate::journal::Journal: the row of `fold/` is below the row of `journal/` \
          (ARCHITECTURE.md:6)"]
    );
}

#[test]
fn an_edge_that_names_the_surface_is_found_and_the_surface_may_name_the_edge() {
    let edge = ("journal.rs", "pub fn append(_: crate::server::Route) {}");
    let surface = ("server.rs", "pub struct Route;");
    assert_eq!(
        broken_rows(&[edge, surface]),
        ["app/src/journal.rs:1 names crate::server::Route: the row of `journal/` is below the row of `server/` \
          (ARCHITECTURE.md:8)"]
    );
    let (edge, surface) = (("journal.rs", "pub fn append() {}"), ("server.rs", "fn f() { crate::journal::append() }"));
    assert_eq!(broken_rows(&[edge, surface]), [""; 0]);
}

#[test]
fn places_of_one_row_do_not_name_each_other_and_a_place_names_its_own_files() {
    let files = [("fold.rs", "use crate::limits::MOST;\npub mod sum;"), ("fold/sum.rs", ""), ("limits.rs", "")];
    assert_eq!(
        broken_rows(&files),
        [
            "app/src/fold.rs:1 names crate::limits::MOST: `fold/` and `limits.rs` stand in one row, so neither names the \
          other (ARCHITECTURE.md:6)"
        ]
    );
    let files = [("fold.rs", "mod sum;\npub use sum::Sum;"), ("fold/sum.rs", "pub struct Sum;")];
    assert_eq!(broken_rows(&files), [""; 0]);
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let files = [("fold.rs", "use crate::limits::A;\npub struct B;"), ("limits.rs", "pub struct A(crate::fold::B);")];
    assert_eq!(
        circles(&files),
        ["a circle:\n    app/src/fold.rs:1 names crate::limits::A of app/src/limits.rs\n    \
          app/src/limits.rs:1 names crate::fold::B of app/src/fold.rs"]
    );
}

#[test]
fn a_circle_of_three_is_found_and_a_diamond_is_none() {
    let a = ("a.rs", "use crate::b::B;");
    let (b, c) = (("b.rs", "use crate::c::C;"), ("c.rs", "use crate::a::A;"));
    let found = circles(&[a, b, c]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].lines().count(), 4, "{found:?}");
    let a = ("a.rs", "use crate::{b::B, c::C};");
    let (b, c) = (("b.rs", "use crate::d::D;"), ("c.rs", "use crate::d::D;"));
    assert_eq!(circles(&[a, b, c, ("d.rs", "")]), [""; 0]);
}

#[test]
fn a_child_that_names_its_parent_is_a_circle_and_one_that_names_a_sibling_is_none() {
    let parent = ("journal.rs", "mod log;\nmod error;\npub use log::Log;");
    let error = ("journal/error.rs", "pub struct Error;");
    assert_eq!(circles(&[parent, error, ("journal/log.rs", "use super::Error;\npub struct Log;")]).len(), 1);
    let log = ("journal/log.rs", "use super::error::Error;\npub struct Log;");
    assert_eq!(circles(&[parent, error, log]), [""; 0]);
    assert_eq!(
        shown(&[parent, error, log]),
        [
            "journal/log.rs:1 journal/error.rs crate::journal::error::Error",
            "journal.rs:3 journal/log.rs crate::journal::log::Log"
        ]
    );
}

#[test]
fn names_are_seen_however_they_are_written() {
    let cases = [
        "use crate::journal::Journal;",
        "use crate::{fold, journal::{self, Journal}};",
        "use crate::journal::Journal as Log;",
        "use crate::journal::*;",
        "pub use crate::journal;",
        "use crate::journal; fn f() { journal::open(); }",
        "use crate::journal as log; type L = log::Journal;",
        "use crate as all; fn f() { all::journal::open(); }",
        "use super::journal::Journal;",
        "use super::journal as log; fn f(_: &dyn log::Sink) {}",
        "fn f() { super::journal::open(); }",
        "fn f() { let open = crate::journal::open; }",
        "fn f() { use crate::journal::open; open(); }",
        "fn f() -> Vec<crate::journal::Journal> { Vec::new() }",
        "impl From<crate::journal::Error> for u8 { fn from(_: crate::journal::Error) -> Self { 0 } }",
        "fn f(x: X) { match x { crate::journal::A => {}, _ => {} } }",
        "mod inner { use super::super::journal::open; }",
        "mod inner { mod deeper { fn f() { crate::journal::open() } } }",
        "fn f() { println!(\"{}\", crate::journal::open()); }",
        "fn f() { select! { _ = super::journal::open() => {} } }",
        "macro_rules! m { () => { $crate::journal::open() }; }",
        "use crate::journal; fn f() { assert!(matches!(x, Some(journal::A { .. }))); }",
        "many! { use crate::{fold::A, journal::Journal}; }",
        "#[derive(Serialize)] struct S { #[serde(with = \"crate::journal\")] at: u8 }",
        "#[handler(body = crate::journal::Journal)] fn f() {}",
    ];
    for case in cases {
        let found = shown(&[("fold.rs", case), ("journal.rs", "")]);
        assert!(
            found.iter().any(|arrow| arrow.starts_with("fold.rs:1 journal.rs crate::journal")),
            "{case}: {found:?}"
        );
    }
}

#[test]
fn what_only_looks_like_a_name_is_no_arrow() {
    let cases = [
        "// crate::journal::open()",
        "/// See [`crate::journal::Journal`].\nfn f() {}",
        "fn f() { let text = \"open crate::journal::open\"; }",
        "pub(in crate::journal) fn f() {}",
        "use other::journal; fn f() { journal::open(); }",
        "fn f(journal: u8) -> u8 { journal }",
        "#[cfg(test)] mod tests { use crate::journal::open; }",
        "#[cfg(test)] use crate::journal::open;",
        "struct S { #[cfg(test)] journal: crate::journal::Journal }",
        "#[test] fn t() { crate::journal::open() }",
    ];
    for case in cases {
        assert_eq!(shown(&[("fold.rs", case), ("journal.rs", "")]), [""; 0], "{case}");
    }
}

#[test]
fn a_program_that_names_its_library_is_seen() {
    let files = [("lib.rs", "pub fn run() {}"), ("bin/load.rs", "fn main() { app::load::run() }"), ("load.rs", "")];
    assert_eq!(shown(&files), ["bin/load.rs:1 load.rs crate::load::run"]);
}

#[test]
fn a_module_with_a_file_for_each_feature_is_read_as_both_files() {
    let module =
        "#[cfg(a)]\npub mod sum;\n#[cfg(not(a))]\n#[path = \"fold/no_sum.rs\"]\npub mod sum;\npub use sum::Sum;";
    let files = [
        ("fold.rs", module),
        ("fold/sum.rs", ""),
        ("fold/no_sum.rs", "use crate::journal::Journal;"),
        ("journal.rs", ""),
    ];
    assert_eq!(
        shown(&files),
        [
            "fold/no_sum.rs:1 journal.rs crate::journal::Journal",
            "fold.rs:6 fold/no_sum.rs crate::fold::sum::Sum",
            "fold.rs:6 fold/sum.rs crate::fold::sum::Sum",
        ]
    );
}

#[test]
fn the_outside_is_used_as_the_row_lists() {
    let says =
        |use_: &str, word: &str| format!("app/src/fold.rs:1 names {use_}: the row of `fold/` does not list `{word}`");
    let cases = [
        ("use tokio::sync::mpsc;", says("tokio::sync::mpsc", "tokio")),
        ("use tower_http::cors;", says("tower_http::cors", "axum")),
        ("use std::{fs, sync::Arc};", says("std::fs", "std::fs")),
        ("fn f() { std::net::TcpStream::connect(a); }", says("std::net::TcpStream::connect", "std::net")),
        ("fn f() { tracing::info!(\"x\"); }", says("tracing::info", "tracing")),
        ("use std::time::Duration;", says("std::time::Duration", "std::time")),
        ("fn f() { tokio::time::Instant::now(); }", says("tokio::time::Instant::now", "tokio")),
        (
            "use time::OffsetDateTime; fn f() { OffsetDateTime::now_utc(); }",
            says("time::OffsetDateTime::now_utc", "clock"),
        ),
        ("fn f(at: T) { log!(after = ?at.elapsed()); }", says("std::time::Instant::elapsed", "clock")),
        ("fn f(at: T) { at.elapsed(); }", says("std::time::Instant::elapsed", "clock")),
    ];
    for (case, expected) in cases {
        let found = broken_uses(&[("fold.rs", case)]);
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{case}: {found:?}");
    }
    let both = [("journal.rs", "use crate::limits::time;\nuse time::Duration;"), ("limits.rs", "pub fn time() {}")];
    assert!(arrows(&both).outside.iter().any(|outside| outside.name == "time::Duration"));
    let told = "use std::time::{Duration, Instant}; fn f(now: Instant) -> Duration { now - now }";
    assert_eq!(broken_uses(&[("retry.rs", told)]), [""; 0]);
    let asks = "use std::time::Instant; fn f() -> Instant { Instant::now() }";
    assert_eq!(broken_uses(&[("retry.rs", asks)]).len(), 1);
    assert_eq!(broken_uses(&[("journal.rs", asks)]), [""; 0]);
}

#[test]
fn a_use_that_is_listed_for_nothing_is_found() {
    let files = [("journal.rs", "use std::fs::File; fn f() { File::open(p); }"), ("server.rs", "use axum::Router;")];
    assert_eq!(
        rules::listed_uses_are_used(&table(), &arrows(&files).outside),
        [
            "ARCHITECTURE.md:7: the row of `retry.rs` lists `std::time`, and no file uses it",
            "ARCHITECTURE.md:8: the row of `journal/` lists `clock`, and no file uses it",
        ]
    );
}

#[test]
fn names_of_a_forbidden_crate_are_found() {
    let outside = arrows(&[("fold.rs", "fn f() { sqlx::query(q) }"), ("limits.rs", "use sqlx_other::A;")]).outside;
    assert_eq!(rules::never(Path::new("app/src"), &outside, |_| true, "sqlx"), ["app/src/fold.rs:1 names sqlx::query"]);
    assert_eq!(rules::never(Path::new("app/src"), &outside, |file| file == Path::new("limits.rs"), "sqlx"), [""; 0]);
}

#[test]
fn a_file_without_a_row_and_a_row_without_a_file_are_found() {
    let broken = rules::table_is_whole(&table(), &texts(&[("lib.rs", ""), ("fold/sum.rs", ""), ("other.rs", "")]));
    assert_eq!(
        broken,
        [
            "app/src/other.rs is in no row of the table of app/src in ARCHITECTURE.md",
            "ARCHITECTURE.md:6: app/src has no `limits.rs`",
            "ARCHITECTURE.md:7: app/src has no `retry.rs`",
            "ARCHITECTURE.md:8: app/src has no `journal/`",
            "ARCHITECTURE.md:9: app/src has no `server/`",
        ]
    );
}

#[test]
fn a_malformed_table_is_an_error_that_names_its_line() {
    let cases = [
        ("## Where things are", "## Elsewhere", "ARCHITECTURE.md has no heading"),
        (
            "| layer | folders and files | hold |",
            "| layer | folders | hold |",
            "ARCHITECTURE.md:4: a table of layers has",
        ),
        ("### `app/src`\n", "", "ARCHITECTURE.md:3: a table of layers stands below"),
        ("| sums | nothing |", "| sums |", "ARCHITECTURE.md:6: a row of layers has 4 cells"),
        ("| sums | nothing |", "| | nothing |", "ARCHITECTURE.md:6: the row does not say"),
        ("| sums | nothing |", "| sums | |", "ARCHITECTURE.md:6: the last cell is empty"),
        ("| sums | nothing |", "| sums | `tokio` |", "ARCHITECTURE.md:6: a pure row may not use `tokio`"),
        ("| surface |", "| srface |", "ARCHITECTURE.md:9: the layer is `srface`"),
        ("| surface |", "| pure |", "ARCHITECTURE.md:9: "),
        ("`axum`", "`axim`", "ARCHITECTURE.md:9: `axim` is none of"),
        ("`server/`", "server", "ARCHITECTURE.md:9: the row has no folder"),
        ("`server/`", "`fold/`", "ARCHITECTURE.md:9: `fold/` has a row already"),
        ("| edge | `journal/`", "| wiring | `journal/`", "ARCHITECTURE.md:9: the layers are in the order"),
    ];
    for (from, to, expected) in cases {
        assert!(TABLE.contains(from), "{from}");
        let error = table::parse(&TABLE.replacen(from, to, 1)).expect_err(to);
        assert!(error.starts_with(expected), "{from} as {to}: {error}");
    }
}

#[test]
fn the_longest_place_is_a_files_own() {
    let text = TABLE.replace("| wiring |", "| surface | `server/pages/` | files | nothing |\n| wiring |");
    let table = table::parse(&text).expect("the table is well formed").remove(0);
    for (file, place) in
        [("server.rs", "`server/`"), ("server/pages.rs", "`server/pages/`"), ("server/pages/a.rs", "`server/pages/`")]
    {
        assert_eq!(table.find(Path::new(file)).map(|(_, place)| place.to_string()).as_deref(), Some(place), "{file}");
    }
}

#[test]
fn files_and_mod_lines_belong_together() {
    let parse = |files: &[(&str, &str)]| Crate::parse("app", &texts(files)).map(|tree| tree.files.len());
    assert_eq!(parse(&[("lib.rs", "mod a;"), ("a.rs", "mod b;"), ("a/b.rs", "")]), Ok(3));
    assert_eq!(parse(&[("lib.rs", "mod a;"), ("a/mod.rs", "mod b;"), ("a/b.rs", "")]), Ok(3));
    assert_eq!(parse(&[("lib.rs", "#[cfg(test)] mod a;"), ("a.rs", "mod b;"), ("a/b.rs", "")]), Ok(1));
    assert_eq!(
        parse(&[("bin/a/main.rs", "mod b;"), ("bin/a/b.rs", "mod c;"), ("bin/a/b/c.rs", ""), ("bin/d.rs", "")]),
        Ok(4)
    );
    assert_eq!(parse(&[("lib.rs", ""), ("a.rs", "")]), Err("a.rs: no `mod` line leads to this file".into()));
    assert_eq!(parse(&[("lib.rs", "mod a;")]), Err("lib.rs: no file for `mod a`".into()));
}

#[test]
fn modules_of_the_pages_that_import_each_other_are_a_circle() {
    let router = ("router.js", "import { h } from \"./dom.js\";\nconst page = () => import(\"./pages/chat.js\");");
    let dom = ("dom.js", "// import { x } from \"./router.js\";\nimport purify from \"../vendor/purify.js\";");
    let good = texts(&[router, dom, ("pages/chat.js", "import {\n  h,\n} from \"../dom.js\";")]);
    assert_eq!(rules::no_circles(Path::new("js"), &javascript::arrows(&good)), [""; 0]);
    let bad = texts(&[router, dom, ("pages/chat.js", "export { go } from \"../router.js\";")]);
    assert_eq!(
        rules::no_circles(Path::new("js"), &javascript::arrows(&bad)),
        ["a circle:\n    js/pages/chat.js:1 names ../router.js of js/router.js\n    \
          js/router.js:2 names ./pages/chat.js of js/pages/chat.js"]
    );
}

#[test]
fn a_file_of_more_than_400_lines_is_found() {
    let long = texts(&[("a.rs", &"\n".repeat(400)), ("b.rs", &"\n".repeat(401))]);
    let broken = rules::files_are_short(Path::new("app/src"), &long);
    assert_eq!(broken, ["app/src/b.rs: 401 lines, and at most 400 are allowed"]);
}
