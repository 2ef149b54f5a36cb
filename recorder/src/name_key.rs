//! The normal form of a login name. Two names with the same normal form are the same name.

use unicode_normalization::UnicodeNormalization as _;

/// Returns the normal form of a name: compatible characters (NFKC) and cases are alike, invisible characters count for
/// nothing, and a run of white space counts as one space.
pub fn name_key(name: &str) -> String {
    let visible: String = name.nfkc().filter(|letter| !is_invisible(*letter)).collect();
    // Upper case first: `ß` and `ss`, or both forms of a small sigma, have the same upper case.
    let folded: String = visible.to_uppercase().to_lowercase().nfkc().collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns true for characters that leave no mark on a screen: control characters, and those that Unicode calls default
/// ignorable, such as joiners, marks of direction, variation selectors and tags.
fn is_invisible(letter: char) -> bool {
    letter.is_control() && !letter.is_whitespace()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_the_same_are_the_same() {
        for (one, other) in [
            ("ann", "Ann"),
            ("ann", "a\u{200b}nn"),
            ("ann", "\u{feff}ann\u{2060}"),
            ("ann", "ａｎｎ"),
            ("Straße", "STRASSE"),
            ("ΟΔΟΣ", "οδος"),
            ("é", "e\u{301}"),
            ("ﬁn", "fin"),
            ("ann lee", "ann\u{a0} lee"),
            ("ann", "ann\u{e0041}"),
        ] {
            assert_eq!(name_key(one), name_key(other), "{one:?} and {other:?}");
        }
        for (one, other) in [("ann", "anna"), ("ann lee", "annlee"), ("王", "玉"), ("e", "é")] {
            assert_ne!(name_key(one), name_key(other), "{one:?} and {other:?}");
        }
        assert_eq!(name_key("\u{200b}\u{3164}"), "");
    }

    proptest::proptest! {
        #[test]
        fn the_normal_form_of_a_normal_form_is_the_same(name in ".{0,40}") {
            let key = name_key(&name);
            proptest::prop_assert_eq!(name_key(&key), key);
        }

        #[test]
        fn invisible_characters_and_case_change_nothing(name in "[a-zA-Z0-9à-ýÀ-Ý]{1,20}", at in 0usize..20) {
            let at = name.char_indices().map(|(at, _)| at).nth(at).unwrap_or(name.len());
            let dressed = format!("{}\u{200d}{}", &name[..at], name[at..].to_uppercase());
            proptest::prop_assert_eq!(name_key(&dressed), name_key(&name));
        }
    }
}
