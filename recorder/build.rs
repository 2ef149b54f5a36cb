//! Rebuilds the recorder when a migration changes, because the binary embeds all migrations.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
