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
        let end = memchr::memchr2(b'"', b'\\', rest.as_bytes())?;
        let (text, rest) = rest.split_at_checked(end)?;
        let has_no_control_characters = text.bytes().fold(true, |none, byte| none & (byte >= b' '));
        self.0 = rest.strip_prefix('"').filter(|_| has_no_control_characters)?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
