//! The price list that is part of the program: version 0 of the prices, in force until other prices are published.

use std::sync::{Arc, LazyLock};

use super::catalogue::Catalogue;

/// The bytes of the list, unchanged from genai-prices. See `shared/data/genai-prices/README.md`.
pub const BYTES: &[u8] = include_bytes!("../../data/genai-prices/prices.json");

/// The SHA-256 of [`BYTES`].
pub const SHA256: &str = "36b2d46ee3f339666e58962d6e4d9ecb175adf2a0456ad029ea0cbafd9baf75c";

/// The day on which the list was published. A later edition is newer.
pub const EDITION: &str = "2026-10-30";

/// Returns the list, which is read when first used.
pub fn catalogue() -> &'static Arc<Catalogue> {
    static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| {
        Arc::new(Catalogue::parse(BYTES).expect("the embedded price list is valid, as a test has shown"))
    });
    &CATALOGUE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_list_is_the_pinned_one() {
        let list = catalogue();
        assert_eq!(list.sha256(), SHA256);
        assert!(list.models() > 2000, "{}", list.models());
        let readme = include_str!("../../data/genai-prices/README.md");
        assert!(readme.contains(SHA256) && readme.contains(EDITION), "the README names another list");
    }
}
