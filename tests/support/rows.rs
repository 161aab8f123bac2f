//! What lies in a bucket: rows of NDJSON objects and dead letters, read back without the consumer's code.

use std::collections::BTreeSet;
use std::io::Read;

use pipeline::lake::DeadLetter;

use super::memory_store::Bucket;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    pub epoch: u32,
    pub partition: i32,
    pub offset: i64,
}

fn lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each row of the NDJSON data objects, as often as it is stored, as it stands there.
pub fn rows_whole(bucket: &Bucket) -> Vec<(RowId, serde_json::Value)> {
    let data = bucket.objects.iter().filter(|(key, _)| key.contains("/hour=") && key.ends_with(".json.gz"));
    let row = |line: serde_json::Value| {
        let number = |name: &str| line[name].as_i64().unwrap();
        let (epoch, partition) = (number("_epoch") as u32, number("_partition") as i32);
        (RowId { epoch, partition, offset: number("_offset") }, line)
    };
    data.flat_map(|(_, object)| lines(&object.body)).map(row).collect()
}

/// The same, each with its `text`.
pub fn rows(bucket: &Bucket) -> Vec<(RowId, Option<String>)> {
    let text = |line: serde_json::Value| line["text"].as_str().map(str::to_owned);
    let mut rows: Vec<_> = rows_whole(bucket).into_iter().map(|(id, line)| (id, text(line))).collect();
    rows.sort();
    rows
}

/// The offsets of epoch 0 of partition 0 that are rows, each as often as it is stored.
pub fn offsets(bucket: &Bucket) -> Vec<i64> {
    rows(bucket).into_iter().filter(|(id, _)| id.epoch == 0 && id.partition == 0).map(|(id, _)| id.offset).collect()
}

/// Which records are dead letters. Letters are stored at least once: a set.
pub fn dead_letters(bucket: &Bucket) -> BTreeSet<RowId> {
    dead_letter_objects(bucket)
        .into_iter()
        .map(|l| RowId { epoch: l.epoch.unwrap(), partition: l.partition.unwrap(), offset: l.offset.unwrap() })
        .collect()
}

pub fn dead_letter_objects(bucket: &Bucket) -> Vec<DeadLetter> {
    let letters = bucket.objects.iter().filter(|(key, _)| key.contains("_dead_letters/dt="));
    letters.flat_map(|(_, object)| lines(&object.body)).map(|line| serde_json::from_value(line).unwrap()).collect()
}
