//! What `verify` says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::text;

/// How many findings of one kind the text shows; the JSON holds all.
const SHOWN_OF_A_KIND: usize = 10;

/// The result of a check. As JSON:
///
/// ```json
/// {
///   "clean": false,
///   "verdict": "1 finding; 30 rows in 3 ranges of 1 partition",
///   "bucket": "lake", "prefix": "names", "dataset": "names",
///   "deep": false,
///   "partitions": [
///     {"topic": "names_topic", "partition": 0, "epoch": 0, "ranges": 3, "from": 0, "to": 39, "next_offset": 40, "rows": 30,
///      "dead_letters": 0, "gaps": 0, "in_flight": 0, "lag": null, "findings": 1}
///   ],
///   "findings": [
///     {"kind": "hole", "place": {"topic": "names_topic", "partition": 0, "epoch": 0},
///      "message": "offsets 10–19 lie in no object", "advice": "…"}
///   ],
///   "notes": ["…"]
/// }
/// ```
///
/// `epoch`, `from`, `to` and `next_offset` are null where there is no ledger or no object, `lag` where no broker was asked;
/// `to` is inclusive; `place` is null for a finding of no partition. `rows` counts what SQL sees, in-flight ranges included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub clean: bool,
    pub verdict: String,
    pub bucket: String,
    pub prefix: String,
    pub dataset: String,
    /// Whether the rows were read, too.
    pub deep: bool,
    pub partitions: Vec<PartitionReport>,
    pub findings: Vec<Finding>,
    /// What a reader may wonder about, and what is in order.
    pub notes: Vec<String>,
}

/// One life of a topic-partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    pub topic: String,
    pub partition: i32,
    pub epoch: Option<u32>,
    pub ranges: u64,
    pub from: Option<i64>,
    pub to: Option<i64>,
    /// The ledger's, in its own epoch.
    pub next_offset: Option<i64>,
    pub rows: u64,
    pub dead_letters: u64,
    /// Offsets inside of ranges without a record: transaction markers, compaction, expiry.
    pub gaps: u64,
    /// Ranges that are stored and not yet in the ledger.
    pub in_flight: u64,
    pub lag: Option<i64>,
    pub findings: u64,
}

/// A topic-partition, and which life of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    pub epoch: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.topic, self.partition)?;
        self.epoch.map_or(Ok(()), |epoch| write!(f, " epoch {epoch}"))
    }
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub place: Option<Place>,
    pub message: String,
    /// What to do next.
    pub advice: &'static str,
}

impl Finding {
    pub fn new(kind: Kind, place: Option<Place>, message: impl Into<String>) -> Finding {
        Finding { kind, place, message: message.into(), advice: kind.advice() }
    }
}

/// Every kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Hole,
    Overlap,
    Twin,
    DirectoryWentBack,
    TooManyRecords,
    MetadataWrong,
    LedgerMissing,
    LedgerUnreadable,
    LedgerMismatch,
    LedgerBehind,
    LettersMissing,
    LettersUnreadable,
    ForeignObject,
    ObjectUnreadable,
    HashDiffers,
    RowCountDiffers,
    RowsOutside,
    RowsRepeated,
    RowsUnordered,
    NotRegistered,
    WrongLocation,
    Expired,
    TopicMadeAnew,
}

impl Kind {
    /// What to do next.
    pub fn advice(self) -> &'static str {
        match self {
            Kind::Hole => {
                "Rows may be missing. Run verify again in case the consumer was just writing there; if it stays, look in the \
                 access logs for a deleted object, and restore it: from the bucket's versions where it keeps any, or from a copy"
            }
            Kind::Overlap | Kind::Twin => {
                "Rows may be stored twice. Compare the objects with `freshet query`, and move the one that is surplus out of \
                 the prefix"
            }
            Kind::DirectoryWentBack => "An hour that was complete has changed: run again whatever has read it already",
            Kind::TooManyRecords | Kind::MetadataWrong => {
                "Somebody else may have written or copied the object: check it with --deep, and restore the version that \
                 the consumer wrote"
            }
            Kind::LedgerMissing => "The consumer will stop there. Run `freshet ledger rebuild TOPIC PARTITION`",
            Kind::LedgerUnreadable => {
                "The consumer will stop there. Restore an earlier version of the object, or delete it and run `freshet ledger \
                 rebuild TOPIC PARTITION`"
            }
            Kind::LedgerMismatch => {
                "The consumer will stop there. Check --dataset, --prefix and the deployment; after a change of format run \
                 `freshet ledger format`"
            }
            Kind::LedgerBehind => {
                "Somebody may have restored an old ledger. Stop the event source, delete the ledger, and run `freshet ledger \
                 rebuild TOPIC PARTITION`"
            }
            Kind::LettersMissing => {
                "Records that could not be stored may be lost. If they are older than the lifecycle rule of the dead letters, \
                 give its days with --dead-letter-days; otherwise restore them from the bucket's versions or a copy"
            }
            Kind::LettersUnreadable => "Restore the object from the bucket's versions or a copy",
            Kind::ForeignObject => {
                "Queries over the prefix may read it as rows. Move it elsewhere: nobody but the consumer writes there"
            }
            Kind::ObjectUnreadable | Kind::HashDiffers | Kind::RowCountDiffers => {
                "The object is not what the consumer wrote: restore it from the bucket's versions or a copy"
            }
            Kind::RowsOutside | Kind::RowsRepeated | Kind::RowsUnordered => {
                "The invariant is broken: keep the objects, and report it with the output of `freshet verify --deep --json`"
            }
            Kind::NotRegistered => {
                "Athena does not see these rows. Register the directory (ALTER TABLE … ADD PARTITION), and look who removed it"
            }
            Kind::WrongLocation => "Athena reads another place. Drop the partition and add it with the right location",
            Kind::Expired => {
                "They cannot be fetched again. Raise the topic's retention, and see why the consumer was behind: its alarms, \
                 `freshet verify --kafka`'s lag"
            }
            Kind::TopicMadeAnew => {
                "The topic may have been deleted and made anew. If so, stop the event source, wait for the function's \
                 time-out, and run `freshet ledger reset TOPIC PARTITION`"
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An enum without fields serialises as its name.
        let name = serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        f.write_str(&name)
    }
}

impl Report {
    /// One JSON document.
    pub fn to_json(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// The table, the findings, the notes, and the verdict as the last line.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.partitions.is_empty() {
            text += &text::table(&HEADER, &self.partitions.iter().map(PartitionReport::cells).collect::<Vec<_>>());
            text.push('\n');
        }
        let mut seen: BTreeMap<Kind, usize> = BTreeMap::new();
        for finding in &self.findings {
            let nth = seen.entry(finding.kind).or_default();
            *nth += 1;
            if *nth <= SHOWN_OF_A_KIND {
                let place = finding.place.as_ref().map_or_else(String::new, |place| format!("{place}: "));
                text += &format!("{} — {place}{}.\n    {}.\n", finding.kind, finding.message, finding.advice);
            }
        }
        for (kind, n) in seen.into_iter().filter(|(_, n)| *n > SHOWN_OF_A_KIND) {
            text += &format!("{kind} — and {} more: --json lists them all.\n", n - SHOWN_OF_A_KIND);
        }
        for note in &self.notes {
            text += &format!("note — {note}.\n");
        }
        if !self.findings.is_empty() || !self.notes.is_empty() {
            text.push('\n');
        }
        text + &format!("verify s3://{}/{}: {}\n", self.bucket, self.prefix, self.verdict)
    }
}

const HEADER: [&str; 11] = [
    "topic",
    "partition",
    "epoch",
    "ranges",
    "offsets",
    "rows",
    "dead letters",
    "gaps",
    "in flight",
    "lag",
    "findings",
];

impl PartitionReport {
    fn cells(&self) -> Vec<String> {
        let offsets = self.from.zip(self.to).map(|(from, to)| format!("{from}–{to}"));
        vec![
            self.topic.clone(),
            self.partition.to_string(),
            text::or_dash(self.epoch),
            self.ranges.to_string(),
            text::or_dash(offsets),
            self.rows.to_string(),
            self.dead_letters.to_string(),
            self.gaps.to_string(),
            self.in_flight.to_string(),
            text::or_dash(self.lag),
            self.findings.to_string(),
        ]
    }
}
