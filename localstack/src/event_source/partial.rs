//! The answer of a function that reports failed records (`ReportBatchItemFailures`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::batch::Record;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    batch_item_failures: Option<Vec<Item>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    item_identifier: Identifier,
}

#[derive(Deserialize)]
struct Identifier {
    /// `topic-0`
    partition: String,
    offset: i64,
}

/// The lowest failed offset per partition; empty when all is well. AWS takes an empty answer, `null` and an empty list
/// as success, and what it cannot understand as a failure of the whole batch.
pub(super) fn failed_items(response: &[u8], topic: &str, records: &[Record]) -> Result<BTreeMap<i32, i64>, String> {
    if response.trim_ascii().is_empty() {
        return Ok(BTreeMap::new());
    }
    let response: Option<Response> = serde_json::from_slice(response).map_err(|error| {
        format!("the response is no {{\"batchItemFailures\": […]}} ({error}); correct the function")
    })?;
    let mut failed = BTreeMap::new();
    for Item { item_identifier: Identifier { partition, offset } } in
        response.and_then(|response| response.batch_item_failures).unwrap_or_default()
    {
        let number = partition.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-')).and_then(|n| n.parse().ok());
        let known =
            number.filter(|number| records.iter().any(|record| record.partition == *number && record.offset == offset));
        let Some(number) = known else {
            return Err(format!(
                "the response names {partition} offset {offset}, which was not in the batch; correct the function"
            ));
        };
        let lowest = failed.entry(number).or_insert(offset);
        *lowest = offset.min(*lowest);
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn records() -> Vec<Record> {
        let record = |partition, offset| Record {
            partition,
            offset,
            timestamp: 0,
            generation: 0,
            received: Instant::now(),
            json: bytes::Bytes::new(),
        };
        vec![record(0, 5), record(0, 6), record(1, 9)]
    }

    #[test]
    fn nothing_null_and_an_empty_list_are_success() {
        for response in ["", "null", "{}", r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#] {
            assert_eq!(failed_items(response.as_bytes(), "t", &records()), Ok(BTreeMap::new()), "{response}");
        }
    }

    #[test]
    fn the_lowest_offset_of_a_partition_counts() {
        let response = r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"t-0","offset":6}},
            {"itemIdentifier":{"partition":"t-0","offset":5}},{"itemIdentifier":{"partition":"t-1","offset":9}}]}"#;
        assert_eq!(failed_items(response.as_bytes(), "t", &records()), Ok(BTreeMap::from([(0, 5), (1, 9)])));
    }

    #[test]
    fn what_cannot_be_understood_fails_the_batch() {
        let unknown = r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"t-2","offset":6}}]}"#;
        for response in ["7", r#"{"batchItemFailures":7}"#, unknown] {
            assert!(failed_items(response.as_bytes(), "t", &records()).is_err(), "{response}");
        }
    }
}
