//! What Terraform says of a deployment: the file that `terraform output -json` prints.

use std::collections::BTreeMap;
use std::path::Path;

use localstack::event_source::Mapping;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Error;

/// The outputs of `infra/` that commands ask for.
#[derive(Debug, Deserialize)]
pub struct Outputs {
    event_sources: Output<BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    functions: Output<BTreeMap<String, Functions>>,
    #[serde(default)]
    schedules: Output<BTreeMap<String, String>>,
    #[serde(default)]
    bucket: Output<Option<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct Output<T> {
    value: T,
}

/// Names of both functions of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Functions {
    pub producer: String,
    pub consumer: String,
}

impl Outputs {
    pub fn read(path: &Path) -> Result<Outputs, Error> {
        Ok(Outputs::read_text(path)?.1)
    }

    /// Also as they stand in the file, by which a change is seen.
    pub fn read_text(path: &Path) -> Result<(String, Outputs), Error> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let path = path.display();
            Error::stopped(format!(
                "cannot read {path}: {e}. It is what `terraform output -json` prints; in Docker `provision` writes it: make local-logs SERVICE=provision"
            ))
        })?;
        let outputs = Outputs::parse(&text, path)?;
        Ok((text, outputs))
    }

    /// `path` is for the message alone.
    pub fn parse(text: &str, path: &Path) -> Result<Outputs, Error> {
        serde_json::from_str(text).map_err(|e| {
            let path = path.display();
            Error::stopped(format!("{path} is not what `terraform output -json` prints: {e}. Write it again"))
        })
    }

    /// The event source of each dataset.
    pub fn mappings(&self) -> Result<BTreeMap<String, Mapping>, Error> {
        let mut mappings = BTreeMap::new();
        for (name, request) in &self.event_sources.value {
            let mapping = Mapping::parse(request.get());
            let mapping =
                mapping.map_err(|e| Error::stopped(format!("the event source of `{name}` cannot start: {e}")))?;
            mappings.insert(name.clone(), mapping);
        }
        Ok(mappings)
    }

    pub fn functions(&self, dataset: &str) -> Result<&Functions, Error> {
        self.functions.value.get(dataset).ok_or_else(|| {
            let known = self.functions.value.keys().cloned().collect::<Vec<_>>().join(", ");
            Error::stopped(format!(
                "Terraform's outputs name no functions of the dataset `{dataset}`, but of: {known}. Set --dataset"
            ))
        })
    }

    /// Name of the EventBridge rule that starts a dataset's producer.
    pub fn schedule(&self, dataset: &str) -> Option<&str> {
        self.schedules.value.get(dataset).map(String::as_str)
    }

    pub fn bucket(&self) -> Option<&str> {
        self.bucket.value.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUTS: &str = r#"{
        "alarm_topic_arn": {"sensitive": false, "type": "string", "value": "arn"},
        "bucket": {"sensitive": false, "type": "string", "value": "freshet-lake"},
        "event_sources": {"value": {"names": {
            "FunctionName": "freshet-names-consumer", "Topics": ["names_topic"], "StartingPosition": "TRIM_HORIZON",
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["localhost:9092"]}},
            "SelfManagedKafkaEventSourceConfig": {"ConsumerGroupId": "freshet-names"}}}},
        "functions": {"value": {"names": {"producer": "p", "consumer": "c"}}},
        "schedules": {"value": {"names": "freshet-names"}}
    }"#;

    #[test]
    fn terraforms_outputs_are_read() {
        let outputs = Outputs::parse(OUTPUTS, Path::new("outputs.json")).unwrap();
        assert_eq!(outputs.mappings().unwrap()["names"].function_name, "freshet-names-consumer");
        assert_eq!(outputs.functions("names").unwrap().producer, "p");
        assert_eq!((outputs.schedule("names"), outputs.bucket()), (Some("freshet-names"), Some("freshet-lake")));
        let missing = outputs.functions("orders").unwrap_err().to_string();
        assert!(missing.contains("names") && missing.contains("--dataset"), "{missing}");
    }

    #[test]
    fn the_event_sources_alone_will_do() {
        let outputs =
            Outputs::parse(r#"{"event_sources": {"value": {"x": {"Topic": "t"}}}}"#, Path::new("o.json")).unwrap();
        assert_eq!(outputs.bucket(), None);
        let error = outputs.mappings().unwrap_err().to_string();
        assert!(error.contains("`x`") && error.contains("CreateEventSourceMapping"), "{error}");
    }

    #[test]
    fn another_file_is_refused_with_the_command_that_writes_it() {
        let error = Outputs::parse("{}", Path::new("o.json")).unwrap_err().to_string();
        assert!(error.contains("terraform output -json"), "{error}");
        let error = Outputs::read(Path::new("/no/such/file")).unwrap_err().to_string();
        assert!(error.contains("output -json") && error.contains("SERVICE=provision"), "{error}");
    }
}
