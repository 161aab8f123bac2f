//! The settings of an event source, named and bounded like those of AWS's event source mapping.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::failure::GivenUp;

/// Where a consumer group without a committed offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartingPosition {
    #[default]
    TrimHorizon,
    Latest,
    /// The first record of this time or later, Unix milliseconds.
    AtTimestamp(i64),
}

/// What the event says of its origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EventSourceKind {
    Msk {
        cluster_arn: String,
    },
    #[default]
    SelfManaged,
}

/// Takes records that are given up on, or says why it cannot. It may block.
pub type OnFailureCall = Arc<dyn Fn(&GivenUp) -> Result<(), String> + Send + Sync>;

/// Where records go that are given up on.
#[derive(Clone)]
pub enum OnFailure {
    /// One line of JSON each is appended, with the whole event in it, as AWS writes it to an S3 destination.
    File(PathBuf),
    /// An error keeps the records from being given up: they are tried again.
    Call(OnFailureCall),
}

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OnFailure::File(path) => f.debug_tuple("File").field(path).finish(),
            OnFailure::Call(_) => f.write_str("Call"),
        }
    }
}

/// See each field's AWS counterpart in `CreateEventSourceMapping`.
#[derive(Debug, Clone)]
pub struct EventSourceConfig {
    pub topic: String,
    /// `host:port`, comma-separated; stands so in the event.
    pub bootstrap_servers: String,
    /// Passed on to librdkafka (security, timeouts). Stronger than ours, but for the group, the brokers and the commit.
    pub kafka_properties: Vec<(String, String)>,
    pub consumer_group_id: String,
    /// 1 to 10,000 records; also limited by the event's 6,291,456 bytes.
    pub batch_size: usize,
    /// 0 to 300 s after the first record of a batch was received.
    pub maximum_batching_window: Duration,
    pub starting_position: StartingPosition,
    pub event_source: EventSourceKind,
    /// Members of the consumer group. Each owns some partitions, its batches may mix them, and it has one batch at work.
    pub pollers: usize,
    /// Provisioned mode; without it the settings below are refused, as AWS refuses them.
    pub provisioned: bool,
    /// Retries after the first attempt. `None`: for ever, or 10 when there is an `on_failure`.
    pub maximum_retry_attempts: Option<u32>,
    /// After an error of the function the batch is halved. That does not count as a retry.
    pub bisect_batch_on_function_error: bool,
    /// Records older than this are given up on. At least 60 s.
    pub maximum_record_age: Option<Duration>,
    /// The response may name the offset per partition from which on the batch is to be retried.
    pub report_batch_item_failures: bool,
    pub on_failure: Option<OnFailure>,
    /// The longest pause before a retry. Pauses start at 0.1 s, double, and are jittered.
    pub retry_backoff_cap: Duration,
    /// How long [`super::EventSource::stop`] waits for invocations under way.
    pub stop_grace: Duration,
    /// For tests: a failed batch is cut at a random place before it is retried, so that retries come in another size.
    pub resize_retries: bool,
}

impl EventSourceConfig {
    /// AWS's defaults: 100 records, 500 ms, from the trim horizon, on demand, retried for ever.
    pub fn new(
        topic: impl Into<String>,
        bootstrap_servers: impl Into<String>,
        consumer_group_id: impl Into<String>,
    ) -> Self {
        Self {
            topic: topic.into(),
            bootstrap_servers: bootstrap_servers.into(),
            kafka_properties: Vec::new(),
            consumer_group_id: consumer_group_id.into(),
            batch_size: 100,
            maximum_batching_window: Duration::from_millis(500),
            starting_position: StartingPosition::default(),
            event_source: EventSourceKind::default(),
            pollers: 1,
            provisioned: false,
            maximum_retry_attempts: None,
            bisect_batch_on_function_error: false,
            maximum_record_age: None,
            report_batch_item_failures: false,
            on_failure: None,
            retry_backoff_cap: Duration::from_secs(10),
            stop_grace: Duration::from_secs(10),
            resize_retries: false,
        }
    }

    /// # Errors
    /// Every wrong setting, with what was expected.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        let mut check = |right: bool, message: &str| {
            if !right {
                wrong.push(message.to_owned());
            }
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        check(
            (1..=249).contains(&self.topic.len()) && self.topic.chars().all(legal),
            "topic: 1 to 249 of the characters a-z A-Z 0-9 . _ -",
        );
        check(!self.bootstrap_servers.trim().is_empty(), "bootstrap_servers: host:port, comma-separated");
        check((1..=200).contains(&self.consumer_group_id.len()), "consumer_group_id: 1 to 200 characters");
        check((1..=10_000).contains(&self.batch_size), "batch_size: 1 to 10,000");
        check(self.maximum_batching_window <= Duration::from_secs(300), "maximum_batching_window: 0 to 300 s");
        check((1..=100).contains(&self.pollers), "pollers: 1 to 100");
        check(!self.retry_backoff_cap.is_zero(), "retry_backoff_cap: more than 0 s");
        if !self.provisioned {
            check(self.maximum_retry_attempts.is_none(), "maximum_retry_attempts: only in provisioned mode");
            check(!self.bisect_batch_on_function_error, "bisect_batch_on_function_error: only in provisioned mode");
            check(self.maximum_record_age.is_none(), "maximum_record_age: only in provisioned mode");
            check(!self.report_batch_item_failures, "report_batch_item_failures: only in provisioned mode");
        }
        check(self.maximum_retry_attempts.is_none_or(|n| n <= 10_000), "maximum_retry_attempts: 0 to 10,000");
        check(
            self.maximum_record_age.is_none_or(|age| (60..=604_800).contains(&age.as_secs())),
            "maximum_record_age: 60 s to 7 days",
        );
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError { wrong }) }
    }

    /// Retries after the first attempt; `None` is for ever.
    pub(super) fn retries(&self) -> Option<u32> {
        // AWS: "infinite" retries end after 10 when there is somewhere else to put the records.
        self.maximum_retry_attempts.or(self.on_failure.as_ref().map(|_| 10))
    }
}

/// Settings that AWS would refuse too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event source cannot start; correct: {}", wrong.join("; "))]
pub struct ConfigError {
    /// Setting and what was expected of it.
    pub wrong: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_retry_for_ever() {
        let config = EventSourceConfig::new("names_topic", "localhost:9092", "group");
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.retries(), None);
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let config = EventSourceConfig {
            batch_size: 10_001,
            maximum_batching_window: Duration::from_secs(301),
            pollers: 0,
            ..EventSourceConfig::new("no topic", "localhost:9092", "group")
        };
        let error = config.validate().unwrap_err();
        assert_eq!(error.wrong.len(), 4, "{error}");
    }

    #[test]
    fn what_needs_provisioned_mode_is_refused_without_it() {
        let mut config = EventSourceConfig {
            maximum_retry_attempts: Some(3),
            bisect_batch_on_function_error: true,
            maximum_record_age: Some(Duration::from_secs(60)),
            report_batch_item_failures: true,
            ..EventSourceConfig::new("t", "b", "g")
        };
        assert_eq!(config.validate().unwrap_err().wrong.len(), 4);
        config.provisioned = true;
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn an_on_failure_destination_ends_infinite_retries_after_ten() {
        let mut config = EventSourceConfig::new("t", "b", "g");
        config.on_failure = Some(OnFailure::File("letters".into()));
        assert_eq!(config.retries(), Some(10));
    }
}
