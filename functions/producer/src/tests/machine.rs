//! What stands around the producer in these tests.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flate2::read::GzDecoder;
use pipeline::config::Env;
use pipeline::lake::{Condition, DeadLetter, Head, Listed, Object, Put, PutRequest, Store, StoreError};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::handler::{Invocation, Producer};

pub const HASH_KEY: &str = "0123456789abcdef";
/// A postcode that nothing but the API's answer may hold.
pub const POSTCODE: &str = "POSTCODE-4711";

/// How the API answers one request.
#[derive(Clone)]
pub enum Reply {
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing, for that long.
    Hang(Duration),
}

pub fn reply(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n");
    Reply::Raw([head.as_bytes(), body.as_bytes()].concat())
}

pub fn ok(body: &Value) -> Reply {
    reply("200 OK", "content-type: application/json\r\n", &body.to_string())
}

/// Ends a run at once, at whatever speed this machine runs: the API asks for more patience than there is.
pub fn end() -> Reply {
    reply("429 Too Many Requests", "retry-after: 3600\r\n", "")
}

pub fn person(email: Option<&str>) -> Value {
    json!({
        "name": {"title": "Ms", "first": "Ada", "last": "Byron"}, "gender": "female", "email": email,
        "location": {
            "street": {"number": 1, "name": "Main St"}, "city": "Berne", "country": "Switzerland", "postcode": POSTCODE,
            "coordinates": {"latitude": "1.5", "longitude": "-2.5"}
        }
    })
}

pub fn people(count: usize) -> Value {
    let people: Vec<_> = (0..count).map(|n| person(Some(&format!("{n}@example.com")))).collect();
    json!({"results": people, "info": {}})
}

/// Answers each request with the next reply, and all later ones with the last; remembers what was asked.
pub struct Api {
    pub url: String,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Api {
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/?results=10&key=hush", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 8192];
                let read = socket.read(&mut request).await.unwrap_or_default();
                seen.lock().unwrap().push(String::from_utf8_lossy(&request[..read]).into_owned());
                let reply = if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() };
                tokio::spawn(async move {
                    match reply.unwrap() {
                        Reply::Raw(bytes) => socket.write_all(&bytes).await.unwrap_or_default(),
                        Reply::Hang(time) => tokio::time::sleep(time).await,
                    }
                });
            }
        });
        Api { url, requests }
    }
}

/// A store that can be told to fail.
#[derive(Clone, Default)]
pub struct Memory {
    pub objects: Arc<Mutex<HashMap<String, PutRequest>>>,
    /// How many PUTs fail before one is taken.
    pub failures: Arc<Mutex<u32>>,
}

impl Memory {
    pub fn letters(&self) -> Vec<DeadLetter> {
        let objects = self.objects.lock().unwrap();
        let mut keys: Vec<_> = objects.keys().collect();
        keys.sort();
        let mut letters = Vec::new();
        for key in keys {
            let mut text = String::new();
            GzDecoder::new(objects[key].body.as_ref()).read_to_string(&mut text).unwrap();
            letters.extend(text.lines().map(|line| serde_json::from_str::<DeadLetter>(line).unwrap()));
        }
        letters
    }

    /// A letter's payload, as text.
    pub fn payload(letter: &DeadLetter) -> String {
        let bytes = base64_simd::STANDARD.decode_to_vec(letter.payload.as_ref().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

impl Store for Memory {
    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        let key = request.key.clone();
        let mut failures = self.failures.lock().unwrap();
        if *failures > 0 {
            *failures -= 1;
            return Err(StoreError { operation: "PUT", key, reason: "503 SlowDown".to_owned(), advice: "" });
        }
        let mut objects = self.objects.lock().unwrap();
        assert_eq!(request.condition, Condition::Absent);
        if objects.contains_key(&key) {
            return Ok(Put::Refused);
        }
        objects.insert(key, request);
        Ok(Put::Stored { etag: "e".to_owned() })
    }

    async fn get(&self, _: &str) -> Result<Option<Object>, StoreError> {
        unreachable!("the producer reads nothing")
    }

    async fn head(&self, _: &str) -> Result<Option<Head>, StoreError> {
        unreachable!("the producer reads nothing")
    }

    async fn list(&self, _: &str, _: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        unreachable!("the producer reads nothing")
    }
}

pub type Kafka = MockCluster<'static, DefaultProducerContext>;

pub fn kafka() -> Kafka {
    let kafka = MockCluster::new(1).unwrap();
    kafka.create_topic("names_topic", 3, 1).unwrap();
    kafka
}

pub fn config(api: &str, brokers: &str, more: &[(&str, &str)]) -> Config {
    let mut variables = HashMap::from([
        ("API_URL", api),
        ("KAFKA_BOOTSTRAP_SERVERS", brokers),
        ("S3_BUCKET", "lake"),
        ("HASH_KEY", HASH_KEY),
        ("RUN_SECONDS", "0.05"),
        ("FETCH_EVERY_SECONDS", "0.2"),
    ]);
    variables.extend(more.iter().copied());
    Config::read(Env::new(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())))).unwrap()
}

/// A producer that takes its topic for made and does not wait long between retries.
pub fn producer(api: &Api, kafka: &Kafka, store: &Memory, more: &[(&str, &str)]) -> Producer<Memory> {
    let config = config(&api.url, &kafka.bootstrap_servers(), more);
    let mut producer = Producer::new(config, aws_config::SdkConfig::builder().build(), store.clone()).unwrap();
    let (topic, api) = producer.parts();
    topic.assume();
    api.backoff.first = Duration::from_millis(5);
    producer
}

pub fn scheduled() -> Value {
    json!({"version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}})
}

pub fn invocation(left: Duration) -> Invocation {
    let deadline = pipeline::telemetry::now_ms() + i64::try_from(left.as_millis()).unwrap();
    Invocation { request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned(), deadline_ms: deadline.unsigned_abs() }
}

/// What this thread logs while the guard lives.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn start() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
