//! The decoder against a plain reader of JSON: the same rows, the same refusals.

use consumer::decode::{Cell, Decoder, Row};
use fastrand::Rng;
use pipeline::dataset::{Dataset, Type};
use serde_json::{Map, Value};

use super::json::{Json, any_bytes, damage, interesting};
use super::reference::{self, Refusal};
use super::{any, one_in};

/// The two datasets of this repository, in a format that is easily read back, and one in the other format.
pub fn datasets() -> Vec<Dataset> {
    let names = include_str!("../../datasets/names.yaml");
    let orders = include_str!("../datasets/orders.yaml");
    let ndjson = |text: &str| {
        let text = text.replace("format: parquet", "format: ndjson");
        text.replace("codec: zstd", "codec: gzip").replace("codec: snappy", "codec: gzip")
    };
    let texts = [("names.yaml", ndjson(names)), ("orders.yaml", ndjson(orders)), ("orders.yaml", orders.to_owned())];
    texts.map(|(file, text)| Dataset::parse(file, &text).unwrap()).to_vec()
}

/// A record that fits the dataset.
pub fn row(dataset: &Dataset, rng: &mut Rng) -> Json {
    let mut fields = Vec::new();
    for column in &dataset.columns {
        if !column.required && one_in(rng, 4) {
            if rng.bool() {
                fields.push((column.name.clone(), Json::Raw("null".to_owned())));
            }
            continue;
        }
        let value = match column.kind {
            Type::String => Json::Text(format!("{} é {}", column.name, rng.u16(..))),
            Type::Boolean => Json::Raw(rng.bool().to_string()),
            Type::Integer => Json::Raw(rng.i64(-1_000..1_000_000).to_string()),
            Type::Double => Json::Raw(format!("{}", rng.i32(..) as f64 / 64.0)),
            Type::Timestamp => Json::Text(format!("2026-11-2{}T05:06:{:02}.25+01:00", rng.u8(..10), rng.u8(..60))),
        };
        fields.push((column.name.clone(), value));
    }
    if one_in(rng, 4) {
        fields.push(("shoe".to_owned(), interesting(rng)));
    }
    if one_in(rng, 6) {
        rng.shuffle(&mut fields);
    }
    Json::Object(fields)
}

/// The bytes of a record that fits, nearly fits, or does not.
pub fn value(dataset: &Dataset, rng: &mut Rng) -> Vec<u8> {
    if one_in(rng, 16) {
        return any_bytes(rng);
    }
    let mut tree = row(dataset, rng);
    for _ in 0..any(rng, &[0, 0, 1, 1, 2, 5]) {
        tree.mutate(rng);
    }
    let (escaped, spaces) = (any(rng, &[0, 0, 3]), one_in(rng, 3));
    let mut bytes = tree.write(escaped, spaces, rng).into_bytes();
    if one_in(rng, 3) {
        let other = row(dataset, rng).plain().into_bytes();
        for _ in 0..rng.usize(1..4) {
            damage(&mut bytes, &other, rng);
        }
    }
    bytes
}

pub fn cases() -> impl FnMut(&mut Rng) {
    let datasets = datasets();
    let decoders: Vec<Decoder> = datasets.iter().map(Decoder::new).collect();
    let mut before = String::new();
    move |rng| {
        let at = rng.usize(..datasets.len());
        let bytes = value(&datasets[at], rng);
        check(&datasets[at], &decoders[at], &before, &bytes);
        before = String::from_utf8_lossy(&bytes).into_owned();
    }
}

/// The same row, or refused by both. Nothing of the record `before` may be found in it.
pub fn check(dataset: &Dataset, decoder: &Decoder, before: &str, bytes: &[u8]) {
    let shown = || shorten(bytes);
    let expected = reference::row(dataset, bytes);
    let Ok(text) = str::from_utf8(bytes) else {
        return assert!(expected.is_err(), "{}", shown());
    };
    let mut row = Row::default();
    let _ = decoder.decode(before, &mut row);
    match (decoder.decode(text, &mut row), expected) {
        (Err(reason), Err(_)) => assert!(!reason.is_empty(), "{}", shown()),
        (Ok(()), Ok(expected)) => {
            let cells: Vec<reference::Cell> = row.cells.iter().map(cell_of).collect();
            assert_eq!(cells, expected.cells, "{}", shown());
            let extra = row.extra().map(|text| serde_json::from_str::<Map<String, Value>>(text).unwrap());
            assert_eq!(extra.unwrap_or_default(), expected.extra, "{}", shown());
        }
        (Ok(()), Err(refusal)) => {
            assert!(is_passed_over(&refusal), "{refusal:?}: {}", shown());
            let finite = |cell: &Cell| !matches!(cell, Cell::Double(value) if !value.is_finite());
            assert!(row.cells.iter().all(finite), "{}", shown());
        }
        (Err(reason), Ok(_)) => panic!("refused, as {reason}: {}", shown()),
    }
}

/// Fields that no column names are kept as they are written, and a column's value that a later one replaces is passed over:
/// what in them only some readers of JSON take does not matter.
pub fn is_passed_over(refusal: &Refusal) -> bool {
    let Refusal::NoJson(reason) = refusal else { return false };
    let by_taste = ["number out of range", "recursion limit", "surrogate", "hex escape", "unicode code point"];
    by_taste.iter().any(|part| reason.contains(part))
}

fn cell_of(cell: &Cell) -> reference::Cell {
    match cell {
        Cell::Null => reference::Cell::Null,
        Cell::Text(text) => reference::Cell::Text(text.clone().into_owned()),
        Cell::Boolean(value) => reference::Cell::Boolean(*value),
        Cell::Integer(value) => reference::Cell::Integer(*value),
        Cell::Double(value) => reference::Cell::Double(*value),
        Cell::Timestamp(micros) => reference::Cell::Timestamp(*micros),
    }
}

pub fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(3_000) {
        Some((at, _)) => format!("{} … of {} bytes", &text[..at], bytes.len()),
        None => text.into_owned(),
    }
}
