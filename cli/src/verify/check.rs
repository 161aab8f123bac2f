//! What must hold of an inventory. Pure: the same inventory always gives the same report.

mod catalog;
mod letters;
mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod tiling;
mod topic;

use std::collections::BTreeMap;

use pipeline::lake::Ledger;

use super::inventory::{DataObject, Inventory};
use super::report::{Finding, Kind, PartitionReport, Place, Report};
use crate::text::count;

/// What is said while the checks go on.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub findings: Vec<Finding>,
    pub notes: Vec<String>,
}

impl Said {
    pub(crate) fn find(&mut self, kind: Kind, place: &Place, message: impl Into<String>) {
        self.findings.push(Finding::new(kind, Some(place.clone()), message));
    }
}

/// The objects of each life of each topic-partition, in the order of their starts.
type Lives<'a> = BTreeMap<Place, Vec<&'a DataObject>>;

pub fn check(inventory: &Inventory) -> Report {
    let mut said = Said::default();
    let lives = lives(inventory);
    let ledgers = ledgers(inventory, &mut said);
    missing_ledgers(inventory, &lives, &mut said);
    for key in &inventory.foreign {
        said.findings.push(Finding::new(Kind::ForeignObject, None, format!("{key} is not the consumer's")));
    }
    let mut partitions = Vec::new();
    for (place, objects) in &lives {
        let ledger = ledgers.get(&(place.topic.as_str(), place.partition)).copied();
        let current = ledger.filter(|ledger| Some(ledger.epoch) == place.epoch);
        let mut row = tiling::check(place, objects, current.map(|l| l.next_offset), &mut said);
        if let Some(ledger) = ledger {
            ledger_covers(place, ledger, objects, &mut said);
        }
        rows::check(place, objects, &mut said);
        letters::check(place, objects, inventory, &mut said);
        row.next_offset = current.map(|l| l.next_offset);
        partitions.push(row);
    }
    if let Some(registered) = &inventory.registered {
        catalog::check(inventory, registered, &mut said);
    }
    if let Some(watermarks) = &inventory.watermarks {
        topic::check(inventory, watermarks, &ledgers, &mut partitions, &mut said);
    }
    summary_notes(inventory, &partitions, &mut said);
    report(inventory, partitions, said)
}

fn lives(inventory: &Inventory) -> Lives<'_> {
    let mut lives = Lives::new();
    for object in &inventory.objects {
        let key = &object.key;
        let place = Place { topic: key.topic.clone(), partition: key.partition, epoch: Some(key.epoch) };
        lives.entry(place).or_default().push(object);
    }
    for found in &inventory.ledgers {
        let epoch = found.ledger.as_ref().ok().map(|ledger| ledger.epoch);
        lives.entry(Place { topic: found.topic.clone(), partition: found.partition, epoch }).or_default();
    }
    for objects in lives.values_mut() {
        objects.sort_by_key(|object| (object.key.start, object.key.directory));
    }
    lives
}

type Ledgers<'a> = BTreeMap<(&'a str, i32), &'a Ledger>;

/// The ledgers that can be read; says which cannot, and which are of another lake.
fn ledgers<'a>(inventory: &'a Inventory, said: &mut Said) -> Ledgers<'a> {
    let target = &inventory.target;
    let mut ledgers = Ledgers::new();
    for found in &inventory.ledgers {
        let place = Place { topic: found.topic.clone(), partition: found.partition, epoch: None };
        let ledger = match &found.ledger {
            Ok(ledger) => ledger,
            Err(reason) => {
                said.find(Kind::LedgerUnreadable, &place, format!("{} is no ledger ({reason})", found.key));
                continue;
            }
        };
        ledgers.insert((found.topic.as_str(), found.partition), ledger);
        let place = Place { epoch: Some(ledger.epoch), ..place };
        let partition = ledger.partition.to_string();
        for (what, says, expected) in [
            ("dataset", &ledger.dataset, &target.dataset),
            ("prefix", &ledger.prefix, &target.layout.prefix),
            ("format", &ledger.format, &target.extension),
            ("topic", &ledger.topic, &found.topic),
            ("partition", &partition, &found.partition.to_string()),
        ] {
            if says != expected {
                let message = format!("the ledger says {what} `{says}`, expected `{expected}`");
                said.find(Kind::LedgerMismatch, &place, message);
            }
        }
        if found.topic != target.topic {
            said.notes.push(format!("{place} is another topic than the dataset's `{}`", target.topic));
        }
    }
    ledgers
}

fn missing_ledgers(inventory: &Inventory, lives: &Lives<'_>, said: &mut Said) {
    let mut missing: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    for (place, objects) in lives {
        let has_one = inventory.ledgers.iter().any(|l| l.topic == place.topic && l.partition == place.partition);
        if !has_one {
            *missing.entry((&place.topic, place.partition)).or_default() += objects.len();
        }
    }
    for ((topic, partition), objects) in missing {
        let place = Place { topic: topic.to_owned(), partition, epoch: None };
        said.find(Kind::LedgerMissing, &place, format!("{} and no ledger", count(objects as u64, "data object")));
    }
}

/// A ledger only ever grows, so it says at least what every range below it says.
fn ledger_covers(place: &Place, ledger: &Ledger, objects: &[&DataObject], said: &mut Said) {
    let Some(epoch) = place.epoch else { return };
    if epoch > ledger.epoch {
        let message = format!("{} of epoch {epoch}, and the ledger is in epoch {}", objects.len(), ledger.epoch);
        said.find(Kind::LedgerBehind, place, format!("objects: {message}"));
    }
    if epoch != ledger.epoch {
        return;
    }
    let stored = objects.iter().filter(|object| object.key.start < ledger.next_offset);
    let directory = stored.clone().map(|object| object.key.directory).max();
    if directory > ledger.directory {
        let (is, says) = (crate::text::or_dash(directory), crate::text::or_dash(ledger.directory));
        let message = format!("an object lies in {is}, and the ledger's latest directory is {says}");
        said.find(Kind::LedgerBehind, place, message);
    }
    let newest = stored.filter_map(|o| o.metadata.as_ref().ok()).filter_map(|m| m.newest_timestamp).max();
    if newest > ledger.newest_timestamp {
        let time = |ms: Option<i64>| ms.map_or_else(|| "none".to_owned(), crate::text::time);
        let message = format!(
            "a stored record is of {}, and the ledger's newest timestamp is {}",
            time(newest),
            time(ledger.newest_timestamp)
        );
        said.find(Kind::LedgerBehind, place, message);
    }
    if objects.is_empty() && ledger.newest_timestamp.is_some() {
        let message = format!("records were stored below offset {}, and there is no object", ledger.next_offset);
        said.find(Kind::Hole, place, message);
    }
}

/// Over all partitions. What objects say of themselves need not be true, and gaps can be as wide as the offset axis.
pub(crate) fn total(partitions: &[PartitionReport], count: fn(&PartitionReport) -> u64) -> u64 {
    partitions.iter().map(count).fold(0, u64::saturating_add)
}

fn summary_notes(inventory: &Inventory, partitions: &[PartitionReport], said: &mut Said) {
    let in_flight = total(partitions, |p| p.in_flight);
    if in_flight > 0 {
        said.notes.push(format!(
            "{} stored and not yet in the ledger: in flight, or left by an attempt that died; the next one adopts it",
            count(in_flight, "range")
        ));
    }
    let gaps = total(partitions, |p| p.gaps);
    if gaps > 0 {
        said.notes.push(format!(
            "{} in ranges without a record: transaction markers, compaction, or records that expired unread",
            count(gaps, "offset")
        ));
    }
    if inventory.objects.is_empty() && inventory.ledgers.is_empty() {
        said.notes.push("the lake is empty: check the bucket and the prefix if it should not be".to_owned());
    }
}

fn report(inventory: &Inventory, mut partitions: Vec<PartitionReport>, said: Said) -> Report {
    let Said { mut findings, notes } = said;
    findings.sort_by(|a, b| (a.kind, &a.place).cmp(&(b.kind, &b.place)));
    for row in &mut partitions {
        let of_row = |f: &&Finding| {
            let place = f.place.as_ref();
            place.is_some_and(|p| {
                p.topic == row.topic && p.partition == row.partition && (p.epoch == row.epoch || p.epoch.is_none())
            })
        };
        row.findings = findings.iter().filter(of_row).count() as u64;
    }
    let mut distinct: Vec<(&str, i32)> = partitions.iter().map(|p| (p.topic.as_str(), p.partition)).collect();
    distinct.dedup();
    let found = if findings.is_empty() { "clean".to_owned() } else { count(findings.len() as u64, "finding") };
    let verdict = format!(
        "{found}; {} and {} in {} of {}{}",
        count(total(&partitions, |p| p.rows), "row"),
        count(total(&partitions, |p| p.dead_letters), "dead letter"),
        count(total(&partitions, |p| p.ranges), "range"),
        count(distinct.len() as u64, "partition"),
        if inventory.deep { ", every row read" } else { "" },
    );
    Report {
        clean: findings.is_empty(),
        verdict,
        bucket: inventory.target.bucket.clone(),
        prefix: inventory.target.layout.prefix.clone(),
        dataset: inventory.target.dataset.clone(),
        deep: inventory.deep,
        partitions,
        findings,
        notes,
    }
}
