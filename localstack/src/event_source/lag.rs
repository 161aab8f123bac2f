//! Questions to the brokers besides the polling: how far the group is behind, and where a new group begins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};
use tokio::sync::watch;

use super::{EventSourceConfig, StartingPosition, consumer::client_config, stats::Recorder};

const TIMEOUT: Duration = Duration::from_secs(10);

/// How far the consumer group is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// The next offset to be read; `None` as long as nothing was committed.
    pub committed: Option<i64>,
    /// The lowest offset that the topic still has.
    pub low: i64,
    /// The offset that the next record will get.
    pub high: i64,
}

impl Lag {
    /// How many offsets there are to read.
    pub fn records(&self) -> i64 {
        (self.high - self.committed.unwrap_or(self.low).max(self.low)).max(0)
    }
}

/// Asks the brokers, from a thread that may block, without joining the group.
///
/// # Errors
/// When the brokers do not answer within 10 s, or the topic is missing.
pub async fn lag(config: &Arc<EventSourceConfig>) -> KafkaResult<BTreeMap<i32, Lag>> {
    blocking(config, |config| lag_by(&client_config(config).create::<BaseConsumer>()?, &config.topic)).await
}

/// The same by a client with the group's `group.id`; blocks.
///
/// # Errors
/// As [`lag`].
pub fn lag_by<C: ConsumerContext>(client: &BaseConsumer<C>, topic: &str) -> KafkaResult<BTreeMap<i32, Lag>> {
    let mut lags = BTreeMap::new();
    for (partition, committed) in committed(client, topic)? {
        let (low, high) = client.fetch_watermarks(topic, partition, TIMEOUT)?;
        lags.insert(partition, Lag { committed, low, high });
    }
    Ok(lags)
}

/// A group that begins at `LATEST` or at a time commits that place before anything is read: so it stands even if the
/// first batch fails, the source restarts, or more records come meanwhile. False when the source stops before.
pub(super) async fn commit_starting_position(
    config: &Arc<EventSourceConfig>,
    stats: &Recorder,
    mut stop: watch::Receiver<bool>,
) -> bool {
    if config.starting_position == StartingPosition::TrimHorizon {
        return true;
    }
    loop {
        if *stop.borrow() {
            return false;
        }
        match blocking(config, start_uncommitted).await {
            Ok(()) => return true,
            // Somebody else polls for this group already, and has begun.
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration,
            )) => {
                return true;
            }
            Err(error) => {
                tracing::warn!(%error, "The event source waits for its topic; check that it exists and the brokers are up.");
                stats.lock().last_error = Some(error.to_string());
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), stop.changed()).await;
    }
}

fn start_uncommitted(config: &EventSourceConfig) -> KafkaResult<()> {
    let client: BaseConsumer = client_config(config).create()?;
    let topic = &config.topic;
    let mut list = TopicPartitionList::new();
    for (partition, committed) in committed(&client, topic)? {
        if committed.is_none() {
            list.add_partition(topic, partition);
        }
    }
    if list.count() == 0 {
        return Ok(());
    }
    if let StartingPosition::AtTimestamp(time) = config.starting_position {
        list.set_all_offsets(Offset::Offset(time))?;
        list = client.offsets_for_times(list, TIMEOUT)?;
    }
    let mut starts = TopicPartitionList::new();
    for element in list.elements() {
        let offset = match element.offset() {
            Offset::Offset(offset) => offset,
            // The latest, or a time after the last record.
            _ => client.fetch_watermarks(topic, element.partition(), TIMEOUT)?.1,
        };
        starts.add_partition_offset(topic, element.partition(), Offset::Offset(offset))?;
    }
    client.commit(&starts, CommitMode::Sync)
}

/// The group's committed offset per partition of the topic.
fn committed<C: ConsumerContext>(client: &BaseConsumer<C>, topic: &str) -> KafkaResult<Vec<(i32, Option<i64>)>> {
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().filter(|found| found.name() == topic).flat_map(|topic| topic.partitions())
    {
        list.add_partition(topic, partition.id());
    }
    if list.count() == 0 {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
    }
    let list = client.committed_offsets(list, TIMEOUT)?;
    let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
    Ok(list.elements().iter().map(|element| (element.partition(), offset(element.offset()))).collect())
}

async fn blocking<T: Send + 'static>(
    config: &Arc<EventSourceConfig>,
    ask: impl FnOnce(&EventSourceConfig) -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let config = config.clone();
    match tokio::task::spawn_blocking(move || ask(&config)).await {
        Ok(answer) => answer,
        // The tokio runtime is shutting down.
        Err(_) => Err(KafkaError::Canceled),
    }
}
