//! A record's value → a row, without building a JSON tree. What cannot become a row is refused with the reason.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use pipeline::dataset::{Dataset, Type};
use pipeline::record;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Record, Text};

/// The values of a batch's records, out of base64, in one text.
pub struct Payloads {
    text: String,
    /// Where each value lies in it, or why there is none.
    spans: Vec<Result<Range<usize>, &'static str>>,
}

const TOMBSTONE: &str = "the value is null (a tombstone)";
const NOT_BASE64: &str = "the event's value is not base64";
const NOT_UTF8: &str = "the value is not UTF-8";

impl Payloads {
    pub fn decode(records: &[&Record]) -> Payloads {
        let size = records.iter().filter_map(|r| r.value.as_ref()).map(|value| value.len() / 4 * 3).sum();
        let mut bytes = Vec::with_capacity(size);
        let mut spans = Vec::with_capacity(records.len());
        for record in records {
            let start = bytes.len();
            spans.push(match &record.value {
                None => Err(TOMBSTONE),
                Some(value) => match base64_simd::STANDARD.decode_append(value.as_bytes(), &mut bytes) {
                    Ok(_) => Ok(start..bytes.len()),
                    Err(_) => {
                        bytes.truncate(start);
                        Err(NOT_BASE64)
                    }
                },
            });
        }
        // All at once: value by value takes three times as long.
        match String::from_utf8(bytes) {
            Ok(text) => Payloads { text, spans },
            Err(error) => Payloads::only_utf8(error.as_bytes(), &spans),
        }
    }

    /// At least one value is not UTF-8.
    fn only_utf8(bytes: &[u8], spans: &[Result<Range<usize>, &'static str>]) -> Payloads {
        let mut text = String::with_capacity(bytes.len());
        let mut move_over = |span: Range<usize>| {
            let start = text.len();
            text.push_str(str::from_utf8(&bytes[span]).map_err(|_| NOT_UTF8)?);
            Ok(start..text.len())
        };
        let spans = spans.iter().map(|span| span.clone().and_then(&mut move_over)).collect();
        Payloads { text, spans }
    }

    /// The value of the batch's record at `index`, or why it has none.
    pub fn get(&self, index: usize) -> Result<&str, &'static str> {
        match self.spans.get(index) {
            // Two values can be UTF-8 together that are not each by itself.
            Some(Ok(span)) => self.text.get(span.clone()).ok_or(NOT_UTF8),
            Some(Err(reason)) => Err(reason),
            None => Err(TOMBSTONE),
        }
    }
}

/// One cell of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'v> {
    Null,
    /// Borrowed from the record where nothing in it is escaped, and only there.
    Text(Cow<'v, str>),
    Boolean(bool),
    Integer(i64),
    Double(f64),
    /// Microseconds since 1970 UTC.
    Timestamp(i64),
}

/// The row that is being decoded; its buffers are used again for the next one.
#[derive(Debug, Default)]
pub struct Row<'v> {
    /// One a column of the dataset, in its order.
    pub cells: Vec<Cell<'v>>,
    /// A JSON object of the fields that no column names; empty where there are none.
    extra: String,
    /// Columns whose value is none of theirs, each with the reason. A later field of the same name may still be right.
    wrong: Vec<(usize, String)>,
}

impl Row<'_> {
    pub fn extra(&self) -> Option<&str> {
        (!self.extra.is_empty()).then_some(&*self.extra)
    }
}

pub struct Decoder {
    columns: Vec<(String, Type, bool)>,
}

impl Decoder {
    pub fn new(dataset: &Dataset) -> Decoder {
        Decoder { columns: dataset.columns.iter().map(|c| (c.name.clone(), c.kind, c.required)).collect() }
    }

    /// Fills `row` from a JSON object. Of a field that stands twice the last one counts, as everywhere in JSON.
    pub fn decode<'v>(&self, value: &'v str, row: &mut Row<'v>) -> Result<(), String> {
        row.cells.clear();
        row.cells.resize(self.columns.len(), Cell::Null);
        row.extra.clear();
        row.wrong.clear();
        let mut json = serde_json::Deserializer::from_str(value);
        json.deserialize_any(RowVisitor { columns: &self.columns, row }).map_err(|e| e.to_string())?;
        json.end().map_err(|e| e.to_string())?;
        if !row.extra.is_empty() {
            row.extra.push('}');
        }
        if let Some((_, reason)) = row.wrong.first() {
            return Err(reason.clone());
        }
        for ((name, _, required), cell) in self.columns.iter().zip(&row.cells) {
            if *required && *cell == Cell::Null {
                return Err(format!("the required column `{name}` is absent"));
            }
        }
        Ok(())
    }
}

struct RowVisitor<'a, 'v> {
    columns: &'a [(String, Type, bool)],
    row: &'a mut Row<'v>,
}

impl<'v> Visitor<'v> for RowVisitor<'_, 'v> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<(), A::Error> {
        // Records name their fields in the columns' order: the next column is the first guess.
        let mut guess = 0;
        while let Some(name) = map.next_key::<Text<'v>>()? {
            let at = match self.columns.get(guess) {
                Some((column, ..)) if *column == *name => Some(guess),
                _ => self.columns.iter().position(|(column, ..)| *column == *name),
            };
            let Some(at) = at else {
                push_extra(&mut self.row.extra, &name, map.next_value()?);
                continue;
            };
            guess = at + 1;
            let (column, kind, _) = &self.columns[at];
            let cell = map.next_value_seed(CellSeed { column, kind: *kind })?;
            self.row.wrong.retain(|(column, _)| *column != at);
            self.row.cells[at] = cell.unwrap_or_else(|reason| {
                self.row.wrong.push((at, reason));
                Cell::Null
            });
        }
        Ok(())
    }
}

fn push_extra(extra: &mut String, name: &str, value: &RawValue) {
    extra.push(if extra.is_empty() { '{' } else { ',' });
    extra.push_str(&serde_json::Value::from(name).to_string());
    extra.push(':');
    extra.push_str(value.get());
}

struct CellSeed<'a> {
    column: &'a str,
    kind: Type,
}

impl CellSeed<'_> {
    fn refuse<'v>(&self, found: &str) -> Result<Cell<'v>, String> {
        Err(format!("column `{}` is {found}, expected {}", self.column, self.kind))
    }

    fn text<'v>(&self, text: Cow<'v, str>) -> Result<Cell<'v>, String> {
        match self.kind {
            Type::String => Ok(Cell::Text(text)),
            Type::Timestamp => match record::timestamp_micros(&text) {
                Ok(micros) => Ok(Cell::Timestamp(micros)),
                Err(reason) => Err(format!("column `{}` {reason}", self.column)),
            },
            _ => self.refuse("a string"),
        }
    }
}

/// Only what is no JSON ends the reading; a value of another type is a reason within it.
impl<'de> DeserializeSeed<'de> for CellSeed<'_> {
    type Value = Result<Cell<'de>, String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CellSeed<'_> {
    type Value = Result<Cell<'de>, String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} for column `{}`", self.kind, self.column)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Ok(Cell::Null))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(self.text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(match self.kind {
            Type::Boolean => Ok(Cell::Boolean(value)),
            _ => self.refuse("a boolean"),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(match self.kind {
            Type::Integer => Ok(Cell::Integer(value)),
            Type::Double => Ok(Cell::Double(value as f64)),
            _ => self.refuse("a number"),
        })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(match (self.kind, i64::try_from(value)) {
            (Type::Integer, Ok(value)) => Ok(Cell::Integer(value)),
            (Type::Integer, Err(_)) => self.refuse("a number beyond 64 bits"),
            (Type::Double, _) => Ok(Cell::Double(value as f64)),
            _ => self.refuse("a number"),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(match self.kind {
            Type::Double => Ok(Cell::Double(value)),
            Type::Integer => self.refuse("a number beyond 64 bits, or with a fraction or an exponent"),
            _ => self.refuse("a number"),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.refuse("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.refuse("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline::datasets;

    fn decode(value: &[u8]) -> Result<Row, String> {
        let mut row = Row::default();
        Decoder::new(&datasets::load("names").unwrap()).decode(value, &mut row).map(|()| row)
    }

    #[test]
    fn a_record_becomes_a_row_and_unnamed_fields_go_to_extra() {
        let row = decode(br#"{"email":"a@b","name":"Ms. \u00d6m\u00fcr","latitude":-1.5,"longitude":7,"new":[1,{"x":"y"}],"q\"":null}"#).unwrap();
        let Cell::Text(name) = &row.cells[0] else { panic!() };
        assert_eq!(row.text(name), "Ms. Ömür");
        assert_eq!((&row.cells[6], &row.cells[7]), (&Cell::Double(-1.5), &Cell::Double(7.0)));
        assert_eq!(row.cells[5], Cell::Null);
        assert_eq!(row.extra(), Some(r#"{"new":[1,{"x":"y"}],"q\"":null}"#));
    }

    #[test]
    fn what_is_no_row_is_refused_with_the_reason() {
        let cases: [(&[u8], &str); 10] = [
            (b"", "EOF"),
            (b"not json", "expected"),
            (b"[1]", "expected a JSON object"),
            (b"7", "expected a JSON object"),
            (br#"{"name":"a"}"#, "required column `email` is absent"),
            (br#"{"name":null,"email":"e"}"#, "required column `name` is absent"),
            (br#"{"name":7,"email":"e"}"#, "column `name` is a number, expected string"),
            (br#"{"name":"a","email":"e","latitude":"1.5"}"#, "column `latitude` is a string, expected double"),
            (b"{\"name\":\"\xff\",\"email\":\"e\"}", "unicode"),
            (br#"{"name":"a","email":"e"} {}"#, "trailing"),
        ];
        for (value, reason) in cases {
            let error = decode(value).unwrap_err();
            assert!(error.contains(reason), "{}: {error}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn the_last_of_two_equal_fields_counts() {
        let row = decode(br#"{"name":"a","email":"e","name":"b"}"#).unwrap();
        let Cell::Text(name) = &row.cells[0] else { panic!() };
        assert_eq!(row.text(name), "b");
        decode(br#"{"name":7,"email":"e","name":"b"}"#).unwrap();
        assert!(decode(br#"{"name":"b","email":"e","name":7}"#).unwrap_err().contains("column `name` is a number"));
    }

    proptest::proptest! {
        /// The reference is serde_json's own tree: what it cannot read is refused, and nothing panics.
        #[test]
        fn arbitrary_bytes_are_a_row_or_refused(value in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let ours = decode(&value);
            if serde_json::from_slice::<serde_json::Value>(&value).is_err() {
                proptest::prop_assert!(ours.is_err());
            }
        }
    }
}
