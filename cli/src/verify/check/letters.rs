//! What a range counts as dead letters is there as dead letters.
//!
//! Letters are stored before the object and at least once, so there may be more of them than the object counts: those of
//! an attempt that died, which another version of the decoder read differently. That is no finding.

use super::{DataObject, Inventory, Kind, Place, Said};
use crate::text::count;
use crate::verify::inventory::LettersObject;
use crate::verify::runs::Runs;

pub(super) fn check(place: &Place, objects: &[&DataObject], inventory: &Inventory, said: &mut Said) {
    let of_place = |l: &&LettersObject| {
        let key = &l.key;
        key.topic == place.topic && key.partition == place.partition && Some(key.epoch) == place.epoch
    };
    let mut letters: Vec<&LettersObject> = inventory.letters.iter().filter(of_place).collect();
    letters.sort_by_key(|l| l.key.start);
    for found in &letters {
        if let Some(Err(reason)) = &found.offsets {
            said.find(Kind::LettersUnreadable, place, format!("{} {reason}", found.name));
        }
    }
    let (mut expired, mut surplus) = (0, 0);
    for object in objects {
        let Ok(metadata) = &object.metadata else { continue };
        let first = letters.partition_point(|l| l.key.start < object.key.start);
        let of_range = letters[first..].iter().take_while(|l| l.key.start == object.key.start);
        // The attempt that wrote the object named its letters by the same range.
        let complete = of_range.clone().any(|l| l.key.end == metadata.end);
        if metadata.dead_letters > 0 && !complete {
            if may_have_expired(object, inventory.letters_since) {
                expired += metadata.dead_letters;
            } else {
                let message = format!(
                    "{} counts {}, and there is no object with them",
                    object.name,
                    letters_of(metadata.dead_letters)
                );
                said.find(Kind::LettersMissing, place, message);
            }
            continue;
        }
        let Some(Ok(rows)) = &object.rows else { continue };
        let read = of_range.filter_map(|l| l.offsets.as_ref()?.as_ref().ok());
        let offsets = read.fold(Runs::default(), |all, one| all.union(one)).within(object.key.start, metadata.end);
        let also_rows = offsets.common(&rows.offsets).len();
        let alone = offsets.len() - also_rows;
        surplus += also_rows + alone.saturating_sub(metadata.dead_letters);
        if alone < metadata.dead_letters {
            let message =
                format!("{} counts {}, and {alone} of them are there", object.name, letters_of(metadata.dead_letters));
            said.find(Kind::LettersMissing, place, message);
        }
    }
    if expired > 0 {
        said.notes.push(format!("{place}: {} may have been deleted by the lifecycle rule", letters_of(expired)));
    }
    if surplus > 0 {
        said.notes.push(format!(
            "{place}: {} of attempts that died, whose records another attempt stored",
            letters_of(surplus)
        ));
    }
}

fn letters_of(n: u64) -> String {
    count(n, "dead letter")
}

/// Whether the object's hour is so old that its letters need not be there any more.
fn may_have_expired(object: &DataObject, since: i64) -> bool {
    object.key.directory < pipeline::lake::Directory::of(since)
}
