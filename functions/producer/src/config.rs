//! What the producer reads from its environment, once.

use std::time::Duration;

use aws_config::SdkConfig;
use pipeline::config::{ConfigError, DatasetChoice, Env, LakeConfig};
use pipeline::dataset::Dataset;
use pipeline::kafka::KafkaSettings;
use pipeline::record::HashKey;
use pipeline::secret::{Secret, SecretError};

/// A key that somebody could find by trying is no protection.
const HASH_KEY_EXPECTED: &str = "a random text of at least 16 bytes";

#[derive(Debug)]
pub struct Config {
    pub dataset: Dataset,
    /// The deployed definition of the dataset is not the one in this build.
    pub dataset_mismatch: bool,
    pub api: ApiConfig,
    pub kafka: KafkaSettings,
    pub topic: TopicConfig,
    pub lake: LakeConfig,
    /// Of the hashed columns; absent where the dataset has none.
    pub hash_key: Option<Secret>,
    /// Fetches begin within this time.
    pub run: Duration,
    pub fetch_every: Duration,
    /// How long Kafka may take to acknowledge a record.
    pub delivery_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct ApiConfig {
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Value of the `Authorization` header.
    pub authorization: Option<Secret>,
    pub connect_timeout: Duration,
    /// Of one request with its answer, not of its retries.
    pub timeout: Duration,
    pub max_body_bytes: usize,
}

/// The topic as it is created, and as it should be.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    pub name: String,
    pub partitions: i32,
    pub replication_factor: i32,
    pub retention: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HashKeyError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the secret that HASH_KEY_SECRET names is too short for a hash key: store {HASH_KEY_EXPECTED}")]
    Short,
}

impl Config {
    pub fn read(mut env: Env) -> Result<Config, ConfigError> {
        let choice = DatasetChoice::read(&mut env);
        let lake = LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
        let kafka = KafkaSettings::read(&mut env);
        let Some(DatasetChoice { dataset, mismatch }) = choice else {
            // The choice is missing only together with a problem.
            return Err(env.finish(()).err().unwrap_or(ConfigError(Vec::new())));
        };
        let config = Config {
            api: ApiConfig::read(&mut env, &dataset),
            kafka,
            topic: TopicConfig::read(&mut env, &dataset),
            lake,
            hash_key: read_hash_key(&mut env, &dataset),
            run: seconds(&mut env, "RUN_SECONDS", dataset.schedule.run),
            fetch_every: seconds(&mut env, "FETCH_EVERY_SECONDS", dataset.schedule.fetch_every),
            delivery_timeout: seconds(&mut env, "KAFKA_DELIVERY_TIMEOUT_SECONDS", Duration::from_secs(30)),
            dataset_mismatch: mismatch,
            dataset,
        };
        env.finish(config)
    }

    /// The key of the hashed columns, asked for anew in each run.
    pub async fn hash_key(&self, sdk: &SdkConfig) -> Result<Option<HashKey>, HashKeyError> {
        match &self.hash_key {
            None => Ok(None),
            Some(secret) => HashKey::new(&secret.fetch(sdk).await?).map(Some).ok_or(HashKeyError::Short),
        }
    }
}

fn read_hash_key(env: &mut Env, dataset: &Dataset) -> Option<Secret> {
    let column = dataset.columns.iter().find(|column| column.hashed)?;
    let secret = Secret::read(env, "HASH_KEY");
    match &secret {
        None => {
            let name = &column.name;
            env.problem(
                "HASH_KEY",
                format!("is not set, and column `{name}` is hashed; expected {HASH_KEY_EXPECTED}, or HASH_KEY_SECRET"),
            );
        }
        Some(Secret::Value(key)) if HashKey::new(key).is_none() => {
            env.problem("HASH_KEY", format!("is too short; expected {HASH_KEY_EXPECTED}"));
        }
        Some(_) => {}
    }
    secret
}

impl ApiConfig {
    fn read(env: &mut Env, dataset: &Dataset) -> ApiConfig {
        let url = env.or("API_URL", &dataset.source.url);
        let host = reqwest::Url::parse(&url).is_ok_and(|u| u.has_host() && matches!(u.scheme(), "http" | "https"));
        if !host {
            env.problem("API_URL", format!("is `{url}`; expected https://… or http://…"));
        }
        const MIB: usize = 1024 * 1024;
        let expected = "a size in bytes, at least 1";
        let max_body_bytes = env.parse("API_MAX_BODY_BYTES", 16 * MIB, expected);
        if max_body_bytes == 0 {
            env.problem("API_MAX_BODY_BYTES", format!("is 0; expected {expected}"));
        }
        ApiConfig {
            url,
            headers: dataset.source.headers.clone(),
            authorization: Secret::read(env, "API_AUTHORIZATION"),
            connect_timeout: seconds(env, "API_CONNECT_TIMEOUT_SECONDS", Duration::from_secs(5)),
            timeout: seconds(env, "API_TIMEOUT_SECONDS", Duration::from_secs(20)),
            max_body_bytes,
        }
    }
}

impl TopicConfig {
    fn read(env: &mut Env, dataset: &Dataset) -> TopicConfig {
        let topic = &dataset.topic;
        let mut between = |name: &str, default: i32, most: i32| {
            let expected = format!("a number between 1 and {most}");
            let value = env.parse(name, default, &expected);
            if !(1..=most).contains(&value) {
                env.problem(name, format!("is `{value}`; expected {expected}"));
            }
            value
        };
        TopicConfig {
            name: topic.name.clone(),
            partitions: between("TOPIC_PARTITIONS", topic.partitions, 10_000),
            replication_factor: between("TOPIC_REPLICATION_FACTOR", topic.replication_factor, 15),
            retention: topic.retention,
        }
    }
}

/// A time span in seconds, `0.2` too.
fn seconds(env: &mut Env, name: &str, default: Duration) -> Duration {
    let expected = "seconds above 0 and up to 900, such as 10 or 0.5";
    let value: f64 = env.parse(name, default.as_secs_f64(), expected);
    if (0.001..=900.0).contains(&value) {
        return Duration::from_secs_f64(value);
    }
    env.problem(name, format!("is `{value}`; expected {expected}"));
    default
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let base = [("S3_BUCKET", "b"), ("KAFKA_BOOTSTRAP_SERVERS", "k:9092"), ("HASH_KEY", "0123456789abcdef")];
        let mut variables = std::collections::HashMap::from(base);
        variables.extend(pairs.iter().copied());
        Config::read(Env::new(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()))))
    }

    #[test]
    fn the_dataset_gives_the_defaults_and_the_environment_overrides_them() {
        let config = read(&[]).unwrap();
        assert_eq!(config.api.url, "https://randomuser.me/api/?results=10");
        assert_eq!((config.run.as_secs(), config.fetch_every.as_secs()), (120, 10));
        assert_eq!((config.topic.partitions, config.topic.replication_factor), (3, 2));
        let config = read(&[
            ("API_URL", "http://127.0.0.1:8/api"),
            ("RUN_SECONDS", "3"),
            ("FETCH_EVERY_SECONDS", "0.2"),
            ("TOPIC_REPLICATION_FACTOR", "1"),
        ])
        .unwrap();
        assert_eq!(config.api.url, "http://127.0.0.1:8/api");
        assert_eq!((config.run.as_millis(), config.fetch_every.as_millis()), (3_000, 200));
        assert_eq!(config.topic.replication_factor, 1);
    }

    #[test]
    fn every_wrong_variable_is_named_with_what_was_expected() {
        let cases = [
            ("HASH_KEY", "short", "HASH_KEY is too short; expected a random text of at least 16 bytes"),
            ("HASH_KEY", "", "HASH_KEY is not set, and column `zip` is hashed"),
            ("RUN_SECONDS", "0", "RUN_SECONDS is `0`; expected seconds above 0"),
            ("FETCH_EVERY_SECONDS", "NaN", "FETCH_EVERY_SECONDS is `NaN`; expected seconds"),
            ("API_TIMEOUT_SECONDS", "soon", "API_TIMEOUT_SECONDS is `soon`; expected seconds"),
            ("API_URL", "localhost", "API_URL is `localhost`; expected https://"),
            ("API_MAX_BODY_BYTES", "0", "API_MAX_BODY_BYTES is 0; expected a size in bytes"),
            ("TOPIC_PARTITIONS", "0", "TOPIC_PARTITIONS is `0`; expected a number between 1 and 10000"),
            ("DATASET", "nope", "DATASET cannot be used: no dataset is named `nope`"),
        ];
        for (name, value, expected) in cases {
            let message = read(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn no_key_and_no_password_is_printed() {
        let config = read(&[("API_AUTHORIZATION", "Bearer hush")]).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush") && !shown.contains("0123456789abcdef"), "{shown}");
    }
}
