//! A record's value → a row, without building a JSON tree. What cannot become a row is refused with the reason.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use pipeline::dataset::{Dataset, Type};
use pipeline::record;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Record, Text};
use crate::plain::Plain;

/// The values of a batch's records, out of base64.
pub struct Payloads {
    bytes: Vec<u8>,
    /// Where each value lies, or why there is none.
    spans: Vec<Value<Range<usize>>>,
}

/// What a record holds, or why it holds nothing that could be read.
pub type Value<T> = Result<T, &'static str>;

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
        Payloads { bytes, spans }
    }

    /// One a record, in the batch's order.
    pub fn values(&self) -> Vec<Value<&str>> {
        // All at once: value by value takes several times as long.
        let text = simdutf8::basic::from_utf8(&self.bytes);
        let value = |span: Range<usize>| match text {
            // Two values can be UTF-8 together that are not each by itself.
            Ok(text) => text.get(span.clone()).or(span.is_empty().then_some("")).ok_or(NOT_UTF8),
            Err(_) => str::from_utf8(&self.bytes[span]).map_err(|_| NOT_UTF8),
        };
        self.spans.iter().map(|span| span.clone().and_then(value)).collect()
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
    fn clear(&mut self) {
        self.cells.clear();
        self.extra.clear();
        self.wrong.clear();
    }

    pub fn extra(&self) -> Option<&str> {
        (!self.extra.is_empty()).then_some(&*self.extra)
    }
}

pub struct Decoder {
    columns: Vec<Column>,
}

struct Column {
    name: String,
    /// What stands before its value: `{"name":` of the first, `,"name":` of the others. Names need no escapes: the
    /// dataset file allows letters, digits and `_`.
    key: String,
    kind: Type,
    required: bool,
}

impl Decoder {
    pub fn new(dataset: &Dataset) -> Decoder {
        let column = |(index, column): (usize, &pipeline::dataset::Column)| Column {
            name: column.name.clone(),
            key: format!("{}\"{}\":", if index == 0 { '{' } else { ',' }, column.name),
            kind: column.kind,
            required: column.required,
        };
        Decoder { columns: dataset.columns.iter().enumerate().map(column).collect() }
    }

    /// Fills `row` from a JSON object. Of a field that stands twice the last one counts, as everywhere in JSON.
    pub fn decode<'v>(&self, value: &'v str, row: &mut Row<'v>) -> Result<(), String> {
        match self.decode_plain(value, row) {
            Some(()) => Ok(()),
            None => self.decode_any(value, row),
        }
    }

    /// A record as the producer writes it: every column, in the dataset's order.
    fn decode_plain<'v>(&self, value: &'v str, row: &mut Row<'v>) -> Option<()> {
        row.clear();
        let mut json = Plain(value);
        for column in &self.columns {
            json.skip(&column.key)?;
            row.cells.push(column.plain_cell(&mut json)?);
        }
        json.skip("}")?;
        json.end()
    }

    fn decode_any<'v>(&self, value: &'v str, row: &mut Row<'v>) -> Result<(), String> {
        row.clear();
        row.cells.resize(self.columns.len(), Cell::Null);
        let mut json = serde_json::Deserializer::from_str(value);
        json.deserialize_any(RowVisitor { columns: &self.columns, row }).map_err(|e| e.to_string())?;
        json.end().map_err(|e| e.to_string())?;
        if !row.extra.is_empty() {
            row.extra.push('}');
        }
        if let Some((_, reason)) = row.wrong.first() {
            return Err(reason.clone());
        }
        for (column, cell) in self.columns.iter().zip(&row.cells) {
            if column.required && *cell == Cell::Null {
                return Err(format!("the required column `{}` is absent", column.name));
            }
        }
        Ok(())
    }
}

impl Column {
    fn plain_cell<'v>(&self, json: &mut Plain<'v>) -> Option<Cell<'v>> {
        if !self.required && json.skip("null").is_some() {
            return Some(Cell::Null);
        }
        Some(match self.kind {
            Type::String => Cell::Text(Cow::Borrowed(json.string()?)),
            Type::Boolean if json.skip("true").is_some() => Cell::Boolean(true),
            Type::Boolean => json.skip("false").map(|()| Cell::Boolean(false))?,
            Type::Integer => Cell::Integer(json.integer()?),
            Type::Double => Cell::Double(json.double()?),
            Type::Timestamp => Cell::Timestamp(record::timestamp_micros(json.string()?).ok()?),
        })
    }
}

struct RowVisitor<'a, 'v> {
    columns: &'a [Column],
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
                Some(column) if column.name == *name => Some(guess),
                _ => self.columns.iter().position(|column| column.name == *name),
            };
            let Some(at) = at else {
                push_extra(&mut self.row.extra, &name, map.next_value()?);
                continue;
            };
            guess = at + 1;
            let cell = map.next_value_seed(CellSeed(&self.columns[at]))?;
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

struct CellSeed<'a>(&'a Column);

impl CellSeed<'_> {
    fn refuse<'v>(&self, found: &str) -> Result<Cell<'v>, String> {
        Err(format!("column `{}` is {found}, expected {}", self.0.name, self.0.kind))
    }

    fn text<'v>(&self, text: Cow<'v, str>) -> Result<Cell<'v>, String> {
        match self.0.kind {
            Type::String => Ok(Cell::Text(text)),
            Type::Timestamp => match record::timestamp_micros(&text) {
                Ok(micros) => Ok(Cell::Timestamp(micros)),
                Err(reason) => Err(format!("column `{}` {reason}", self.0.name)),
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
        write!(f, "{} for column `{}`", self.0.kind, self.0.name)
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
        Ok(match self.0.kind {
            Type::Boolean => Ok(Cell::Boolean(value)),
            _ => self.refuse("a boolean"),
        })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(match self.0.kind {
            Type::Integer => Ok(Cell::Integer(value)),
            Type::Double => Ok(Cell::Double(value as f64)),
            _ => self.refuse("a number"),
        })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(match (self.0.kind, i64::try_from(value)) {
            (Type::Integer, Ok(value)) => Ok(Cell::Integer(value)),
            (Type::Integer, Err(_)) => self.refuse("a number beyond 64 bits"),
            (Type::Double, _) => Ok(Cell::Double(value as f64)),
            _ => self.refuse("a number"),
        })
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(match self.0.kind {
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
    use crate::event::Event;
    use pipeline::datasets;
    use serde_json::json;

    fn decode(value: &str) -> Result<Row<'_>, String> {
        let mut row = Row::default();
        Decoder::new(&datasets::load("names").unwrap()).decode(value, &mut row).map(|()| row)
    }

    fn text(text: &str) -> Cell<'_> {
        Cell::Text(text.into())
    }

    #[test]
    fn a_record_becomes_a_row_and_unnamed_fields_go_to_extra() {
        let row = decode(r#"{"email":"a@b","name":"Ms. \u00d6m\u00fcr","latitude":-1.5,"longitude":7,"new":[1,{"x":"y"}],"q\"":null}"#).unwrap();
        assert_eq!(row.cells[0], text("Ms. Ömür"));
        assert_eq!((&row.cells[6], &row.cells[7]), (&Cell::Double(-1.5), &Cell::Double(7.0)));
        assert_eq!(row.cells[5], Cell::Null);
        assert_eq!(row.extra(), Some(r#"{"new":[1,{"x":"y"}],"q\"":null}"#));
    }

    #[test]
    fn what_is_no_row_is_refused_with_the_reason() {
        for (value, reason) in [
            ("", "EOF"),
            ("not json", "expected"),
            ("[1]", "expected a JSON object"),
            ("7", "expected a JSON object"),
            (r#"{"name":"a"}"#, "required column `email` is absent"),
            (r#"{"name":null,"email":"e"}"#, "required column `name` is absent"),
            (r#"{"name":7,"email":"e"}"#, "column `name` is a number, expected string"),
            (r#"{"name":"a","email":"e","latitude":"1.5"}"#, "column `latitude` is a string, expected double"),
            (r#"{"name":"a","email":"e"} {}"#, "trailing"),
        ] {
            let error = decode(value).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
    }

    #[test]
    fn the_last_of_two_equal_fields_counts() {
        assert_eq!(decode(r#"{"name":"a","email":"e","name":"b"}"#).unwrap().cells[0], text("b"));
        decode(r#"{"name":7,"email":"e","name":"b"}"#).unwrap();
        assert!(decode(r#"{"name":"b","email":"e","name":7}"#).unwrap_err().contains("column `name` is a number"));
    }

    #[test]
    fn values_that_are_not_base64_or_not_utf8_harm_no_other() {
        let values = [Some("w6k="), Some("w6"), None, Some("wyI="), Some("e30="), Some(""), Some("qQ==")];
        let record = |(offset, value): (usize, &Option<&str>)| json!({"topic": "t", "partition": 0, "offset": offset, "timestamp": 0, "value": value});
        let records: Vec<_> = values.iter().enumerate().map(record).collect();
        let event = json!({"eventSource": "aws:kafka", "records": {"t-0": records}}).to_string();
        let event = Event::parse(event.as_bytes()).unwrap();
        let payloads = Payloads::decode(&event.batches()[0].records);
        assert_eq!(
            payloads.values(),
            [Ok("é"), Err(NOT_BASE64), Err(TOMBSTONE), Err(NOT_UTF8), Ok("{}"), Ok(""), Err(NOT_UTF8)]
        );
    }

    #[test]
    fn two_halves_of_a_character_are_not_utf8() {
        let event = br#"{"eventSource":"aws:kafka","records":{"t-0":[{"topic":"t","partition":0,"offset":0,"timestamp":0,"value":"ww=="},
            {"topic":"t","partition":0,"offset":1,"timestamp":0,"value":""},
            {"topic":"t","partition":0,"offset":2,"timestamp":0,"value":"qQ=="}]}}"#;
        let event = Event::parse(event).unwrap();
        let payloads = Payloads::decode(&event.batches()[0].records);
        assert_eq!(payloads.values(), [Err(NOT_UTF8), Ok(""), Err(NOT_UTF8)]);
    }

    /// Every record that differs in one place from a usual one.
    #[test]
    fn what_the_short_way_takes_the_long_way_takes_alike() {
        let decoder = Decoder {
            columns: [Type::String, Type::Boolean, Type::Integer, Type::Double, Type::Timestamp].map(column).into(),
        };
        let usual = r#"{"c0":"é1","c1":true,"c2":-70,"c3":10.25,"c4":"2026-11-23T05:06:07.25Z"}"#;
        let mut taken = 0;
        for at in (0..usual.len()).filter(|at| usual.is_char_boundary(*at)) {
            let (before, behind) = usual.split_at(at);
            let without = behind.chars().next().map_or(0, char::len_utf8);
            for piece in ["", "0", "-", ".", "e", "9", "\"", "\\", ",", "}", ":", " ", "\n", "é", "null", "\"c1\":"] {
                for behind in [behind, &behind[without..]] {
                    let value = format!("{before}{piece}{behind}");
                    let (mut short, mut long) = (Row::default(), Row::default());
                    if decoder.decode_plain(&value, &mut short).is_some() {
                        taken += 1;
                        assert_eq!(decoder.decode_any(&value, &mut long), Ok(()), "{value}");
                        assert_eq!((short.cells, short.extra), (long.cells, long.extra), "{value}");
                    }
                }
            }
        }
        assert!(taken > 100, "{taken}");
    }

    fn column(kind: Type) -> Column {
        let name = format!("c{}", kind as usize);
        Column { key: format!("{}\"{name}\":", if name == "c0" { '{' } else { ',' }), name, kind, required: false }
    }

    proptest::proptest! {
        /// The reference is serde_json's own tree: what it cannot read is refused, and nothing panics.
        #[test]
        fn arbitrary_text_is_a_row_or_refused(value in "\\PC{0,60}") {
            let ours = decode(&value);
            if serde_json::from_str::<serde_json::Value>(&value).is_err() {
                proptest::prop_assert!(ours.is_err());
            }
        }
    }
}
