//! JSON as it is nearly always written on this way: no spaces, no escapes, fields in one order.
//!
//! It is read here in half the time that a general reader takes. What looks any different, valid or not, is `None`, and is left to
//! serde_json, which has the last word on what JSON is and on what is wrong with it. So whatever is accepted here must be JSON, and
//! must mean the same there: the tests change usual texts in every place, and tests/fuzz holds both against a plain reader.

/// The text that is not read yet. After `None` it is anywhere.
pub struct Plain<'a>(pub &'a str);

impl<'a> Plain<'a> {
    /// Steps over a piece of text, if it is the next one; stays where it is if not.
    pub fn skip(&mut self, piece: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(piece)?;
        Some(())
    }

    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// What stands between two quotes.
    pub fn string(&mut self) -> Option<&'a str> {
        let rest = self.0.strip_prefix('"')?;
        let (text, rest) = rest.split_at_checked(plain_length(rest.as_bytes()))?;
        self.0 = rest.strip_prefix('"')?;
        Some(text)
    }

    pub fn integer(&mut self) -> Option<i64> {
        let negative = self.skip("-").is_some();
        let digits = self.digits()?;
        // As many digits as cannot overflow. And serde_json takes -0 for a double.
        if digits.len() > 18 || (negative && digits == "0") || self.0.starts_with(['.', 'e', 'E']) {
            return None;
        }
        let value = digits.bytes().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        Some(if negative { -value } else { value })
    }

    pub fn double(&mut self) -> Option<f64> {
        let number = self.0;
        self.skip("-");
        self.digits()?;
        if self.skip(".").is_some() {
            let fraction = self.0.bytes().take_while(u8::is_ascii_digit).count();
            self.0 = self.0.get(fraction..).filter(|_| fraction > 0)?;
        }
        if self.0.starts_with(['e', 'E']) {
            return None;
        }
        let number = number.get(..number.len() - self.0.len())?;
        number.parse().ok().filter(|value: &f64| value.is_finite())
    }

    /// The digits in front of a decimal point.
    fn digits(&mut self) -> Option<&'a str> {
        let count = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        let leading_zero = count > 1 && digits.starts_with('0');
        (count > 0 && !leading_zero).then_some(digits)
    }
}

/// How many bytes stand before the first quote, backslash or control character: where a string ends, if it is a plain one.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    // Most strings are short, and are through before a search by vectors has begun.
    let (near, far) = text.split_at(text.len().min(32));
    end_in_words(near).unwrap_or_else(|| near.len() + long_plain_length(far))
}

/// The same for a long string, by the processor's vectors.
fn long_plain_length(text: &[u8]) -> usize {
    let (chunks, _) = text.as_chunks::<32>();
    let plain = |chunk: &&[u8; 32]| !chunk.iter().fold(false, |ends, byte| ends | ends_plain(*byte));
    let skipped = 32 * chunks.iter().take_while(plain).count();
    let rest = &text[skipped..];
    skipped + end_in_words(rest).unwrap_or(rest.len())
}

fn ends_plain(byte: u8) -> bool {
    // Without branches.
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// Where the first such byte is, eight bytes at a time.
#[inline]
fn end_in_words(text: &[u8]) -> Option<usize> {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The highest bit of each byte that is below `limit`; of bytes behind the first such, the bit may be wrong.
        let below = |word: u64, limit: u8| word.wrapping_sub(EACH * u64::from(limit)) & !word;
        let equal = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
        let ends = (below(word, b' ') | equal(b'"') | equal(b'\\')) & (EACH << 7);
        if ends != 0 {
            return Some(at * 8 + ends.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| ends_plain(*byte))?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_where_the_first_byte_of_another_kind_is_wherever_that_is() {
        for length in 0..130 {
            for byte in 0..128u8 {
                let text: String = "é~ ".chars().cycle().take(length).collect();
                let (before, behind) = (text.len(), format!("{text}{}\"{text}\"", char::from(byte)));
                let expected = if ends_plain(byte) { before } else { before + 1 };
                assert_eq!(plain_length(behind.as_bytes()), expected, "{byte} behind {before}");
            }
            assert_eq!(plain_length(&vec![b'a'; length]), length);
        }
    }

    #[test]
    fn a_string_ends_at_its_quote_and_has_no_escapes_or_control_characters() {
        let mut json = Plain(r#""é","b"#);
        assert_eq!(json.string(), Some("é"));
        assert_eq!(json.skip("]"), None);
        assert_eq!(json.skip(","), Some(()));
        assert_eq!(json.string(), None);
        for text in [r#""a\"""#, "\"a\nb\"", "\"a", "a\"", ""] {
            assert_eq!(Plain(text).string(), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_double_is_read_to_the_last_bit(double in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            proptest::prop_assert_eq!(Plain(&format!("{double},")).double().map(f64::to_bits), Some(double.to_bits()));
        }

        #[test]
        fn an_integer_of_up_to_eighteen_digits_is_read(integer in -999_999_999_999_999_999i64..=999_999_999_999_999_999) {
            proptest::prop_assert_eq!(Plain(&format!("{integer}}}")).integer(), Some(integer));
        }

        /// Numbers, and what is close to them.
        #[test]
        fn a_number_is_one_for_serde_json_too_and_the_same(number in "-?[0-9]{0,20}[-+.eE]?[0-9]{0,20}", end in "[,} ]") {
            let text = format!("{number}{end}");
            let (mut integer, mut double) = (Plain(&text), Plain(&text));
            if let Some(value) = integer.integer() {
                let read = text.strip_suffix(integer.0).unwrap();
                proptest::prop_assert_eq!(serde_json::from_str::<i64>(read).unwrap(), value);
            }
            if let Some(value) = double.double() {
                let read = text.strip_suffix(double.0).unwrap();
                proptest::prop_assert_eq!(serde_json::from_str::<f64>(read).unwrap().to_bits(), value.to_bits());
            }
        }
    }
}
