//! An event and a record as a plain reader of JSON understands them, with nothing of the consumer's code.

use pipeline::dataset::{Dataset, Type};
use serde_json::{Map, Value};

/// Why there is nothing to read.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No JSON to this reader. Another one may pass over what it does not look at.
    NoJson(String),
    Wrong(String),
}

#[derive(Debug, Clone)]
pub struct Delivered {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The event's records, in the order of their keys.
pub fn event(payload: &[u8]) -> Result<Vec<Delivered>, Refusal> {
    let event: Value = serde_json::from_slice(payload).map_err(|e| Refusal::NoJson(e.to_string()))?;
    let wrong = |what: &str| Refusal::Wrong(what.to_owned());
    let event = event.as_object().ok_or_else(|| wrong("no object"))?;
    let source = text(event, "eventSource")?;
    if !matches!(source.as_deref(), Some("aws:kafka" | "SelfManagedKafka")) {
        return Err(wrong("eventSource"));
    }
    text(event, "eventSourceArn")?;
    let mut delivered = Vec::new();
    let partitions = match event.get("records") {
        None | Some(Value::Null) => return Ok(delivered),
        Some(records) => records.as_object().ok_or_else(|| wrong("records"))?,
    };
    let mut keys: Vec<&String> = partitions.keys().collect();
    keys.sort();
    for key in keys {
        for record in partitions[key].as_array().ok_or_else(|| wrong("records"))? {
            let record = record.as_object().ok_or_else(|| wrong("record"))?;
            let number = |name: &str| record.get(name).and_then(Value::as_i64).ok_or_else(|| wrong(name));
            text(record, "timestampType")?;
            delivered.push(Delivered {
                topic: text(record, "topic")?.ok_or_else(|| wrong("topic"))?,
                partition: i32::try_from(number("partition")?).map_err(|_| wrong("partition"))?,
                offset: number("offset")?,
                timestamp: number("timestamp")?,
                key: text(record, "key")?,
                value: text(record, "value")?,
                headers: record.get("headers").and_then(headers).unwrap_or_default(),
            });
        }
    }
    if delivered.iter().any(|r| r.offset < 0 || r.offset == i64::MAX || r.partition < 0) {
        return Err(wrong("impossible offset"));
    }
    Ok(delivered)
}

fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::Wrong(name.to_owned())),
    }
}

/// Java's signed bytes; `None` where anything is otherwise.
fn headers(value: &Value) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let mut found = Vec::new();
    for header in value.as_array()? {
        let mut members: Vec<_> = header.as_object()?.iter().collect();
        members.sort_by_key(|(name, _)| *name);
        for (name, value) in members {
            let bytes = match value {
                Value::Null => None,
                value => {
                    let byte = |b: &Value| Some((i16::try_from(b.as_i64()?).ok()? & 0xff) as u8);
                    Some(value.as_array()?.iter().map(byte).collect::<Option<Vec<u8>>>()?)
                }
            };
            found.push((name.clone(), bytes));
        }
    }
    Some(found)
}

#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// Microseconds since 1970.
    Timestamp(i64),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In the order of the dataset's columns.
    pub cells: Vec<Cell>,
    /// Fields that no column names.
    pub extra: Map<String, Value>,
}

pub fn row(dataset: &Dataset, value: &[u8]) -> Result<Row, Refusal> {
    let value: Value = serde_json::from_slice(value).map_err(|e| Refusal::NoJson(e.to_string()))?;
    let Value::Object(mut fields) = value else { return Err(Refusal::Wrong("no object".to_owned())) };
    let mut cells = Vec::new();
    for column in &dataset.columns {
        let cell = match (column.kind, fields.remove(&column.name).unwrap_or_default()) {
            (_, Value::Null) => Some(Cell::Null).filter(|_| !column.required),
            (Type::String, Value::String(text)) => Some(Cell::Text(text)),
            (Type::Boolean, Value::Bool(value)) => Some(Cell::Boolean(value)),
            (Type::Integer, Value::Number(number)) => number.as_i64().map(Cell::Integer),
            (Type::Double, Value::Number(number)) => number.as_f64().map(Cell::Double),
            (Type::Timestamp, Value::String(text)) => {
                pipeline::record::timestamp_micros(&text).ok().map(Cell::Timestamp)
            }
            _ => None,
        };
        cells.push(cell.ok_or_else(|| Refusal::Wrong(column.name.clone()))?);
    }
    Ok(Row { cells, extra: fields })
}

/// RFC 4648 with padding, and nothing else.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == digit)?;
        (bits, held) = (bits << 6 | value as u32, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// `2026-11-23 05:06:07.000000`; what lies outside of the years 1 to 9999 is their end.
pub fn sql_time(micros: i64) -> String {
    const SECOND: i64 = 1_000_000;
    // The last hours of 9999 are left out by the library that the consumer uses.
    let micros = micros.clamp(-62_135_596_800 * SECOND, 253_402_207_200 * SECOND + 999_999);
    let (days, rest) = (micros.div_euclid(86_400 * SECOND), micros.rem_euclid(86_400 * SECOND));
    // http://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (rest / SECOND, rest % SECOND);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:06}")
}
