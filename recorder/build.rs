//! A new migration is a reason to build again: the binary carries them all.

fn main() {
    println!("cargo::rerun-if-changed=../migrations");
}
