//! The lake against what was produced, record by record.

use std::collections::{BTreeMap, BTreeSet};

use freshet::Lake;
use freshet::query::query_json;
use pipeline::record::timestamp_micros;
use serde_json::{Map, Value};

use super::orders::{Expected, Place, Stored};

/// How many of a kind are named.
const NAMED: usize = 5;

#[derive(Debug, Default)]
pub struct Comparison {
    pub duplicates: u64,
    /// Records that are nowhere, or not as they were produced.
    pub losses: u64,
    /// Which.
    pub examples: Vec<String>,
}

/// `since`: the first day, in milliseconds since 1970, of which everything is expected.
pub async fn compare(
    lake: &Lake,
    since: i64,
    expected: &BTreeMap<Place, Expected>,
) -> Result<Comparison, freshet::Error> {
    let (table, day) = (&lake.dataset.name, &freshet::text::time(since)[..10]);
    let rows = query_json(lake, &format!("SELECT * FROM {table} WHERE dt >= '{day}'")).await?;
    let letters =
        format!("SELECT epoch, \"partition\", \"offset\", payload FROM {table}_dead_letters WHERE dt >= '{day}'");
    let letters = query_json(lake, &letters).await?;
    Ok(hold_against(&rows, &letters, expected))
}

fn hold_against(rows: &[Value], letters: &[Value], expected: &BTreeMap<Place, Expected>) -> Comparison {
    let mut compared = Comparison::default();
    let mut example = |what: &str, place: &Place| {
        if compared.examples.len() < NAMED {
            let (epoch, partition, offset) = place;
            compared.examples.push(format!("offset {offset} of partition {partition}, epoch {epoch}: {what}"));
        }
    };
    let mut found = BTreeSet::new();
    for row in rows {
        let place = place(row, ["_epoch", "_partition", "_offset"]);
        match expected.get(&place) {
            Some(Expected { timestamp, stored: Stored::Row(columns), .. }) => {
                if !found.insert(place) {
                    compared.duplicates += 1;
                    example("stored again", &place);
                } else if !same(columns, *timestamp, row) {
                    compared.losses += 1;
                    example("not as it was produced", &place);
                }
            }
            _ => {
                compared.duplicates += 1;
                example("a row of nothing that was produced", &place);
            }
        }
    }
    // Letters are stored at least once.
    let mut lettered = BTreeSet::new();
    for letter in letters {
        let place = place(letter, ["epoch", "partition", "offset"]);
        let payload = letter["payload"].as_str().map(|text| base64_simd::STANDARD.decode_to_vec(text).unwrap());
        match expected.get(&place) {
            Some(Expected { stored: Stored::Letter(produced), .. }) if payload.as_ref() == Some(produced) => {
                lettered.insert(place);
            }
            _ => {
                compared.duplicates += 1;
                example("a dead letter of nothing that was produced", &place);
            }
        }
    }
    for (place, expected) in expected {
        let there = match expected.stored {
            Stored::Row(_) => &found,
            Stored::Letter(_) => &lettered,
        };
        if !there.contains(place) && !expected.may_be_gone {
            compared.losses += 1;
            example("lost", place);
        }
    }
    compared
}

fn place(row: &Value, [epoch, partition, offset]: [&str; 3]) -> Place {
    let number = |name: &str| row[name].as_i64().unwrap();
    (number(epoch) as u32, number(partition) as i32, number(offset))
}

fn same(columns: &Map<String, Value>, timestamp: i64, row: &Value) -> bool {
    // An instant, however the engine writes its zone and fraction.
    let micros = |value: &Value| value.as_str().and_then(|text| timestamp_micros(text).ok());
    let equal = |(name, value): (&String, &Value)| match name.as_str() {
        "ordered_at" => micros(value).is_some() && micros(value) == micros(&row[name]),
        _ => *value == row[name],
    };
    columns.iter().all(equal) && micros(&row["_timestamp"]) == Some(timestamp * 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(offset: i64, order: i64) -> Value {
        json!({"_epoch": 0, "_partition": 1, "_offset": offset, "_timestamp": "1970-01-01T00:00:01Z", "order_id": order,
               "ordered_at": "1970-01-01T00:00:02.5Z"})
    }

    fn compared(rows: &[Value], letters: &[Value]) -> (u64, u64) {
        let columns = json!({"order_id": 7, "ordered_at": "1970-01-01T00:00:02.500Z"});
        let columns = columns.as_object().unwrap().clone();
        let expected = [Stored::Row(columns), Stored::Letter(b"junk".to_vec())];
        let places = (0..)
            .zip(expected)
            .map(|(n, stored)| ((0, 1, n), Expected { timestamp: 1_000, stored, may_be_gone: false }));
        let compared = hold_against(rows, letters, &places.collect());
        assert_eq!(compared.examples.is_empty(), compared.duplicates + compared.losses == 0, "{compared:?}");
        (compared.duplicates, compared.losses)
    }

    #[test]
    fn a_row_again_a_row_too_few_and_a_row_that_differs_are_told_apart() {
        let letter = json!({"epoch": 0, "partition": 1, "offset": 1, "payload": "anVuaw=="});
        let letters = [letter.clone(), letter];
        assert_eq!(compared(&[row(0, 7)], &letters), (0, 0), "letters may come twice");
        assert_eq!(compared(&[row(0, 7), row(0, 7)], &letters), (1, 0));
        assert_eq!(compared(&[], &letters), (0, 1));
        assert_eq!(compared(&[row(0, 8)], &letters), (0, 1));
        assert_eq!(compared(&[row(0, 7), row(2, 7)], &letters), (1, 0));
        assert_eq!(compared(&[row(0, 7), row(1, 7)], &letters), (1, 0), "junk is no row");
        assert_eq!(compared(&[row(0, 7)], &[]), (0, 1));
    }
}
