//! `freshet ledger show`.

use std::io::Write;
use std::process::ExitCode;

use pipeline::lake::Store;
use serde_json::{Value, json};

use super::Topic;
use crate::verify::collect::ledgers;
use crate::verify::inventory::LedgerObject;
use crate::{Error, Target, text};

/// Exit status 1 where a ledger cannot be read.
pub async fn show<S: Store>(
    store: &S,
    target: &Target,
    topic: Option<&Topic>,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<ExitCode, Error> {
    let (ledgers, _) = ledgers(store, target).await?;
    let text = if as_json { json_text(&ledgers, target, topic) } else { table_text(&ledgers, target, topic) };
    out.write_all(text.as_bytes())?;
    let unreadable = ledgers.iter().any(|found| found.ledger.is_err());
    Ok(if unreadable { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// How many offsets the topic holds that are not stored; of the dataset's topic alone.
fn lag(found: &LedgerObject, target: &Target, topic: Option<&Topic>) -> Option<i64> {
    let watermarks = topic.filter(|_| found.topic == target.topic)?.get(&found.partition)?;
    Some(watermarks.high - found.ledger.as_ref().ok()?.next_offset)
}

fn table_text(ledgers: &[LedgerObject], target: &Target, topic: Option<&Topic>) -> String {
    if ledgers.is_empty() {
        let place = format!("s3://{}/{}", target.bucket, target.layout.ledgers());
        return format!(
            "There is no ledger under {place}: nothing was stored yet, or the bucket or a prefix is another one.\n"
        );
    }
    let mut unreadable = String::new();
    let mut rows = Vec::new();
    for found in ledgers {
        match &found.ledger {
            Err(reason) => unreadable += &format!("{} is no ledger ({reason}): see `freshet verify`.\n", found.key),
            Ok(ledger) => rows.push(vec![
                ledger.topic.clone(),
                ledger.partition.to_string(),
                ledger.epoch.to_string(),
                ledger.next_offset.to_string(),
                text::or_dash(ledger.directory),
                text::or_dash(ledger.newest_timestamp.map(text::time)),
                ledger.format.clone(),
                text::or_dash(lag(found, target, topic)),
            ]),
        }
    }
    let header = ["topic", "partition", "epoch", "next offset", "directory", "newest timestamp", "format", "lag"];
    text::table(&header, &rows) + &unreadable
}

/// The ledgers as they are stored, each with its `key` and `lag` (null where no broker was asked); an unreadable one has
/// `key` and `error`.
fn json_text(ledgers: &[LedgerObject], target: &Target, topic: Option<&Topic>) -> String {
    let one = |found: &LedgerObject| {
        let mut value = match &found.ledger {
            Ok(ledger) => json!(ledger),
            Err(reason) => json!({"error": reason}),
        };
        value["key"] = json!(found.key);
        if found.ledger.is_ok() {
            value["lag"] = json!(lag(found, target, topic));
        }
        value
    };
    format!("{:#}\n", Value::Array(ledgers.iter().map(one).collect()))
}
