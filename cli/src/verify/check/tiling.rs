//! The ranges of one life of a topic-partition tile the offset axis, and their directories never go back.

use pipeline::lake::RangeMetadata;

use super::{DataObject, Kind, PartitionReport, Place, Said};

/// Objects come in the order of their starts. `next_offset` is the ledger's where this life is its own.
pub(crate) fn check(
    place: &Place,
    objects: &[&DataObject],
    next_offset: Option<i64>,
    said: &mut Said,
) -> PartitionReport {
    let Place { topic, partition, epoch } = place.clone();
    let mut row = PartitionReport { topic, partition, epoch, ..PartitionReport::default() };
    let mut walk = Walk { place, next: None, at_ledger: false, next_offset, latest: None, previous: None };
    for object in objects {
        row.ranges += 1;
        row.in_flight += u64::from(next_offset.is_some_and(|next| object.key.start >= next));
        walk.step(object, said);
        if let Some(metadata) = sound_metadata(place, object, said) {
            row.from = row.from.or(Some(object.key.start));
            row.to = row.to.max(Some(metadata.end));
            // What an object says of itself need not be true.
            row.rows = row.rows.saturating_add(metadata.records);
            row.dead_letters = row.dead_letters.saturating_add(metadata.dead_letters);
            let known = metadata.records.saturating_add(metadata.dead_letters);
            let gaps = length(object.key.start, metadata.end).saturating_sub(known);
            row.gaps = row.gaps.saturating_add(gaps);
        }
    }
    walk.reach_ledger(said);
    row
}

/// Goes along the offset axis.
struct Walk<'a> {
    place: &'a Place,
    /// Where the next range must start; unknown at first, and behind an object without readable metadata.
    next: Option<i64>,
    /// Whether the walk has come to the ledger's next offset.
    at_ledger: bool,
    next_offset: Option<i64>,
    /// The object in the latest directory so far.
    latest: Option<&'a DataObject>,
    previous: Option<&'a DataObject>,
}

impl<'a> Walk<'a> {
    fn step(&mut self, object: &'a DataObject, said: &mut Said) {
        let start = object.key.start;
        if self.next_offset.is_some_and(|next| start >= next) {
            self.reach_ledger(said);
        }
        let twin = self.previous.filter(|previous| previous.key.start == start);
        if let Some(twin) = twin {
            let message = format!("two objects start at offset {start}: {} and {}", twin.name, object.name);
            said.find(Kind::Twin, self.place, message);
        } else if let Some(next) = self.next {
            if start > next {
                self.hole(next, start, said);
            } else if start < next {
                let last = next - 1;
                let message = format!("{} starts at {start}, inside of a range that reaches to {last}", object.name);
                said.find(Kind::Overlap, self.place, message);
            }
        }
        match self.latest {
            Some(latest) if object.key.directory < latest.key.directory => {
                let message =
                    format!("{} lies in an earlier directory than {}, which is before it", object.name, latest.name);
                said.find(Kind::DirectoryWentBack, self.place, message);
            }
            _ => self.latest = Some(object),
        }
        self.previous = Some(object);
        self.next = match &object.metadata {
            Ok(metadata) => self.next.max(metadata.end.max(start).checked_add(1)),
            // Where it ends is unknown. That is a finding of its own; a hole behind it would be a guess.
            Err(_) => None,
        };
    }

    /// Everything below the ledger's next offset lies in a range that ends below it.
    fn reach_ledger(&mut self, said: &mut Said) {
        let Some(ledger) = self.next_offset.filter(|_| !self.at_ledger) else { return };
        self.at_ledger = true;
        match self.next {
            Some(next) if next < ledger => self.hole(next, ledger, said),
            Some(next) if next > ledger => {
                let message =
                    format!("the ledger's next offset {ledger} lies inside of a range that ends at {}", next - 1);
                said.find(Kind::LedgerBehind, self.place, message);
            }
            _ => {}
        }
        // A range in flight starts where the ledger says, also where nothing lies below.
        let unknown = self.next.is_none() && self.previous.is_some();
        self.next = if unknown { None } else { self.next.max(Some(ledger)) };
    }

    fn hole(&self, from: i64, to: i64, said: &mut Said) {
        said.find(Kind::Hole, self.place, format!("offsets {from}–{} lie in no object", to - 1));
    }
}

/// The metadata, where it can be read; says what in it contradicts the key.
fn sound_metadata<'a>(place: &Place, object: &'a DataObject, said: &mut Said) -> Option<&'a RangeMetadata> {
    let name = &object.name;
    let metadata = match &object.metadata {
        Ok(metadata) => metadata,
        Err(reason) => {
            said.find(Kind::MetadataWrong, place, format!("{name} {reason}"));
            return None;
        }
    };
    let (start, end) = (object.key.start, metadata.end);
    if end < start || !(start..=end).contains(&metadata.first.offset) {
        let message = format!("{name} says that it ends at {end} and begins with record {}", metadata.first.offset);
        said.find(Kind::MetadataWrong, place, message);
        return None;
    }
    let (records, letters, length) = (metadata.records, metadata.dead_letters, length(start, end));
    if records.saturating_add(letters) > length {
        let message =
            format!("{name} says that it has {records} records and {letters} dead letters in {length} offsets");
        said.find(Kind::TooManyRecords, place, message);
    }
    Some(metadata)
}

fn length(start: i64, end: i64) -> u64 {
    if end < start { 0 } else { end.abs_diff(start).saturating_add(1) }
}
