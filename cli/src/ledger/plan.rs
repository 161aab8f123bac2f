//! What each command would change. Reads the lake, writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::lake::{Condition, DataKey, Directory, Ledger, Store};

use super::Topic;
use super::change::{Change, Plan};
use crate::verify::check::{Said, tiling};
use crate::verify::collect;
use crate::verify::inventory::DataObject;
use crate::verify::report::{Kind, Place};
use crate::{Error, Target};

const EVENT_SOURCE_OFF: &str =
    "the event source is off, and the function's time-out has passed since: no attempt is alive";

/// A ledger with the version it was read from.
struct Read {
    key: String,
    ledger: Ledger,
    etag: String,
}

async fn read<S: Store>(store: &S, target: &Target, topic: &str, partition: i32) -> Result<Option<Read>, Error> {
    let key = target.layout.ledger(topic, partition);
    let Some(object) = store.get(&key).await? else { return Ok(None) };
    let ledger = Ledger::parse(&object.body).map_err(|reason| {
        Error::stopped(format!(
            "{key} is no ledger ({reason}). Restore an earlier version of it, or delete it and run `freshet ledger rebuild \
             {topic} {partition}`"
        ))
    })?;
    Ok(Some(Read { key, ledger, etag: object.etag }))
}

/// The ledger of `which`, or all of the lake's; an error where there is none.
async fn read_some<S: Store>(store: &S, target: &Target, which: Option<&(String, i32)>) -> Result<Vec<Read>, Error> {
    let known: Vec<(String, i32)> =
        collect::ledgers(store, target).await?.0.into_iter().map(|found| (found.topic, found.partition)).collect();
    let wanted = match which {
        Some(pair) if known.contains(pair) => vec![pair.clone()],
        Some((topic, partition)) => {
            let known: Vec<String> = known.iter().map(|(t, p)| format!("{t} {p}")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::stopped(format!(
                "there is no ledger for {topic} {partition}; there is: {known}. Name one of them"
            )));
        }
        None => known,
    };
    let mut found = Vec::new();
    for (topic, partition) in wanted {
        found.extend(read(store, target, &topic, partition).await?);
    }
    Ok(found)
}

impl Read {
    fn change(self, after: Ledger) -> Option<Change> {
        let Read { key, ledger, etag } = self;
        let differs = ledger != after;
        differs.then_some(Change { key, before: Some(ledger), after, condition: Condition::Matches(etag) })
    }
}

pub struct Reset {
    /// `None`: all ledgers of the lake.
    pub which: Option<(String, i32)>,
    pub next_offset: Option<i64>,
    pub topic: Option<Topic>,
    pub cluster: Option<String>,
}

/// The next life of the offsets: epoch raised by one, nothing stored yet. The directory stays: directories never go back.
pub async fn reset<S: Store>(store: &S, target: &Target, options: &Reset) -> Result<Plan, Error> {
    let mut plan = Plan {
        preconditions: vec![
            EVENT_SOURCE_OFF.to_owned(),
            "the topic was deleted and made anew: otherwise its records will be stored twice".to_owned(),
            "each of these ledgers is older than that, as its newest timestamp tells: of a topic-partition that got its first record \
             since, what is delivered again would be stored twice"
                .to_owned(),
        ],
        ..Plan::default()
    };
    for found in read_some(store, target, options.which.as_ref()).await? {
        let of_topic = options.topic.as_ref().filter(|_| found.ledger.topic == target.topic);
        let low = of_topic.and_then(|topic| topic.get(&found.ledger.partition)).map(|watermarks| watermarks.low);
        let Some(epoch) = found.ledger.epoch.checked_add(1) else {
            return Err(Error::stopped(format!("{} is in the last epoch there is. Use a new prefix", found.key)));
        };
        let after = Ledger {
            epoch,
            next_offset: options.next_offset.or(low).unwrap_or(0),
            newest_timestamp: None,
            cluster: options.cluster.clone().or_else(|| found.ledger.cluster.clone()),
            ..found.ledger.clone()
        };
        plan.changes.extend(found.change(after));
    }
    if plan.changes.is_empty() {
        plan.remarks.push("There is no ledger to reset: the consumer creates one with the first record.".to_owned());
    }
    Ok(plan)
}

/// The consumer took a late record for one of a new topic; now it will take it for a repeat.
pub async fn accept<S: Store>(
    store: &S,
    target: &Target,
    topic: &str,
    partition: i32,
    newest_timestamp: i64,
) -> Result<Plan, Error> {
    let mut plan = Plan {
        preconditions: vec![
            "the topic was not made anew: the record that the consumer stopped at is a repeat of one that is stored"
                .to_owned(),
        ],
        ..Plan::default()
    };
    for found in read_some(store, target, Some(&(topic.to_owned(), partition))).await? {
        let newest_timestamp = found.ledger.newest_timestamp.max(Some(newest_timestamp));
        let after = Ledger { newest_timestamp, ..found.ledger.clone() };
        plan.changes.extend(found.change(after));
    }
    if plan.changes.is_empty() {
        plan.remarks.push("The ledger's newest timestamp is that late already: nothing to change.".to_owned());
    }
    Ok(plan)
}

/// Refuses while a range is stored but not in its ledger: in the new format its twin would have another key.
pub async fn format<S: Store>(store: &S, target: &Target, topic: Option<&Topic>) -> Result<Plan, Error> {
    let mut plan = Plan { preconditions: vec![EVENT_SOURCE_OFF.to_owned()], ..Plan::default() };
    let keys = data_keys(store, target).await?;
    let ledgers = read_some(store, target, None).await?;
    // A directory is registered with the format of its first object: the new format begins in one that no partition has
    // reached.
    let fresh = ledgers.iter().filter_map(|found| found.ledger.directory).max().map(Directory::next);
    for found in ledgers {
        let Ledger { topic: name, partition, epoch, next_offset, .. } = &found.ledger;
        let in_flight = keys.iter().map(|(_, key)| key).find(|key| {
            key.topic == *name && key.partition == *partition && key.epoch == *epoch && key.start >= *next_offset
        });
        if let Some(key) = in_flight {
            return Err(Error::stopped(format!(
                "{} is stored and not yet in its ledger. Deploy the old format, turn the event source on until it is \
                 drained, and try again",
                target.layout.data(key)
            )));
        }
        let of_topic = topic.filter(|_| *name == target.topic);
        if let Some(watermarks) = of_topic.and_then(|topic| topic.get(partition))
            && watermarks.high != *next_offset
        {
            plan.remarks.push(format!(
                "Warning: {name} {partition} is not drained: the next offset is {next_offset}, and the topic ends at {}.",
                watermarks.high
            ));
        }
        if found.ledger.format != target.extension {
            let after = Ledger { format: target.extension.clone(), directory: fresh, ..found.ledger.clone() };
            plan.changes.extend(found.change(after));
        }
    }
    if plan.changes.is_empty() {
        plan.remarks.push(format!("Every ledger says `{}` already: nothing to change.", target.extension));
    } else if topic.is_none() {
        plan.remarks.push("Without --kafka it was not checked that the topic is drained.".to_owned());
    }
    Ok(plan)
}

/// Ledgers for topic-partitions that have objects and no ledger.
pub async fn rebuild<S: Store>(
    store: &S,
    target: &Target,
    which: Option<(String, i32)>,
    cluster: Option<String>,
) -> Result<Plan, Error> {
    let mut of_partition: BTreeMap<(String, i32), Vec<(String, DataKey)>> = BTreeMap::new();
    for (name, key) in data_keys(store, target).await? {
        of_partition.entry((key.topic.clone(), key.partition)).or_default().push((name, key));
    }
    let present: BTreeSet<(String, i32)> =
        collect::ledgers(store, target).await?.0.into_iter().map(|found| (found.topic, found.partition)).collect();
    let wanted: Vec<(String, i32)> = match which {
        Some(pair) if present.contains(&pair) => {
            return Err(Error::stopped(format!(
                "{} is there, and was left alone. See `freshet ledger show`; if it is wrong, delete it first",
                target.layout.ledger(&pair.0, pair.1)
            )));
        }
        Some(pair) => vec![pair],
        None => of_partition.keys().filter(|pair| !present.contains(*pair)).cloned().collect(),
    };
    let mut plan = Plan { preconditions: vec![EVENT_SOURCE_OFF.to_owned()], ..Plan::default() };
    for (topic, partition) in wanted {
        let Some(keys) = of_partition.remove(&(topic.clone(), partition)) else {
            return Err(Error::stopped(format!(
                "{topic} {partition} has no data object under {}/. Nothing was lost: the consumer creates the ledger with the \
                 first record; if there should be objects, check --prefix",
                target.layout.prefix
            )));
        };
        let epoch = keys.iter().map(|(_, key)| key.epoch).max();
        let mut objects = Vec::new();
        for (name, key) in keys.into_iter().filter(|(_, key)| Some(key.epoch) == epoch) {
            objects.push(collect::with_metadata(store, name, key).await?);
        }
        let (after, remarks) = rebuilt(target, &mut objects, cluster.clone()).map_err(Error::Stopped)?;
        plan.remarks.extend(remarks);
        let key = target.layout.ledger(&topic, partition);
        plan.changes.push(Change { key, before: None, after, condition: Condition::Absent });
    }
    if plan.changes.is_empty() {
        plan.remarks.push("Every topic-partition with objects has its ledger: nothing to rebuild.".to_owned());
    }
    Ok(plan)
}

/// The ledger that the objects of one life of a topic-partition bear out, and what is to be said of them. It goes behind all of
/// them, also where two overlap: every offset below it is stored, and what is stored twice is stored already.
fn rebuilt(
    target: &Target,
    objects: &mut [DataObject],
    cluster: Option<String>,
) -> Result<(Ledger, Vec<String>), String> {
    objects.sort_by_key(|object| (object.key.start, object.key.directory));
    let Some(last) = objects.last() else {
        return Err("there is no object to rebuild from. Check --prefix".to_owned());
    };
    let DataKey { topic, partition, epoch, extension, .. } = last.key.clone();
    let place = Place { topic: topic.clone(), partition, epoch: Some(epoch) };
    let mut said = Said::default();
    let tiled = tiling::check(&place, &objects.iter().collect::<Vec<_>>(), None, &mut said);
    let (overlaps, refusals): (Vec<_>, Vec<_>) =
        said.findings.into_iter().partition(|finding| matches!(finding.kind, Kind::Overlap | Kind::Twin));
    if let Some(finding) = refusals.first() {
        return Err(format!(
            "the objects of {place} do not bear out a ledger: {}. {}",
            finding.message, finding.advice
        ));
    }
    let remarks =
        overlaps.into_iter().map(|finding| format!("Warning: {}. {}.", finding.message, finding.advice)).collect();
    // Without such a finding every object has readable metadata, so there is an end.
    let Some(end) = tiled.to else { return Err(format!("the objects of {place} have no end. Run `freshet verify`")) };
    let metadata = objects.iter().filter_map(|object| object.metadata.as_ref().ok());
    let ledger = Ledger {
        dataset: target.dataset.clone(),
        prefix: target.layout.prefix.clone(),
        format: extension,
        cluster,
        topic,
        partition,
        epoch,
        next_offset: end
            .checked_add(1)
            .ok_or_else(|| format!("{place} ends at the last offset there is. Run `freshet verify`"))?,
        directory: objects.iter().map(|object| object.key.directory).max(),
        newest_timestamp: metadata.filter_map(|m| m.newest_timestamp).max(),
    };
    Ok((ledger, remarks))
}

async fn data_keys<S: Store>(store: &S, target: &Target) -> Result<Vec<(String, DataKey)>, Error> {
    let listed = store.list(&format!("{}/", target.layout.prefix), None).await?;
    let parse = |l: pipeline::lake::Listed| target.layout.parse_data(&l.key).map(|key| (l.key, key));
    Ok(listed.into_iter().filter_map(parse).collect())
}
