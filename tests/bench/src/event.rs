//! An event as large as Lambda allows: people as varied as the recorded ones, chosen by a seed.

use std::fmt::Write;
use std::sync::LazyLock;

use base64_simd::STANDARD;
use pipeline::dataset::Dataset;
use serde_json::{Value, json};

const RECORDED: [&str; 2] = [
    include_str!("../../../localstack/fixtures/randomuser/v1.4-30.json"),
    include_str!("../../../localstack/fixtures/randomuser/v1.3-50.json"),
];
/// Lambda's limit for the payload of an invocation, in bytes.
const MAX_PAYLOAD: usize = 6_291_456;
/// 2026-11-23T05:00:00Z, in milliseconds since 1970. All records are of that hour.
const HOUR: i64 = 1_795_410_000_000;

pub struct Event {
    pub payload: Vec<u8>,
    /// The rows that it must come to: the dataset's columns, and `_offset`.
    pub rows: Vec<Value>,
}

/// Without end.
pub fn people(seed: u64) -> impl Iterator<Item = Value> {
    let pools = Pools::recorded();
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..).map(move |number| pools.person(&mut rng, number))
}

/// What an event is made of.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// Of each partition.
    pub first_offsets: &'a [i64],
    /// Bytes of JSON in a record; as people are, where it is `None`.
    pub record_bytes: Option<usize>,
}

/// Records of `partitions` partitions, in turn.
pub fn full(seed: u64, partitions: usize) -> Event {
    of_shape(seed, Shape { first_offsets: &vec![0; partitions], record_bytes: None })
}

pub fn of_shape(seed: u64, Shape { first_offsets, record_bytes }: Shape) -> Event {
    let partitions = first_offsets.len();
    let pools = Pools::recorded();
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut batches: Vec<_> = first_offsets.iter().map(|offset| (String::new(), *offset)).collect();
    let mut rows = Vec::new();
    let envelope = 200 + partitions * 24;
    let mut size = envelope;
    for number in 0.. {
        let person = match record_bytes {
            None => pools.person(&mut rng, number),
            Some(bytes) => pools.person_of(bytes, &mut rng, number),
        };
        let (batch, offset) = &mut batches[number % partitions];
        let before = batch.len();
        let _ = write!(
            batch,
            r#"{}{{"topic":"names_topic","partition":{},"offset":{offset},"timestamp":{},"timestampType":"LOG_APPEND_TIME","value":"{}","headers":[]}}"#,
            if batch.is_empty() { "" } else { "," },
            number % partitions,
            HOUR + number as i64 * 50,
            STANDARD.encode_to_string(json(&person)),
        );
        size += batch.len() - before;
        if size > MAX_PAYLOAD {
            batch.truncate(before);
            break;
        }
        rows.push(with_offset(person, *offset, number % partitions));
        *offset += 1;
    }
    let batches = batches.iter().enumerate().map(|(n, (records, _))| format!("\"names_topic-{n}\":[{records}]"));
    let payload = format!(
        r#"{{"eventSource":"aws:kafka","eventSourceArn":"arn:aws:kafka:eu-west-1:1:cluster/c/1","bootstrapServers":"b-1:9098,b-2:9098","records":{{{}}}}}"#,
        batches.collect::<Vec<_>>().join(",")
    );
    Event { payload: payload.into_bytes(), rows }
}

/// As the producer writes it: the dataset's columns in their order.
pub fn json(person: &Value) -> String {
    static DATASET: LazyLock<Dataset> = LazyLock::new(|| crate::ours::dataset("parquet", "zstd"));
    let fields: Vec<_> =
        DATASET.columns.iter().map(|column| format!("\"{0}\":{1}", column.name, person[&column.name])).collect();
    format!("{{{}}}", fields.join(","))
}

fn with_offset(mut person: Value, offset: i64, partition: usize) -> Value {
    if let Value::Object(fields) = &mut person {
        fields.retain(|_, value| !value.is_null());
        fields.insert("_offset".to_owned(), json!(offset));
        fields.insert("_partition".to_owned(), json!(partition));
    }
    person
}

/// What the recorded people are put together from.
struct Pools {
    people: Vec<Value>,
}

impl Pools {
    fn recorded() -> Pools {
        let answers = RECORDED.map(|text| serde_json::from_str::<Value>(text).unwrap_or_default());
        let people = answers.iter().flat_map(|answer| answer["results"].as_array().cloned().unwrap_or_default());
        Pools { people: people.collect() }
    }

    /// Each column from another recorded person.
    fn person(&self, rng: &mut fastrand::Rng, number: usize) -> Value {
        let mut any = || &self.people[rng.usize(..self.people.len())];
        let (title, first, last) = (&any()["name"], any(), any());
        let gender = first["gender"].clone();
        let (first, last) = (&first["name"]["first"], &last["name"]["last"]);
        let street = any()["location"]["street"]["name"].clone();
        // A city lies in its country.
        let place = &any()["location"];
        let (city, nation) = (place["city"].clone(), place["country"].clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let zip: String = (0..4).map(|_| format!("{:016x}", rng.u64(..))).collect();
        let degrees = |rng: &mut fastrand::Rng, most: i32| f64::from(rng.i32(-most * 10_000..most * 10_000)) / 10_000.0;
        let mut person = serde_json::Map::new();
        person.insert("name".into(), format!("{}. {} {}", text(&title["title"]), text(first), text(last)).into());
        person.insert("gender".into(), gender);
        person.insert("address".into(), format!("{}, {}", rng.u32(1..10_000), text(&street)).into());
        person.insert("city".into(), city);
        person.insert("nation".into(), nation);
        person.insert("zip".into(), zip.into());
        person.insert("latitude".into(), degrees(rng, 90).into());
        person.insert("longitude".into(), degrees(rng, 180).into());
        let email = format!("{}.{}.{number}@example.com", text(first), text(last)).to_lowercase().replace(' ', "");
        person.insert("email".into(), email.into());
        Value::Object(person)
    }

    /// As few columns as there can be, or an address as long as it takes.
    fn person_of(&self, bytes: usize, rng: &mut fastrand::Rng, number: usize) -> Value {
        let person = self.person(rng, number);
        let mut person = json!({"name": person["name"], "email": person["email"]});
        let mut address = String::new();
        while person.to_string().len() + address.len() + r#","address":"""#.len() < bytes {
            let street = self.people[rng.usize(..self.people.len())]["location"]["street"]["name"].clone();
            let _ = write!(address, "{} {}, ", rng.u32(1..10_000), street.as_str().unwrap_or_default());
        }
        if !address.is_empty() {
            person["address"] = address.into();
        }
        person
    }
}
