//! Each claim builds a whole lake, breaks one thing, and expects that very finding and no other.

use std::collections::BTreeMap;

use pipeline::lake::{DataKey, Directory, FirstRecord, Ledger, LettersKey, RangeMetadata};

use super::check;
use crate::Target;
use crate::catalog::Registered;
use crate::kafka::Watermarks;
use crate::memory;
use crate::verify::inventory::{DataObject, Inventory, LedgerObject, LettersObject, Rows};
use crate::verify::report::{Kind, Report};
use crate::verify::runs::Runs;

const HOUR: i64 = 3_600_000;
/// 2026-11-23T05:00:00Z
const FIVE: i64 = 1_795_410_000_000;

fn target() -> Target {
    memory::target("parquet")
}

/// A range whose every offset is a row, `hours` after five o'clock.
fn range(epoch: u32, start: i64, end: i64, hours: i64) -> DataObject {
    let timestamp = FIVE + hours * HOUR;
    let directory = Directory::of(timestamp);
    let key = DataKey { directory, topic: "t".into(), partition: 0, epoch, start, extension: "parquet".into() };
    let metadata = RangeMetadata {
        end,
        records: (end - start + 1) as u64,
        dead_letters: 0,
        newest_timestamp: Some(timestamp),
        first: FirstRecord { offset: start, timestamp },
        sha256: "ab".into(),
    };
    DataObject { name: target().layout.data(&key), key, size: 0, metadata: Ok(metadata), rows: None }
}

fn ledger(epoch: u32, next_offset: i64, hours: i64) -> LedgerObject {
    let ledger = Ledger {
        dataset: "names".into(),
        prefix: "names".into(),
        format: "parquet".into(),
        cluster: None,
        topic: "t".into(),
        partition: 0,
        epoch,
        next_offset,
        directory: Some(Directory::of(FIVE + hours * HOUR)),
        newest_timestamp: Some(FIVE + hours * HOUR),
    };
    LedgerObject { key: target().layout.ledger("t", 0), topic: "t".into(), partition: 0, ledger: Ok(ledger) }
}

fn lake(objects: Vec<DataObject>, ledgers: Vec<LedgerObject>) -> Inventory {
    Inventory {
        target: target(),
        deep: false,
        ledgers,
        objects,
        letters: Vec::new(),
        foreign: Vec::new(),
        registered: None,
        watermarks: None,
        letters_since: FIVE - 24 * HOUR,
    }
}

/// Offsets 0–9 and 10–19 at five, 20–29 at six; the next is 30.
fn whole() -> Inventory {
    lake(vec![range(0, 0, 9, 0), range(0, 10, 19, 0), range(0, 20, 29, 1)], vec![ledger(0, 30, 1)])
}

/// The rows that the metadata promises.
fn deep(mut inventory: Inventory) -> Inventory {
    inventory.deep = true;
    for object in &mut inventory.objects {
        let metadata = object.metadata.as_ref().unwrap();
        let offsets = Runs::span(object.key.start, metadata.end);
        object.rows = Some(Ok(Rows {
            sha256: metadata.sha256.clone(),
            count: metadata.records,
            offsets,
            repeated: 0,
            ordered: true,
            strangers: 0,
        }));
    }
    inventory
}

fn metadata(inventory: &mut Inventory, object: usize) -> &mut RangeMetadata {
    inventory.objects[object].metadata.as_mut().unwrap()
}

fn rows(inventory: &mut Inventory, object: usize) -> &mut Rows {
    inventory.objects[object].rows.as_mut().unwrap().as_mut().unwrap()
}

fn edit_ledger(inventory: &mut Inventory, edit: impl FnOnce(&mut Ledger)) {
    edit(inventory.ledgers[0].ledger.as_mut().unwrap());
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.findings.iter().map(|f| f.kind).collect()
}

/// The one finding there is, of that kind; its message.
fn found(inventory: &Inventory, kind: Kind) -> String {
    let report = check(inventory);
    assert_eq!(kinds(&report), [kind], "{report:#?}");
    assert!(!report.clean && report.verdict.starts_with("1 finding;"));
    report.findings[0].message.clone()
}

fn clean(inventory: &Inventory) -> Report {
    let report = check(inventory);
    assert_eq!(report.findings, [], "{report:#?}");
    assert!(report.clean);
    report
}

#[test]
fn a_whole_lake_is_clean_and_its_numbers_add_up() {
    let report = clean(&whole());
    let row = &report.partitions[0];
    assert_eq!((row.ranges, row.from, row.to, row.next_offset), (3, Some(0), Some(29), Some(30)));
    assert_eq!((row.rows, row.dead_letters, row.gaps, row.in_flight, row.lag), (30, 0, 0, 0, None));
    assert_eq!(report.verdict, "clean; 30 rows and 0 dead letters in 3 ranges of 1 partition");
    assert_eq!(report.notes, Vec::<String>::new());
    clean(&deep(whole()));
}

#[test]
fn an_empty_lake_is_clean_and_says_so() {
    assert!(clean(&lake(Vec::new(), Vec::new())).notes[0].contains("the lake is empty"));
}

#[test]
fn a_hole_between_ranges_is_found() {
    let mut inventory = whole();
    inventory.objects.remove(1);
    assert_eq!(found(&inventory, Kind::Hole), "offsets 10–19 lie in no object");
}

#[test]
fn a_hole_below_the_ledger_is_found() {
    let mut inventory = whole();
    inventory.objects.pop();
    assert_eq!(found(&inventory, Kind::Hole), "offsets 20–29 lie in no object");
}

#[test]
fn a_ledger_without_the_objects_it_speaks_of_is_found() {
    assert!(found(&lake(Vec::new(), vec![ledger(0, 30, 1)]), Kind::Hole).contains("there is no object"));
}

#[test]
fn an_overlap_is_found() {
    let mut inventory = whole();
    metadata(&mut inventory, 0).end = 12;
    metadata(&mut inventory, 0).records = 13;
    assert!(found(&inventory, Kind::Overlap).contains("starts at 10, inside of a range that reaches to 12"));
}

#[test]
fn a_twin_in_another_directory_is_found() {
    let mut inventory = whole();
    inventory.objects.push(range(0, 20, 29, 0));
    assert!(found(&inventory, Kind::Twin).contains("two objects start at offset 20"));
}

#[test]
fn a_twin_in_another_format_is_found() {
    let mut inventory = whole();
    let mut twin = range(0, 10, 19, 0);
    twin.key.extension = "json.gz".into();
    twin.name = target().layout.data(&twin.key);
    inventory.objects.push(twin);
    assert!(found(&inventory, Kind::Twin).contains(".json.gz"));
}

#[test]
fn a_directory_that_goes_back_is_found() {
    let mut inventory = whole();
    inventory.objects[1] = range(0, 10, 19, 2);
    edit_ledger(&mut inventory, |ledger| {
        ledger.directory = Some(Directory::of(FIVE + 2 * HOUR));
        ledger.newest_timestamp = Some(FIVE + 2 * HOUR);
    });
    assert!(found(&inventory, Kind::DirectoryWentBack).contains("earlier directory"));
}

#[test]
fn ranges_in_flight_are_a_note_and_must_tile_too() {
    let mut inventory = whole();
    inventory.objects.push(range(0, 30, 34, 2));
    let report = clean(&inventory);
    assert_eq!((report.partitions[0].in_flight, report.partitions[0].rows), (1, 35));
    assert!(report.notes[0].starts_with("1 range stored and not yet in the ledger"), "{:?}", report.notes);
    inventory.objects.push(range(0, 40, 44, 2));
    assert_eq!(found(&inventory, Kind::Hole), "offsets 35–39 lie in no object");
}

#[test]
fn the_first_range_of_all_in_flight_starts_where_the_ledger_says() {
    let new = |start| {
        let mut inventory = lake(vec![range(0, start, 14, 0)], vec![ledger(0, 7, 0)]);
        edit_ledger(&mut inventory, |ledger| ledger.newest_timestamp = None);
        inventory
    };
    clean(&new(7));
    assert_eq!(found(&new(8), Kind::Hole), "offsets 7–7 lie in no object");
}

#[test]
fn a_ledger_inside_of_a_range_is_found() {
    let mut inventory = whole();
    edit_ledger(&mut inventory, |ledger| ledger.next_offset = 25);
    assert!(found(&inventory, Kind::LedgerBehind).contains("25 lies inside of a range that ends at 29"));
}

#[test]
fn a_ledger_that_says_less_than_the_ranges_is_found() {
    let mut inventory = whole();
    edit_ledger(&mut inventory, |ledger| ledger.directory = Some(Directory::of(FIVE)));
    assert!(found(&inventory, Kind::LedgerBehind).contains("latest directory is dt=2026-11-23/hour=05"));
    let mut inventory = whole();
    edit_ledger(&mut inventory, |ledger| ledger.newest_timestamp = Some(FIVE));
    assert!(found(&inventory, Kind::LedgerBehind).contains("newest timestamp is 2026-11-23T05:00:00"));
    let mut inventory = whole();
    inventory.objects.push(range(1, 0, 3, 2));
    assert!(found(&inventory, Kind::LedgerBehind).contains("the ledger is in epoch 0"));
}

#[test]
fn earlier_lives_tile_by_themselves_and_need_no_ledger_of_their_own() {
    let mut inventory = whole();
    inventory.ledgers = vec![ledger(1, 5, 2)];
    inventory.objects.push(range(1, 0, 4, 2));
    let report = clean(&inventory);
    assert_eq!(
        report.partitions.iter().map(|p| (p.epoch, p.rows, p.next_offset)).collect::<Vec<_>>(),
        [(Some(0), 30, None), (Some(1), 5, Some(5)),]
    );
    inventory.objects.remove(1);
    assert_eq!(found(&inventory, Kind::Hole), "offsets 10–19 lie in no object");
}

#[test]
fn objects_without_a_ledger_and_unreadable_ledgers_are_found() {
    let mut inventory = whole();
    inventory.ledgers.clear();
    assert_eq!(found(&inventory, Kind::LedgerMissing), "3 data objects and no ledger");
    let mut inventory = whole();
    inventory.ledgers[0].ledger = Err("EOF".into());
    let report = check(&inventory);
    assert_eq!(kinds(&report), [Kind::LedgerUnreadable]);
    assert_eq!(
        report.partitions.iter().map(|p| p.findings).sum::<u64>(),
        2,
        "shown at the objects' row and at its own"
    );
}

#[test]
fn a_ledger_of_another_dataset_prefix_or_format_is_found() {
    type Edit = fn(&mut Ledger);
    let edits: [(Edit, &str); 4] = [
        (|l| l.dataset = "orders".into(), "dataset `orders`, expected `names`"),
        (|l| l.prefix = "other".into(), "prefix `other`, expected `names`"),
        (|l| l.format = "json.gz".into(), "format `json.gz`, expected `parquet`"),
        (|l| l.partition = 7, "partition `7`, expected `0`"),
    ];
    for (edit, expected) in edits {
        let mut inventory = whole();
        edit_ledger(&mut inventory, edit);
        assert!(found(&inventory, Kind::LedgerMismatch).contains(expected), "{expected}");
    }
}

#[test]
fn foreign_objects_are_found_by_name() {
    let mut inventory = whole();
    inventory.foreign.push("names/dt=2026-11-23/hour=05/part-0.parquet".into());
    assert!(found(&inventory, Kind::ForeignObject).contains("part-0.parquet"));
}

#[test]
fn metadata_that_is_absent_or_impossible_is_found_without_guesses_at_holes() {
    let mut inventory = whole();
    inventory.objects[1].metadata = Err("has no `end-offset` in its metadata".into());
    assert!(found(&inventory, Kind::MetadataWrong).contains("has no `end-offset`"));
    let mut inventory = whole();
    metadata(&mut inventory, 1).first.offset = 3;
    assert!(found(&inventory, Kind::MetadataWrong).contains("begins with record 3"));
    let mut inventory = whole();
    metadata(&mut inventory, 1).records = 11;
    assert!(found(&inventory, Kind::TooManyRecords).contains("11 records and 0 dead letters in 10 offsets"));
}

#[test]
fn offsets_without_a_record_are_counted_as_gaps() {
    let mut inventory = whole();
    metadata(&mut inventory, 1).records = 7;
    let report = clean(&inventory);
    assert_eq!(report.partitions[0].gaps, 3);
    assert!(report.notes[0].starts_with("3 offsets in ranges without a record"));
}

/// Makes two records of the second range dead letters: offsets 12 and 15.
fn with_letters(mut inventory: Inventory, offsets: &[i64]) -> Inventory {
    metadata(&mut inventory, 1).records = 8;
    metadata(&mut inventory, 1).dead_letters = 2;
    if inventory.deep {
        let good = (10..=19).filter(|offset| ![12, 15].contains(offset)).collect();
        rows(&mut inventory, 1).offsets = Runs::of(good).0;
        rows(&mut inventory, 1).count = 8;
    }
    let key = LettersKey { topic: "t".into(), partition: 0, epoch: 0, start: 10, end: 19 };
    let offsets = inventory.deep.then(|| Ok(Runs::of(offsets.to_vec()).0));
    inventory.letters.push(LettersObject { name: "names_dead_letters/…".into(), key, offsets });
    inventory
}

#[test]
fn dead_letters_that_are_there_are_clean_and_missing_ones_are_found() {
    assert_eq!(clean(&with_letters(whole(), &[])).partitions[0].dead_letters, 2);
    let mut inventory = with_letters(whole(), &[]);
    inventory.letters[0].key.end = 15;
    assert!(
        found(&inventory, Kind::LettersMissing).contains("counts 2 dead letters, and there is no object with them")
    );
    inventory.letters.clear();
    found(&inventory, Kind::LettersMissing);
    inventory.letters_since = FIVE + HOUR;
    assert!(clean(&inventory).notes[0].contains("2 dead letters may have been deleted by the lifecycle rule"));
}

#[test]
fn every_dead_letter_is_read_and_those_of_dead_attempts_are_a_note() {
    assert_eq!(clean(&with_letters(deep(whole()), &[12, 15])).notes, Vec::<String>::new());
    let missing = with_letters(deep(whole()), &[12]);
    assert!(found(&missing, Kind::LettersMissing).contains("counts 2 dead letters, and 1 of them are there"));
    let doubled = with_letters(deep(whole()), &[12, 13]);
    assert!(found(&doubled, Kind::LettersMissing).contains("1 of them are there"), "13 is a row");
    let other_decoder = with_letters(deep(whole()), &[12, 13, 15]);
    assert!(clean(&other_decoder).notes[0].contains("1 dead letter of attempts that died"));
    let mut unreadable = with_letters(deep(whole()), &[12, 15]);
    unreadable.letters[0].offsets = Some(Err("cannot be unpacked".into()));
    assert_eq!(kinds(&check(&unreadable)), [Kind::LettersMissing, Kind::LettersUnreadable]);
}

#[test]
fn rows_that_are_not_what_the_range_says_are_found() {
    type Break = fn(&mut Inventory);
    let breaks: [(Break, Kind, &str); 6] = [
        (|i| rows(i, 1).repeated = 1, Kind::RowsRepeated, "1 row whose offset another row of it has"),
        (|i| rows(i, 1).ordered = false, Kind::RowsUnordered, "out of the order"),
        (|i| rows(i, 1).strangers = 2, Kind::RowsOutside, "2 rows of another partition or epoch"),
        (|i| rows(i, 1).count = 9, Kind::RowCountDiffers, "9 rows, its metadata says 10"),
        (|i| rows(i, 1).sha256 = "cd".into(), Kind::HashDiffers, "has SHA-256 cd, its metadata says `ab`"),
        (|i| i.objects[1].rows = Some(Err("is no Parquet file".into())), Kind::ObjectUnreadable, "is no Parquet file"),
    ];
    for (damage, kind, expected) in breaks {
        let mut inventory = deep(whole());
        damage(&mut inventory);
        let message = found(&inventory, kind);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_offset_in_two_objects_is_found_also_where_the_ranges_look_right() {
    let mut inventory = deep(whole());
    rows(&mut inventory, 1).offsets = Runs::of((10..=18).chain([20]).collect()).0;
    let report = check(&inventory);
    assert_eq!(kinds(&report), [Kind::RowsOutside, Kind::RowsRepeated]);
    assert!(report.findings[1].message.starts_with("1 offset in more than one object"), "{report:#?}");
}

#[test]
fn directories_that_are_not_registered_or_elsewhere_are_found_and_empty_ones_noted() {
    let registered = |hour: &str, location: &str| Registered {
        values: vec!["2026-11-23".into(), hour.into()],
        location: location.into(),
    };
    let mut inventory = whole();
    let five = registered("05", "s3://lake/names/dt=2026-11-23/hour=05/");
    let six = registered("06", "s3://lake/names/dt=2026-11-23/hour=06");
    let seven = registered("07", "s3://lake/names/dt=2026-11-23/hour=07/");
    inventory.registered = Some(vec![five.clone(), six.clone(), seven]);
    assert!(clean(&inventory).notes[0].starts_with("1 registered directory holds no object"));
    inventory.registered = Some(vec![five.clone()]);
    assert_eq!(found(&inventory, Kind::NotRegistered), "dt=2026-11-23/hour=06 holds 1 object and is not registered");
    inventory.registered = Some(vec![five, registered("06", "s3://lake/other/dt=2026-11-23/hour=06/")]);
    assert!(found(&inventory, Kind::WrongLocation).contains("expected s3://lake/names/dt=2026-11-23/hour=06/"));
}

#[test]
fn the_topic_tells_the_lag_and_what_can_never_be_stored() {
    let with = |low, high| {
        let mut inventory = whole();
        inventory.watermarks =
            Some(BTreeMap::from([(0, Watermarks { low, high }), (1, Watermarks { low: 5, high: 9 })]));
        inventory
    };
    let report = clean(&with(3, 42));
    let lags: Vec<_> = report.partitions.iter().map(|p| (p.partition, p.epoch, p.lag)).collect();
    assert_eq!(lags, [(0, Some(0), Some(12)), (1, None, Some(4))]);
    assert_eq!(found(&with(33, 42), Kind::Expired), "3 offsets from 30 on left the topic before they were stored");
    assert_eq!(found(&with(0, 7), Kind::TopicMadeAnew), "the ledger's next offset is 30, and the topic ends at 7");
    let report = check(&with(0, 7));
    assert!(report.findings[0].advice.contains("freshet ledger reset"), "{report:?}");
    let mut front_lost = with(3, 42);
    front_lost.objects.remove(0);
    assert_eq!(found(&front_lost, Kind::Hole), "offsets 3–9 are in the topic and lie in no object");
    let mut gone = whole();
    gone.watermarks = Some(BTreeMap::new());
    assert!(found(&gone, Kind::TopicMadeAnew).contains("the topic has no such partition"));
}

#[test]
fn the_text_ends_in_the_verdict_and_the_json_has_the_same() {
    let mut inventory = whole();
    inventory.objects.remove(1);
    inventory.foreign = (0..12).map(|i| format!("names/{i}")).collect();
    let report = check(&inventory);
    let text = report.to_text();
    assert!(text.starts_with("topic  partition  epoch"), "{text}");
    assert!(text.contains("hole — t 0 epoch 0: offsets 10–19 lie in no object.\n"), "{text}");
    assert!(text.contains("foreign-object — and 2 more"), "{text}");
    let last = "verify s3://lake/names: 13 findings; 20 rows and 0 dead letters in 2 ranges of 1 partition\n";
    assert!(text.ends_with(last), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["findings"][0]["kind"], "hole");
    assert_eq!(json["findings"][0]["place"]["epoch"], 0);
    assert_eq!((json["clean"].as_bool(), json["findings"].as_array().unwrap().len()), (Some(false), 13));
    assert_eq!(json["partitions"][0]["rows"], 20);
}
