//! The settings of an event source as Lambda's `CreateEventSourceMapping` takes them, so that one document serves both:
//! <https://docs.aws.amazon.com/lambda/latest/api/API_CreateEventSourceMapping.html>

use std::time::Duration;

use serde::Deserialize;

use super::{EventSourceConfig, EventSourceKind, OnFailure, StartingPosition};

/// What is wrong in a document of settings: every parameter at once, with what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("{0}. The parameters are those of Lambda's CreateEventSourceMapping")]
    Json(String),
    #[error("correct: {}", .0.join("; "))]
    Parameters(Vec<String>),
}

/// Which function is invoked, and how its topic is polled.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub function_name: String,
    pub config: EventSourceConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    function_name: String,
    topics: Vec<String>,
    event_source_arn: Option<String>,
    self_managed_event_source: Option<SelfManagedEventSource>,
    self_managed_kafka_event_source_config: Option<ConsumerGroup>,
    amazon_managed_kafka_event_source_config: Option<ConsumerGroup>,
    enabled: Option<bool>,
    batch_size: Option<usize>,
    maximum_batching_window_in_seconds: Option<u64>,
    starting_position: StartingPositionName,
    /// Seconds since 1970, as the AWS command line writes a timestamp.
    starting_position_timestamp: Option<f64>,
    provisioned_poller_config: Option<ProvisionedPollers>,
    maximum_retry_attempts: Option<i64>,
    bisect_batch_on_function_error: Option<bool>,
    maximum_record_age_in_seconds: Option<i64>,
    #[serde(default)]
    function_response_types: Vec<String>,
    destination_config: Option<DestinationConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SelfManagedEventSource {
    endpoints: Endpoints,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoints {
    #[serde(rename = "KAFKA_BOOTSTRAP_SERVERS")]
    bootstrap_servers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ConsumerGroup {
    consumer_group_id: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum StartingPositionName {
    TrimHorizon,
    Latest,
    AtTimestamp,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ProvisionedPollers {
    minimum_pollers: Option<usize>,
    maximum_pollers: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct DestinationConfig {
    on_failure: Destination,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Destination {
    destination: String,
}

impl Mapping {
    /// Reads one request. What only AWS can do (`SourceAccessConfigurations`, filters, schema registries, destinations that
    /// are ARNs) is refused, so that nobody takes it for done.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn parse(request: &str) -> Result<Mapping, MappingError> {
        let request: Request = serde_json::from_str(request).map_err(|e| MappingError::Json(e.to_string()))?;
        let mut wrong = Vec::new();
        let topic = match <[String; 1]>::try_from(request.topics) {
            Ok([topic]) => topic,
            Err(topics) => {
                wrong.push(format!("Topics: one, not {}", topics.len()));
                String::new()
            }
        };
        let brokers = request.self_managed_event_source.map(|source| source.endpoints.bootstrap_servers.join(","));
        if brokers.is_none() {
            wrong.push("SelfManagedEventSource: the brokers, also those of an MSK cluster".to_owned());
        }
        let group = request.self_managed_kafka_event_source_config.or(request.amazon_managed_kafka_event_source_config);
        if group.is_none() {
            wrong.push(
                "SelfManagedKafkaEventSourceConfig: a ConsumerGroupId, so that a restart goes on where it was"
                    .to_owned(),
            );
        }
        if request.enabled == Some(false) {
            wrong.push("Enabled: true, or leave the mapping out".to_owned());
        }
        let (brokers, group) = (brokers.unwrap_or_default(), group.map(|g| g.consumer_group_id).unwrap_or_default());
        let mut config = EventSourceConfig::new(topic, brokers, group);
        if let Some(cluster_arn) = request.event_source_arn {
            config.event_source = EventSourceKind::Msk { cluster_arn };
        }
        if let Some(size) = request.batch_size {
            config.batch_size = size;
        }
        if let Some(seconds) = request.maximum_batching_window_in_seconds {
            config.maximum_batching_window = Duration::from_secs(seconds);
        }
        config.starting_position = match (request.starting_position, request.starting_position_timestamp) {
            (StartingPositionName::TrimHorizon, None) => StartingPosition::TrimHorizon,
            (StartingPositionName::Latest, None) => StartingPosition::Latest,
            #[allow(clippy::cast_possible_truncation)] // A time that far away is one all the same.
            (StartingPositionName::AtTimestamp, Some(seconds)) => {
                StartingPosition::AtTimestamp((seconds * 1000.0) as i64)
            }
            _ => {
                wrong.push("StartingPositionTimestamp: with AT_TIMESTAMP, and only with it".to_owned());
                StartingPosition::TrimHorizon
            }
        };
        if let Some(pollers) = request.provisioned_poller_config {
            let minimum = pollers.minimum_pollers.unwrap_or(1);
            config.provisioned = true;
            // Nobody scales here: as many as there may be at least.
            config.pollers = minimum;
            if pollers.maximum_pollers.is_some_and(|maximum| maximum < minimum) {
                wrong.push("ProvisionedPollerConfig: MaximumPollers of MinimumPollers or more".to_owned());
            }
        }
        // -1 is AWS's word for "without end".
        let mut limit = |value: Option<i64>, expected: &str| match value {
            None | Some(-1) => None,
            Some(value) => u64::try_from(value).map_err(|_| wrong.push(expected.to_owned())).ok(),
        };
        let attempts = limit(request.maximum_retry_attempts, "MaximumRetryAttempts: -1 (for ever) to 10,000");
        let age =
            limit(request.maximum_record_age_in_seconds, "MaximumRecordAgeInSeconds: -1 (for ever), or 60 to 604,800");
        config.maximum_retry_attempts = attempts.map(|attempts| u32::try_from(attempts).unwrap_or(u32::MAX));
        config.maximum_record_age = age.map(Duration::from_secs);
        config.bisect_batch_on_function_error = request.bisect_batch_on_function_error.unwrap_or(false);
        for kind in &request.function_response_types {
            match kind.as_str() {
                "ReportBatchItemFailures" => config.report_batch_item_failures = true,
                other => wrong.push(format!("FunctionResponseTypes: ReportBatchItemFailures, not {other}")),
            }
        }
        if let Some(DestinationConfig { on_failure }) = request.destination_config {
            match on_failure.destination.strip_prefix("file://") {
                Some(path) => config.on_failure = Some(OnFailure::File(path.into())),
                None => wrong.push(format!(
                    "DestinationConfig.OnFailure.Destination: file:///path here, not {}",
                    on_failure.destination
                )),
            }
        }
        // The rest is bounded where everybody else's settings are.
        wrong.extend(config.validate().err().into_iter().flat_map(|e| e.wrong));
        match wrong.is_empty() {
            true => Ok(Mapping { function_name: request.function_name, config }),
            false => Err(MappingError::Parameters(wrong)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(changes: Value) -> String {
        let mut request = json!({
            "FunctionName": "freshet-names-consumer",
            "Topics": ["names_topic"],
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["redpanda:29092", "other:9092"]}},
            "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "freshet-names"},
            "StartingPosition": "TRIM_HORIZON",
        });
        for (name, value) in changes.as_object().unwrap() {
            request[name] = value.clone();
        }
        request.to_string()
    }

    fn wrong(changes: Value) -> Vec<String> {
        match Mapping::parse(&request(changes)).unwrap_err() {
            MappingError::Parameters(wrong) => wrong,
            MappingError::Json(message) => vec![message],
        }
    }

    #[test]
    fn what_is_left_out_is_as_on_aws() {
        let Mapping { function_name, config } = Mapping::parse(&request(json!({}))).unwrap();
        assert_eq!((function_name.as_str(), config.topic.as_str()), ("freshet-names-consumer", "names_topic"));
        assert_eq!(config.bootstrap_servers, "redpanda:29092,other:9092");
        assert_eq!(config.consumer_group_id, "freshet-names");
        assert_eq!((config.batch_size, config.maximum_batching_window), (100, Duration::from_millis(500)));
        assert_eq!((config.pollers, config.provisioned, config.retries()), (1, false, None));
        assert_eq!(config.event_source, EventSourceKind::SelfManaged);
    }

    #[test]
    fn every_parameter_is_taken() {
        let Mapping { config, .. } = Mapping::parse(&request(json!({
            "EventSourceArn": "arn:aws:kafka:us-east-1:0:cluster/c/u",
            "Enabled": true,
            "BatchSize": 10000,
            "MaximumBatchingWindowInSeconds": 5,
            "StartingPosition": "AT_TIMESTAMP",
            "StartingPositionTimestamp": 1_795_410_367.5,
            "ProvisionedPollerConfig": {"MinimumPollers": 3, "MaximumPollers": 5},
            "MaximumRetryAttempts": 4,
            "BisectBatchOnFunctionError": true,
            "MaximumRecordAgeInSeconds": 3600,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "DestinationConfig": {"OnFailure": {"Destination": "file:///tmp/given-up"}},
        })))
        .unwrap();
        assert_eq!(
            config.event_source,
            EventSourceKind::Msk { cluster_arn: "arn:aws:kafka:us-east-1:0:cluster/c/u".into() }
        );
        assert_eq!((config.batch_size, config.maximum_batching_window), (10_000, Duration::from_secs(5)));
        assert_eq!(config.starting_position, StartingPosition::AtTimestamp(1_795_410_367_500));
        assert_eq!((config.pollers, config.provisioned, config.retries()), (3, true, Some(4)));
        assert!(config.bisect_batch_on_function_error && config.report_batch_item_failures);
        assert_eq!(config.maximum_record_age, Some(Duration::from_secs(3600)));
        assert!(matches!(config.on_failure, Some(OnFailure::File(path)) if path.ends_with("given-up")));
    }

    #[test]
    fn minus_one_is_for_ever() {
        let forever =
            json!({"ProvisionedPollerConfig": {}, "MaximumRetryAttempts": -1, "MaximumRecordAgeInSeconds": -1});
        let config = Mapping::parse(&request(forever)).unwrap().config;
        assert_eq!((config.retries(), config.maximum_record_age), (None, None));
    }

    #[test]
    fn what_aws_would_refuse_or_only_aws_can_do_is_named() {
        assert!(wrong(json!({"SourceAccessConfigurations": []}))[0].contains("SourceAccessConfigurations"));
        assert!(wrong(json!({"StartingPosition": "EARLIEST"}))[0].contains("TRIM_HORIZON"));
        assert_eq!(wrong(json!({"BatchSize": 10_001})), ["batch_size: 1 to 10,000"]);
        assert_eq!(wrong(json!({"MaximumRetryAttempts": 3})), ["maximum_retry_attempts: only in provisioned mode"]);
        let many = wrong(json!({
            "Topics": ["a", "b"],
            "SelfManagedEventSource": null,
            "SelfManagedKafkaEventSourceConfig": null,
            "Enabled": false,
            "StartingPosition": "AT_TIMESTAMP",
            "ProvisionedPollerConfig": {"MinimumPollers": 3, "MaximumPollers": 2},
            "MaximumRetryAttempts": -2,
            "MaximumRecordAgeInSeconds": -2,
            "FunctionResponseTypes": ["Other"],
            "DestinationConfig": {"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:0:queue"}},
        }));
        for name in [
            "Topics",
            "SelfManagedEventSource",
            "ConsumerGroupId",
            "Enabled",
            "StartingPositionTimestamp",
            "ProvisionedPollerConfig",
            "MaximumRetryAttempts",
            "MaximumRecordAgeInSeconds",
            "FunctionResponseTypes",
            "DestinationConfig",
        ] {
            assert!(many.iter().any(|message| message.contains(name)), "{name}: {many:?}");
        }
    }
}
