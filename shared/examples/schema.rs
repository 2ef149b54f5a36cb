//! Regenerates the JSON Schemas of the events and the AsyncAPI document in `docs/schema`:
//! `cargo run -p shared --features schema --example schema`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    std::fs::create_dir_all(&directory)?;
    for (name, document) in shared::schema::documents() {
        std::fs::write(directory.join(name), document)?;
    }
    Ok(())
}
