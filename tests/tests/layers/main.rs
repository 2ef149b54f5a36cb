//! The layers of ARCHITECTURE.md, circles of files, and the length of files.
//!
//! The tables of layers stand in ARCHITECTURE.md, and the test reads those tables. Modules of `#[cfg(test)]` are free of every rule
//! but the length of files.

mod arrows;
mod circles;
mod javascript;
mod names;
mod rules;
mod sources;
mod table;
mod trials;
mod uses;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrows::Arrows;
use sources::{Crate, Texts};
use table::{Place, Table};

const PAGES: &str = "gateway/web/js";

/// The folder with the workspace's Cargo.toml.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the repository").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn texts(folder: &Path, ending: &str) -> Texts {
    let texts = sources::read(&root().join(folder), &[ending]).unwrap_or_else(|error| panic!("{error}"));
    assert!(!texts.is_empty(), "{} has no file *.{ending}", folder.display());
    texts
}

/// The `src` folders of the workspace's crates.
fn folders() -> Vec<PathBuf> {
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("the workspace has members");
    members.split('"').skip(1).step_by(2).map(|member| Path::new(member).join("src")).collect()
}

/// The arrows of the crate in `folder`. Each crate is read once for all tests.
fn arrows_of(folder: &Path) -> Arc<Arrows> {
    static READ: Mutex<BTreeMap<PathBuf, Arc<Arrows>>> = Mutex::new(BTreeMap::new());
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arrows) = read.get(folder) {
        return Arc::clone(arrows);
    }
    let arrows = Arc::new(read_arrows(folder));
    read.insert(folder.to_owned(), Arc::clone(&arrows));
    arrows
}

fn read_arrows(folder: &Path) -> Arrows {
    let manifest = read(&folder.with_file_name("Cargo.toml").to_string_lossy());
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a crate has a name");
    let tree = Crate::parse(name.trim_matches('"'), &texts(folder, "rs"));
    let tree = tree.unwrap_or_else(|error| panic!("{}/{error}", folder.display()));
    arrows::of(&tree)
}

fn tables() -> Vec<Table> {
    table::parse(&read("ARCHITECTURE.md")).unwrap_or_else(|error| panic!("{error}"))
}

fn table_of(folder: &str) -> Table {
    let found = tables().into_iter().find(|table| table.folder == Path::new(folder));
    found.unwrap_or_else(|| panic!("ARCHITECTURE.md has no table of layers for {folder}"))
}

#[track_caller]
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "{} of these:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn services_and_shared_have_a_table_of_all_their_files() {
    for folder in ["gateway/src", "recorder/src", "shared/src"] {
        none(&rules::table_is_whole(&table_of(folder), &texts(Path::new(folder), "rs")));
    }
}

#[test]
fn files_name_only_lower_rows() {
    for table in tables() {
        none(&rules::rows_are_kept(&table, &arrows_of(&table.folder).inside));
    }
}

#[test]
fn files_use_of_the_outside_what_their_row_lists() {
    for table in tables() {
        let arrows = arrows_of(&table.folder);
        none(&rules::uses_are_listed(&table, &arrows.outside));
        none(&rules::listed_uses_are_used(&table, &arrows.outside));
    }
}

#[test]
fn no_files_of_a_crate_form_a_circle() {
    let broken: Vec<_> =
        folders().iter().flat_map(|folder| rules::no_circles(folder, &arrows_of(folder).inside)).collect();
    none(&broken);
}

#[test]
fn no_modules_of_the_pages_form_a_circle() {
    none(&rules::no_circles(Path::new(PAGES), &javascript::arrows(&texts(Path::new(PAGES), "js"))));
}

#[test]
fn no_file_is_long() {
    let mut broken: Vec<_> =
        folders().iter().flat_map(|folder| rules::files_are_short(folder, &texts(folder, "rs"))).collect();
    broken.extend(rules::files_are_short(Path::new(PAGES), &texts(Path::new(PAGES), "js")));
    none(&broken);
}

/// No file that `from` holds names any of `paths`.
#[track_caller]
fn never(folder: &str, from: impl Fn(&Path) -> bool, paths: &[&str]) {
    let folder = Path::new(folder);
    let arrows = arrows_of(folder);
    let outside = &arrows.outside;
    assert!(outside.iter().any(|name| from(&name.from)), "no such file in {}", folder.display());
    none(&paths.iter().flat_map(|path| rules::never(folder, outside, &from, path)).collect::<Vec<_>>());
}

#[test]
fn the_gateway_has_no_database_and_knows_no_recorder() {
    never("gateway/src", |_| true, &["sqlx", "recorder"]);
    let manifest = read("gateway/Cargo.toml");
    assert!(!manifest.contains("sqlx") && !manifest.contains("recorder"));
}

#[test]
fn the_recorder_knows_no_gateway() {
    never("recorder/src", |_| true, &["gateway"]);
}

#[test]
fn the_recorders_pipeline_never_names_axum() {
    let serving = ["api/", "cli/", "health.rs"].map(Place::parse);
    never("recorder/src", |file| !serving.iter().any(|place| place.holds(file)), &["axum"]);
}

#[test]
fn the_api_knows_no_broker() {
    never("recorder/src", |file| Place::parse("api/").holds(file), &["async_nats"]);
}

#[test]
fn shared_does_no_io_of_a_service() {
    never("shared/src", |_| true, &["sqlx"]);
    // Both services serve health checks and metrics with the same code.
    let server = Place::parse("http_server/");
    never("shared/src", |file| !server.holds(file), &["axum", "hyper"]);
    // Both services connect to the broker with the same code, and only connect with it.
    let broker = Place::parse("nats/");
    never("shared/src", |file| !broker.holds(file), &["async_nats"]);
    // The keys of an identity provider and the spans of traces are the only HTTP requests that both services make with the same code.
    let network = ["http_client.rs", "http_server/", "issuer/", "nats/", "shutdown.rs", "telemetry/", "traces/"];
    let network = network.map(Place::parse);
    never("shared/src", |file| !network.iter().any(|place| place.holds(file)), &["reqwest", "tokio"]);
}

#[test]
fn pages_are_files_and_know_nothing_of_chats() {
    let pages = Place::parse("server/pages/");
    never("gateway/src", |file| pages.holds(file), &["async_nats", "hyper", "reqwest", "tokio"]);
    let of_chats = ["auth/", "chat/", "journal/", "relay/", "upstream/"].map(Place::parse);
    let arrows = arrows_of(Path::new("gateway/src"));
    let broken: Vec<_> = arrows
        .inside
        .iter()
        .filter(|arrow| pages.holds(&arrow.from) && of_chats.iter().any(|place| place.holds(&arrow.to)))
        .map(|arrow| format!("gateway/src/{}:{} names {}", arrow.from.display(), arrow.line, arrow.name))
        .collect();
    none(&broken);
}
