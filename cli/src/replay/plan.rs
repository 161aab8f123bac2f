//! Which letters would be replayed, and why others would not. Reads the lake, writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use pipeline::lake::Store;

use super::fate::{Fate, fates};
use super::journal::Replays;
use super::letters::{self, Letter};
use crate::text::{self, count};
use crate::{Error, Target};

/// Rows of the table; errors that quote a value are many.
const SHOWN: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The consumer could not make a row of it
    Decode,
    /// Kafka did not acknowledge it
    Deliver,
}

/// Which letters are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub stage: Option<Stage>,
    /// A part of the letter's error.
    pub error: Option<String>,
    /// Milliseconds since 1970, inclusive.
    pub since: Option<i64>,
    /// Milliseconds since 1970, exclusive.
    pub until: Option<i64>,
    pub limit: Option<usize>,
}

impl Filter {
    fn takes(&self, letter: &Letter) -> bool {
        let stage = self.stage.is_none_or(|stage| match stage {
            Stage::Decode => letter.stage == "decode",
            Stage::Deliver => letter.stage == "deliver",
        });
        stage
            && self.error.as_ref().is_none_or(|part| letter.error.contains(part.as_str()))
            && self.since.is_none_or(|since| letter.timestamp >= since)
            && self.until.is_none_or(|until| letter.timestamp < until)
    }
}

/// Why a letter is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    Row,
    Undecided,
    Unfinished,
    Transform,
    Tombstone,
    OtherTopic,
    OtherStage,
    Limit,
}

impl LeftOut {
    /// Ends a line that begins with how many there are.
    fn why(self) -> &'static str {
        match self {
            LeftOut::Row => "record is a row already: a later attempt of the consumer could read it",
            LeftOut::Undecided => {
                "the consumer has not stored the range yet, and may still make a row of it. Run this again when `freshet verify` shows nothing in flight"
            }
            LeftOut::Unfinished => "in a batch that an earlier run began: it is finished first, whatever is asked for",
            LeftOut::Transform => {
                "stage transform: it holds what the columns' expressions yielded, not the API's record, and a hashed column's source is nowhere. \
                 Correct the dataset file; the record comes again with the API's next answer that has it"
            }
            LeftOut::Tombstone => "a null value, which no dataset file makes a row of",
            LeftOut::OtherTopic => {
                "of another topic than the dataset's: give the dataset file of that topic with --dataset"
            }
            LeftOut::OtherStage => "of a stage that this version does not know: use the version that wrote it",
            LeftOut::Limit => "beyond --limit",
        }
    }
}

/// Letters of one stage with one error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Group {
    pub letters: u64,
    pub replayed: u64,
    pub left_out: u64,
    pub to_replay: u64,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// To replay, in the order of their times.
    pub letters: Vec<Letter>,
    pub groups: BTreeMap<(String, String), Group>,
    pub left_out: BTreeMap<LeftOut, u64>,
    /// Letters in batches that were begun and not finished.
    pub unfinished: u64,
    pub unreadable: Vec<String>,
}

/// What a run would do now.
pub async fn plan<S: Store>(store: &S, target: &Target, filter: &Filter, replays: &Replays) -> Result<Plan, Error> {
    let found = letters::collect(store, &target.layout).await?;
    let begun: BTreeSet<&str> =
        replays.open.iter().flat_map(|open| open.batch.letters.iter().map(String::as_str)).collect();
    let asked: Vec<Letter> = found.letters.into_iter().filter(|letter| filter.takes(letter)).collect();
    let candidates = asked.iter().filter(|letter| at_once(letter, target, replays, &begun).is_none());
    let fates = fates(store, target, candidates.filter_map(|letter| letter.place)).await?;

    let mut plan = Plan { unreadable: found.unreadable, unfinished: begun.len() as u64, ..Plan::default() };
    for letter in asked {
        let verdict = at_once(&letter, target, replays, &begun).unwrap_or_else(|| {
            match letter.place.and_then(|place| fates.get(&place)) {
                Some(Fate::Row) => Verdict::LeftOut(LeftOut::Row),
                Some(Fate::Undecided) => Verdict::LeftOut(LeftOut::Undecided),
                _ if filter.limit.is_some_and(|limit| plan.letters.len() >= limit) => Verdict::LeftOut(LeftOut::Limit),
                _ => Verdict::Replay,
            }
        });
        let group = plan.groups.entry((letter.stage.clone(), kind_of(&letter.error).to_owned())).or_default();
        group.letters += 1;
        match verdict {
            Verdict::Replayed => group.replayed += 1,
            Verdict::LeftOut(reason) => {
                group.left_out += 1;
                *plan.left_out.entry(reason).or_default() += 1;
            }
            Verdict::Replay => {
                group.to_replay += 1;
                plan.letters.push(letter);
            }
        }
    }
    Ok(plan)
}

enum Verdict {
    Replay,
    Replayed,
    LeftOut(LeftOut),
}

/// What can be said without looking for the letter's own offset.
fn at_once(letter: &Letter, target: &Target, replays: &Replays, begun: &BTreeSet<&str>) -> Option<Verdict> {
    let left_out = |reason| Some(Verdict::LeftOut(reason));
    match letter.stage.as_str() {
        _ if replays.done.contains(&letter.id) => Some(Verdict::Replayed),
        _ if begun.contains(letter.id.as_str()) => left_out(LeftOut::Unfinished),
        "transform" => left_out(LeftOut::Transform),
        "decode" | "deliver" if letter.topic != target.topic => left_out(LeftOut::OtherTopic),
        "decode" | "deliver" if letter.tombstone => left_out(LeftOut::Tombstone),
        "decode" | "deliver" => None,
        _ => left_out(LeftOut::OtherStage),
    }
}

/// The error without the place in its record, which is another in each.
fn kind_of(error: &str) -> &str {
    error.rfind(" at line ").map_or(error, |at| error.get(..at).unwrap_or(error))
}

impl Plan {
    pub fn to_text(&self, target: &Target) -> String {
        if self.groups.is_empty() {
            let place = target.layout.dead_letters_prefix();
            let place = place.trim_end_matches("dt=");
            return format!("No dead letter under s3://{}/{place} is asked for.\n", target.bucket) + &self.remarks();
        }
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(name, group)| (std::cmp::Reverse(group.letters), *name));
        let rows: Vec<Vec<String>> =
            groups.iter().take(SHOWN).map(|((stage, error), group)| cells(stage, error, group)).collect();
        let header = ["stage", "error", "letters", "replayed already", "left out", "to replay"];
        let mut text = text::table(&header, &rows);
        if groups.len() > SHOWN {
            text += &format!("… and {}\n", count((groups.len() - SHOWN) as u64, "more error"));
        }
        text + &self.remarks()
    }

    fn remarks(&self) -> String {
        let mut text = String::new();
        for reason in &self.unreadable {
            text += &format!("Left out: {reason}.\n");
        }
        for (reason, letters) in &self.left_out {
            text += &format!("Left out: {}, {}.\n", count(*letters, "letter"), reason.why());
        }
        if self.unfinished > 0 {
            let letters = count(self.unfinished, "letter");
            text += &format!(
                "An earlier run did not finish: {letters}. They come first; what of them reached the topic is found there.\n"
            );
        }
        let again = self.letters.iter().filter(|letter| letter.replays > 0).count() as u64;
        if again > 0 {
            let most = self.letters.iter().map(|letter| letter.replays).max().unwrap_or_default() as u64;
            let (letters, most) = (count(again, "letter"), count(most, "time"));
            text += &format!(
                "Replayed before: {letters}, up to {most}, and failed again. Make sure that the cure is deployed.\n"
            );
        }
        let uncertain = self.letters.iter().filter(|letter| may_be_on_the_topic(letter)).count() as u64;
        if uncertain > 0 {
            let letters = count(uncertain, "letter");
            text += &format!(
                "Uncertain: {letters} of stage deliver. Kafka had the record and did not say in time that it was stored; a replay stores it twice if it was. \
                 --error 'before it could be sent' picks what certainly was not.\n"
            );
        }
        text
    }
}

fn cells(stage: &str, error: &str, group: &Group) -> Vec<String> {
    let numbers = [group.letters, group.replayed, group.left_out, group.to_replay];
    [stage.to_owned(), error.to_owned()].into_iter().chain(numbers.map(|n| n.to_string())).collect()
}

/// The producer's words for a record whose fate it does not know end in its acknowledgement; older ones said of some that they
/// were not sent, and they may have been.
fn may_be_on_the_topic(letter: &Letter) -> bool {
    letter.stage == "deliver" && ["acknowledge", "before it was sent"].iter().any(|part| letter.error.contains(part))
}
