//! The rows are what the ranges say. Only where the rows were read.

use std::collections::BTreeSet;

use super::{DataObject, Kind, Place, Said};
use crate::text::count;
use crate::verify::inventory::Rows;
use crate::verify::runs::Runs;

pub(super) fn check(place: &Place, objects: &[&DataObject], said: &mut Said) {
    let mut all: Vec<(i64, i64, &str)> = Vec::new();
    for object in objects {
        match &object.rows {
            None => {}
            Some(Err(reason)) => said.find(Kind::ObjectUnreadable, place, format!("{} {reason}", object.name)),
            Some(Ok(rows)) => {
                one(place, object, rows, said);
                all.extend(rows.offsets.iter().map(|(first, last)| (first, last, object.name.as_str())));
            }
        }
    }
    across(place, all, said);
}

fn one(place: &Place, object: &DataObject, rows: &Rows, said: &mut Said) {
    let name = &object.name;
    if rows.strangers > 0 {
        let message = format!("{name} holds {} of another partition or epoch", count(rows.strangers, "row"));
        said.find(Kind::RowsOutside, place, message);
    }
    if rows.repeated > 0 {
        let message = format!("{name} holds {} whose offset another row of it has", count(rows.repeated, "row"));
        said.find(Kind::RowsRepeated, place, message);
    } else if !rows.ordered {
        said.find(Kind::RowsUnordered, place, format!("{name} holds its rows out of the order of their offsets"));
    }
    let Ok(metadata) = &object.metadata else { return };
    let outside = rows.offsets.len() - rows.offsets.within(object.key.start, metadata.end).len();
    if outside > 0 {
        let range = format!("{}–{}", object.key.start, metadata.end);
        said.find(
            Kind::RowsOutside,
            place,
            format!("{name} holds {} outside of its range {range}", count(outside, "offset")),
        );
    }
    if rows.count != metadata.records {
        let message = format!("{name} holds {}, its metadata says {}", count(rows.count, "row"), metadata.records);
        said.find(Kind::RowCountDiffers, place, message);
    }
    if rows.sha256 != metadata.sha256 {
        let message = format!("{name} has SHA-256 {}, its metadata says `{}`", rows.sha256, metadata.sha256);
        said.find(Kind::HashDiffers, place, message);
    }
}

/// No offset lies in two objects.
fn across(place: &Place, mut runs: Vec<(i64, i64, &str)>, said: &mut Said) {
    runs.sort_unstable();
    let (mut repeated, mut names) = (Runs::default(), BTreeSet::new());
    let mut before: Option<(i64, &str)> = None;
    for (first, last, name) in runs {
        if let Some((reached, other)) = before.filter(|(reached, _)| first <= *reached) {
            repeated = repeated.union(&Runs::span(first, last.min(reached)));
            names.extend([other, name]);
        }
        before = before.max(Some((last, name)));
    }
    if !repeated.is_empty() {
        let names: Vec<&str> = names.into_iter().collect();
        let message = format!("{} in more than one object: {}", count(repeated.len(), "offset"), names.join(", "));
        said.find(Kind::RowsRepeated, place, message);
    }
}
