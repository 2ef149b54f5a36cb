//! Amounts of money in nano-dollars (10⁻⁹ US dollars), and their text in dollars.

/// The number of nano-dollars in a dollar.
pub const PER_DOLLAR: u64 = 1_000_000_000;

/// The number of decimals of a dollar that are kept.
const DECIMALS: usize = 9;

/// Reads dollars such as `25`, `0.5` or `12.345678901`, exactly. Returns `None` for any other text: signs, exponents, more than nine
/// decimals, or more than a thousand million dollars.
pub fn parse_dollars(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || whole.len() > 10 || decimals.len() > DECIMALS {
        return None;
    }
    let decimals: u64 = format!("{decimals:0<DECIMALS$}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(PER_DOLLAR)?.checked_add(decimals)
}

/// Writes nano-dollars as dollars, with two decimals at least: `25.00`, `0.000000001`.
pub fn to_dollars(nanodollars: u64) -> String {
    let decimals = format!("{:0DECIMALS$}", nanodollars % PER_DOLLAR);
    let kept = decimals.trim_end_matches('0').len().max(2);
    format!("{}.{}", nanodollars / PER_DOLLAR, &decimals[..kept])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_plain_decimals_are_amounts() {
        for (text, amount) in
            [("25", 25_000_000_000), ("0.5", 500_000_000), ("0.000000001", 1), ("007.10", 7_100_000_000)]
        {
            assert_eq!(parse_dollars(text), Some(amount), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", "99999999999", "$1", " 1", "NaN"] {
            assert_eq!(parse_dollars(text), None, "{text:?}");
        }
        assert_eq!([to_dollars(0), to_dollars(2_500_000_000), to_dollars(1)], ["0.00", "2.50", "0.000000001"]);
    }

    proptest! {
        #[test]
        fn amounts_are_read_as_they_are_written(amount in 0..=1_000_000_000 * PER_DOLLAR) {
            prop_assert_eq!(parse_dollars(&to_dollars(amount)), Some(amount));
        }
    }
}
