//! A record on the topic: one flat JSON object, a field a column. How each type is written there, and read back.
//!
//! | type | JSON | read as |
//! |---|---|---|
//! | string | string | UTF-8 |
//! | boolean | true, false | boolean |
//! | integer | number without fraction, within 64 bits | i64 |
//! | double | number | f64 |
//! | timestamp | string, RFC 3339, any offset | microseconds since 1970 UTC |

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use jmespath::{Rcvar, Variable};
use serde_json::Value;
use sha2::Sha256;

use crate::dataset::{Column, Expression, Type};

/// The key of hashed columns. Prints as nothing, so that it reaches no log.
#[derive(Clone)]
pub struct HashKey(Vec<u8>);

impl HashKey {
    /// `None` for a key under 16 bytes: a short one can be found by trying.
    pub fn new(key: &str) -> Option<HashKey> {
        (key.len() >= 16).then(|| HashKey(key.as_bytes().to_vec()))
    }

    /// HMAC-SHA256 of a text, as 64 hex digits.
    pub fn hash(&self, text: &str) -> String {
        // Any length of key is valid for HMAC: the error type exists for other MACs, and `default` is never reached.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// Evaluates an expression. `Expression::search` would serialise the element into a copy of itself first, for every column.
/// The error names functions and types, never a value.
pub fn extract(expression: &Expression, element: &Rcvar) -> Result<Rcvar, String> {
    let mut context = jmespath::Context::new(expression.as_str(), &jmespath::DEFAULT_RUNTIME);
    let reason = |e: jmespath::JmespathError| format!("has an expression that fails here: {}", e.reason);
    jmespath::interpret(element, expression.as_ast(), &mut context).map_err(reason)
}

/// What a column's expression yielded, as the record's JSON. A hashed column is not hashed here.
pub fn to_json(column: &Column, extracted: &Variable) -> Result<Value, String> {
    let value = match (column.kind, extracted) {
        (_, Variable::Null) if column.required => return Err("is required and absent".to_owned()),
        (_, Variable::Null) => Value::Null,
        (Type::String, Variable::String(text)) => Value::String(text.clone()),
        (Type::Boolean, Variable::Bool(value)) => Value::Bool(*value),
        (Type::Integer, Variable::Number(number)) => match integer(number) {
            Some(integer) => Value::from(integer),
            None => return Err("is a number, but no 64-bit integer".to_owned()),
        },
        (Type::Double, Variable::Number(number)) => Value::Number(number.clone()),
        (Type::Timestamp, Variable::String(text)) => Value::String(timestamp(text)?.to_string()),
        (kind, other) => return Err(format!("is of JSON type {}, expected {kind}", other.get_type())),
    };
    Ok(value)
}

/// JMESPath functions answer floats, also for whole numbers.
fn integer(number: &serde_json::Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        // Up to 2^53 a float holds each integer exactly.
        (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i64)
    })
}

/// Microseconds since 1970 UTC of an RFC 3339 text.
pub fn timestamp_micros(text: &str) -> Result<i64, String> {
    timestamp(text).map(Timestamp::as_microsecond)
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "is no RFC 3339 timestamp such as 2026-11-23T05:06:07Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Type, required: bool) -> Column {
        let expression = jmespath::compile("@").unwrap();
        Column { id: 100, name: "c".into(), kind, required, hashed: false, expression, description: String::new() }
    }

    fn json(kind: Type, extracted: &str) -> Result<Value, String> {
        to_json(&column(kind, true), &Variable::from_json(extracted).unwrap())
    }

    #[test]
    fn values_of_the_columns_type_pass_and_others_are_refused() {
        assert_eq!(json(Type::Integer, "7").unwrap(), 7);
        assert_eq!(json(Type::Integer, "7.0").unwrap(), 7);
        assert!(json(Type::Integer, "7.5").is_err());
        assert!(json(Type::Integer, "9223372036854775808").is_err());
        assert_eq!(json(Type::Double, "-1").unwrap(), -1);
        assert_eq!(json(Type::Timestamp, "\"2026-11-23T06:00:00.5+01:00\"").unwrap(), "2026-11-23T05:00:00.5Z");
        assert!(json(Type::Timestamp, "\"yesterday\"").is_err());
        assert!(json(Type::String, "1").unwrap_err().contains("expected string"));
        assert!(json(Type::String, "null").unwrap_err().contains("required"));
        assert_eq!(to_json(&column(Type::String, false), &Variable::Null).unwrap(), Value::Null);
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        // Computed by other means, Python: hmac.new(b"0123456789abcdef", b"8261", "sha256").hexdigest()
        let key = HashKey::new("0123456789abcdef").unwrap();
        assert_eq!(key.hash("8261"), "3b29592ed493561c96e271612d11c1641de50623ebe21ed02fe7b8c3073783d4");
        assert_eq!(format!("{key:?}"), "HashKey(…)");
        assert!(HashKey::new("short").is_none());
    }
}
