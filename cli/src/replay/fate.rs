//! What became of a letter's own offset. Letters are stored before the data object, so an attempt that died may have left
//! a letter for a record that a later attempt, with a corrected dataset file, stored as a row.

use std::collections::BTreeMap;

use pipeline::lake::{DataKey, Layout, Listed, Store};

use super::letters::Place;
use crate::verify::collect::ledgers;
use crate::verify::rows;
use crate::{Error, Target};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is a dead letter, and stays one.
    Letter,
    Row,
    /// The ledger has not moved behind it: the consumer may still make a row of it.
    Undecided,
}

/// The data objects of the topic by partition, epoch and first offset.
type Objects = BTreeMap<(i32, u32, i64), (String, DataKey)>;

/// The fate of each of these offsets of the dataset's topic.
pub async fn fates<S: Store>(
    store: &S,
    target: &Target,
    places: impl Iterator<Item = Place>,
) -> Result<BTreeMap<Place, Fate>, Error> {
    let mut fates = BTreeMap::new();
    let mut by_object: BTreeMap<(i32, u32, i64), Vec<Place>> = BTreeMap::new();
    // Ledgers before objects: what a ledger has moved behind is among the objects.
    let next = next_offsets(store, target).await?;
    let objects = objects(store, &target.layout, &target.topic).await?;
    for place in places {
        let Place { partition, epoch, offset } = place;
        let decided = next.get(&partition).is_some_and(|next| (epoch, offset) < *next);
        if !decided {
            fates.insert(place, Fate::Undecided);
            continue;
        }
        let around = objects.range(..=(partition, epoch, offset)).next_back();
        match around.filter(|((p, e, _), _)| (*p, *e) == (partition, epoch)) {
            Some((at, _)) => by_object.entry(*at).or_default().push(place),
            None => {
                fates.insert(place, Fate::Letter);
            }
        }
    }
    for (at, places) in by_object {
        let Some((name, key)) = objects.get(&at) else { continue };
        let unreadable =
            |reason| Error::stopped(format!("{name} {reason}. Nothing was replayed: see `freshet verify --deep`"));
        let Some(object) = store.get(name).await? else {
            return Err(unreadable("was there when it was listed and is gone".to_owned()));
        };
        let key = key.clone();
        let read = tokio::task::spawn_blocking(move || rows::read(&key, object.body)).await;
        let rows = read.unwrap_or_else(|panic| Err(format!("cannot be read ({panic})"))).map_err(unreadable)?;
        for place in places {
            let stored = !rows.offsets.within(place.offset, place.offset).is_empty();
            fates.insert(place, if stored { Fate::Row } else { Fate::Letter });
        }
    }
    Ok(fates)
}

/// Epoch and next offset of each partition's ledger.
pub async fn next_offsets<S: Store>(store: &S, target: &Target) -> Result<BTreeMap<i32, (u32, i64)>, Error> {
    let mut next = BTreeMap::new();
    for found in ledgers(store, target).await?.0.into_iter().filter(|found| found.topic == target.topic) {
        let ledger = found.ledger.map_err(|reason| {
            Error::stopped(format!("{} is no ledger ({reason}). Nothing was replayed: see `freshet verify`", found.key))
        })?;
        next.insert(found.partition, (ledger.epoch, ledger.next_offset));
    }
    Ok(next)
}

async fn objects<S: Store>(store: &S, layout: &Layout, topic: &str) -> Result<Objects, Error> {
    let listed = store.list(&format!("{}/", layout.prefix), None).await?;
    let parsed =
        listed.into_iter().filter_map(|Listed { key, .. }| layout.parse_data(&key).map(|parsed| (key, parsed)));
    let ours = parsed.filter(|(_, key)| key.topic == topic);
    Ok(ours.map(|(name, key)| ((key.partition, key.epoch, key.start), (name, key))).collect())
}
