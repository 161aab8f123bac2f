//! Reads the lake into an inventory. The order of reading is what makes it safe to run beside a working consumer, which
//! writes letters, then the object, then the ledger: ledgers are read first, letters last.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use pipeline::lake::{DataKey, Ledger, Listed, RangeMetadata, Store};

use super::VerifyOptions;
use super::inventory::{DataObject, Inventory, LedgerObject, LettersObject, Rows};
use super::rows;
use crate::{Error, Target};

const HEADS_AT_ONCE: usize = 64;
/// Each is whole in memory while its rows are read.
const READS_AT_ONCE: usize = 4;
const DAY_MS: i64 = 86_400_000;

/// What the metadata of data objects says, by key and size: an object is written once, so it need not be asked again.
#[derive(Debug, Default)]
pub struct Known(HashMap<(String, u64), RangeMetadata>);

/// Everything but the catalog and the topic.
pub async fn collect<S: Store>(store: &S, target: &Target, options: &VerifyOptions) -> Result<Inventory, Error> {
    collect_new(store, target, options, &mut Known::default()).await
}

/// The same for one who looks again and again: only objects that are not known yet are asked for their metadata.
pub async fn collect_new<S: Store>(
    store: &S,
    target: &Target,
    options: &VerifyOptions,
    known: &mut Known,
) -> Result<Inventory, Error> {
    let layout = &target.layout;
    let (mut ledgers, mut foreign) = ledgers(store, target).await?;
    let listed = store.list(&format!("{}/", layout.prefix), None).await?;
    let mut keys = Vec::new();
    for Listed { key, size } in listed {
        match layout.parse_data(&key) {
            Some(parsed) => keys.push((key, parsed, size)),
            None => foreign.push(key),
        }
    }
    late_ledgers(store, target, &keys, &mut ledgers).await?;
    let places: Vec<_> = keys
        .into_iter()
        .map(|(name, key, size)| {
            let place = (name, size);
            let metadata = known.0.get(&place).cloned();
            (place, key, metadata)
        })
        .collect();
    let mut asked = stream::iter(places)
        .map(|((name, size), key, metadata)| async move {
            match metadata {
                Some(metadata) => Ok(DataObject { name, key, size, metadata: Ok(metadata), rows: None }),
                None => with_metadata(store, name, key).await,
            }
        })
        .buffered(HEADS_AT_ONCE);
    let mut objects = Vec::new();
    while let Some(object) = asked.try_next().await? {
        // One by one: who fails or is stopped in the middle has not asked in vain.
        if let Ok(metadata) = &object.metadata {
            known.0.insert((object.name.clone(), object.size), metadata.clone());
        }
        objects.push(object);
    }
    let listed: HashSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    known.0.retain(|(name, _), _| listed.contains(name.as_str()));
    if options.deep {
        // Collected first: a closure in the stream would keep the whole from moving between threads.
        let reads: Vec<_> = objects.iter().map(|object| rows_of(store, object)).collect();
        let found: Vec<Result<Rows, String>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        for (object, rows) in objects.iter_mut().zip(found) {
            object.rows = Some(rows);
        }
    }
    let listed = store.list(&layout.dead_letters_prefix(), None).await?;
    let letters = listed.into_iter().filter_map(|Listed { key, .. }| {
        layout.parse_dead_letters(&key).map(|parsed| LettersObject { name: key, key: parsed, offsets: None })
    });
    let letters = stream::iter(letters)
        .map(|letters| with_offsets(store, letters, options.deep))
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let now = pipeline::telemetry::now_ms();
    Ok(Inventory {
        target: target.clone(),
        deep: options.deep,
        ledgers,
        objects,
        letters,
        foreign,
        registered: None,
        watermarks: None,
        letters_since: now.saturating_sub(i64::from(options.dead_letter_days).saturating_mul(DAY_MS)),
    })
}

/// The lake's ledgers, and keys among them that are none.
pub async fn ledgers<S: Store>(store: &S, target: &Target) -> Result<(Vec<LedgerObject>, Vec<String>), Error> {
    let prefix = target.layout.ledgers();
    let mut foreign = Vec::new();
    let mut ledgers = Vec::new();
    for Listed { key, .. } in store.list(&prefix, None).await? {
        match place(target, &key) {
            Some((topic, partition)) => ledgers.extend(ledger(store, target, topic, partition).await?),
            None => foreign.push(key),
        }
    }
    ledgers.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    Ok((ledgers, foreign))
}

/// The ledger of one topic-partition; `None` where there is none.
pub async fn ledger<S: Store>(
    store: &S,
    target: &Target,
    topic: String,
    partition: i32,
) -> Result<Option<LedgerObject>, Error> {
    let key = target.layout.ledger(&topic, partition);
    let Some(object) = store.get(&key).await? else { return Ok(None) };
    let ledger = Ledger::parse(&object.body).map_err(|e| e.to_string());
    Ok(Some(LedgerObject { key, topic, partition, ledger }))
}

/// Topic and partition of a ledger's key.
fn place(target: &Target, key: &str) -> Option<(String, i32)> {
    let (topic, file) = key.strip_prefix(&target.layout.ledgers())?.rsplit_once('/')?;
    let partition = file.strip_suffix(".json")?.parse().ok()?;
    // Also refuses `01.json`, and topics with a slash, which Kafka does not have.
    (!topic.contains('/') && target.layout.ledger(topic, partition) == key).then(|| (topic.to_owned(), partition))
}

/// A partition may have got its ledger and its first object after the ledgers were listed.
async fn late_ledgers<S: Store>(
    store: &S,
    target: &Target,
    keys: &[(String, DataKey, u64)],
    ledgers: &mut Vec<LedgerObject>,
) -> Result<(), Error> {
    let known: BTreeSet<(&str, i32)> = ledgers.iter().map(|l| (l.topic.as_str(), l.partition)).collect();
    let found: BTreeSet<(&str, i32)> = keys.iter().map(|(_, key, _)| (key.topic.as_str(), key.partition)).collect();
    let missing: Vec<(String, i32)> = found.difference(&known).map(|(t, p)| ((*t).to_owned(), *p)).collect();
    for (topic, partition) in missing {
        ledgers.extend(ledger(store, target, topic, partition).await?);
    }
    Ok(())
}

pub async fn with_metadata<S: Store>(store: &S, name: String, key: DataKey) -> Result<DataObject, Error> {
    let (size, metadata) = match store.head(&name).await? {
        Some(head) => (head.size, RangeMetadata::from_map(&head.metadata)),
        None => (0, Err("was there when it was listed and is gone".to_owned())),
    };
    Ok(DataObject { name, key, size, metadata, rows: None })
}

async fn rows_of<S: Store>(store: &S, object: &DataObject) -> Result<Result<Rows, String>, Error> {
    let Some(found) = store.get(&object.name).await? else {
        return Ok(Err("was there when it was listed and is gone".to_owned()));
    };
    let key = object.key.clone();
    // Unpacking is work for the processor, not for the thread that waits for the network.
    let read = tokio::task::spawn_blocking(move || rows::read(&key, found.body)).await;
    Ok(read.unwrap_or_else(|panic| Err(format!("cannot be read ({panic})"))))
}

async fn with_offsets<S: Store>(store: &S, mut letters: LettersObject, deep: bool) -> Result<LettersObject, Error> {
    if deep {
        letters.offsets = Some(match store.get(&letters.name).await? {
            Some(object) => rows::read_letters(&object.body),
            None => Err("was there when it was listed and is gone".to_owned()),
        });
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use pipeline::lake::{FirstRecord, Head, Object, Put, PutRequest, StoreError};

    use super::*;
    use crate::memory::{MemoryStore, target};

    /// Answers only so many questions for metadata.
    struct Tired {
        objects: MemoryStore,
        left: AtomicUsize,
    }

    impl Store for Tired {
        async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
            self.objects.get(key).await
        }

        async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
            if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                return Err(StoreError { operation: "HEAD", key: key.into(), reason: "tired".into(), advice: "" });
            }
            self.objects.head(key).await
        }

        async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
            self.objects.put(request).await
        }

        async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
            self.objects.list(prefix, limit).await
        }
    }

    #[tokio::test]
    async fn a_look_that_fails_keeps_what_is_known() {
        let target = target("json");
        let place = |store: &MemoryStore, start: i64| {
            let directory = "dt=2026-11-23/hour=05".parse().unwrap();
            let key = DataKey { directory, topic: "t".into(), partition: 0, epoch: 2, start, extension: "json".into() };
            let metadata = RangeMetadata {
                end: start,
                records: 1,
                dead_letters: 0,
                newest_timestamp: None,
                first: FirstRecord { offset: start, timestamp: 0 },
                sha256: "0".repeat(64),
            };
            store.place(&target.layout.data(&key), "{}", metadata.to_map());
        };
        let store = Tired { objects: MemoryStore::default(), left: AtomicUsize::new(3) };
        (0..5).for_each(|start| place(&store.objects, start));
        let (options, mut known) = (VerifyOptions::default(), Known::default());
        assert!(collect_new(&store, &target, &options, &mut known).await.is_err());
        assert_eq!(known.0.len(), 3);
        // Only the two others are asked for.
        store.left.store(2, Ordering::SeqCst);
        let found = collect_new(&store, &target, &options, &mut known).await.unwrap();
        assert_eq!((found.objects.len(), known.0.len()), (5, 5));
        assert!(found.objects.iter().all(|object| object.metadata.is_ok()));

        // What is not listed any more is forgotten.
        let other = Tired { objects: MemoryStore::default(), left: AtomicUsize::new(0) };
        place(&other.objects, 4);
        collect_new(&other, &target, &options, &mut known).await.unwrap();
        assert_eq!(known.0.len(), 1);
    }
}
