//! Passwords that guessers try first: one character or a short piece repeated, rows of keys and of the alphabet, and common
//! words with digits and marks around them.

/// The words of common passwords, in lower case and without digits and marks.
const WORDS: &str = include_str!("common_passwords.txt");

/// Rows in whose order people type passwords, forwards and backwards.
const ROWS: [&str; 9] = [
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "qazwsxedcrfvtgbyhnujmikolp",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
    "asdfghjklqwertyuiopzxcvbnm",
];

/// The maximum length of a piece whose repetition makes a common password, in characters.
const MAX_PIECE: usize = 4;

/// Returns true for a password that a guesser tries early.
pub(super) fn is_common(password: &str) -> bool {
    let lower = password.to_lowercase();
    let letters: Vec<char> = lower.chars().collect();
    is_repetition(&letters) || is_row(&lower) || is_dressed_word(&lower)
}

/// Returns true if a password is one piece of up to four characters again and again, such as `aaaaaaaaaa` or `abcabcabcabc`.
fn is_repetition(letters: &[char]) -> bool {
    (1..=MAX_PIECE.min(letters.len())).any(|size| letters.iter().zip(&letters[size..]).all(|(a, b)| a == b))
        && letters.len() > MAX_PIECE
}

/// Returns true if a password is a part of a row, forwards or backwards.
fn is_row(lower: &str) -> bool {
    let backwards: String = lower.chars().rev().collect();
    ROWS.iter().any(|row| row.contains(lower) || row.contains(&backwards))
}

/// Returns true if nothing but common words is left of a password after digits that stand for letters are read as letters, and
/// digits and marks at both ends are taken away: `P@ssw0rd2024!` is `password`.
fn is_dressed_word(lower: &str) -> bool {
    let is_dress = |letter: char| !letter.is_alphabetic();
    let bare = lower.trim_matches(is_dress);
    let read: String = bare
        .chars()
        .map(|letter| match letter {
            '0' => 'o',
            '1' | '!' => 'i',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            '7' => 't',
            other => other,
        })
        .filter(|letter| letter.is_alphabetic())
        .collect();
    // `$` and `@` may also be the first letter.
    read.is_empty() || is_made_of_words(&read) || is_row(&read)
}

/// Returns true if a text is one to three common words after each other.
fn is_made_of_words(text: &str) -> bool {
    let words = || WORDS.lines().filter(|word| !word.is_empty());
    let rest = |text: &'_ str| -> Vec<String> {
        words().filter_map(|word| text.strip_prefix(word)).map(str::to_owned).collect()
    };
    let mut left = vec![text.to_owned()];
    for _ in 0..3 {
        left = left.iter().flat_map(|text| rest(text)).collect();
        if left.iter().any(String::is_empty) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_guessers_try_first_are_common() {
        for password in [
            "aaaaaaaaaa",
            "ééééééééééé",
            "1111111111",
            "1234567890",
            "0987654321",
            "abcabcabcabc",
            "qwertyuiop",
            "1q2w3e4r5t",
            "1qaz2wsx3edc",
            "zyxwvutsrq",
            "password123",
            "P@ssw0rd2024!",
            "passwordpassword",
            "Welcome12345",
            "iloveyou123",
            "!!letmein!!99",
            "adminadmin1",
            "Qwerty123456",
            "stenograph1",
            "2024-01-01",
        ] {
            assert!(is_common(password), "{password}");
        }
        for password in [
            "correct horse",
            "correct horse battery",
            "tZ7-kvm.q9w2",
            "mein hund heißt 7 otto",
            "пароль-и-сова-42",
            "grüne Tür am Hafen",
        ] {
            assert!(!is_common(password), "{password}");
        }
    }

    #[test]
    fn the_words_are_in_the_form_that_is_compared() {
        for word in WORDS.lines().filter(|word| !word.is_empty()) {
            assert!(word.chars().all(|letter| letter.is_alphabetic() && letter.is_lowercase()), "{word}");
            assert!(word.chars().count() > 2, "{word}");
        }
    }
}
