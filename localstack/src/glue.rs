//! A stand-in for the AWS Glue catalog, for a laptop: LocalStack's free edition has no Glue, and a lake without a
//! catalog shows nothing of how its partitions are registered.
//!
//! It speaks Glue's protocol (JSON 1.1) for the operations that the functions, `freshet` and the tests call:
//! CreateDatabase, GetDatabase, CreateTable, GetTable, CreatePartition, BatchCreatePartition, GetPartition,
//! GetPartitions (whole tables, in pages; no expressions) and DeletePartition. It answers errors of the same names as
//! Glue does, checks that a partition has a value for each key of its table, and keeps everything in one JSON file, so
//! that a lake can be verified when the demo is over. It does **not** check signatures or permissions, knows one
//! catalog, no versions, and nothing of Lake Formation: that something works here says little about IAM.

mod catalog;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

use crate::server::Server;
use catalog::Catalog;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the catalog {} cannot be read ({source}): repair it, or remove it and register again", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("the embedded catalog found no free port on 127.0.0.1 ({0}): close some programs and try again")]
    Listen(std::io::Error),
    #[error("the embedded catalog refused {operation}: {message}. Remove its file and start again")]
    Refused { operation: &'static str, message: String },
}

/// A running catalog. Dropped, it stops; its file stays.
#[derive(Debug)]
pub struct GlueServer {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    catalog: Mutex<Catalog>,
    down: AtomicBool,
    calls: AtomicU64,
}

impl GlueServer {
    /// Serves the catalog of a file (made with the first change, if it is not there) on a free port of the loopback.
    pub async fn start(file: &Path) -> Result<Self, Error> {
        let catalog = Catalog::open(file).map_err(|source| Error::File { file: file.to_owned(), source })?;
        let shared =
            Arc::new(Shared { catalog: Mutex::new(catalog), down: AtomicBool::new(false), calls: AtomicU64::new(0) });
        let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&shared));
        let server = Server::start(router).await.map_err(Error::Listen)?;
        Ok(Self { server, shared })
    }

    /// `http://127.0.0.1:PORT`, for `AWS_ENDPOINT_URL_GLUE`. Any region and any credentials do.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// Makes a database or a table as `CreateDatabase` and `CreateTable` do; one that is there stays as it is.
    pub fn ensure(&self, operation: &'static str, input: &Value) -> Result<(), Error> {
        let mut catalog = self.shared.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        match catalog.call(operation, input) {
            Err(refusal) if refusal.name != "AlreadyExistsException" => {
                Err(Error::Refused { operation, message: refusal.message })
            }
            _ => Ok(()),
        }
    }

    /// Down, it answers every call with 500 and changes nothing.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// How many calls came in, those answered with an error too.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// One of Glue's errors: its name, and a message for a person.
#[derive(Debug)]
struct Refusal {
    name: &'static str,
    message: String,
}

impl Refusal {
    fn new(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, message: message.into() }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    shared.calls.fetch_add(1, Ordering::SeqCst);
    if shared.down.load(Ordering::SeqCst) {
        let refusal = Refusal::new("InternalServiceException", "the catalog is down for a test: try again later");
        return respond(StatusCode::INTERNAL_SERVER_ERROR, failure(&refusal));
    }
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let operation = target.strip_prefix("AWSGlue.").unwrap_or(target);
    let input = match serde_json::from_slice::<Value>(&body) {
        Ok(input) => input,
        Err(error) => {
            let refusal = Refusal::new("SerializationException", format!("the request is not JSON ({error})"));
            return respond(StatusCode::BAD_REQUEST, failure(&refusal));
        }
    };
    // Short: a few changes in memory and one small file.
    let mut catalog = shared.catalog.lock().unwrap_or_else(PoisonError::into_inner);
    match catalog.call(operation, &input) {
        Ok(output) => respond(StatusCode::OK, output),
        Err(refusal) if refusal.name == "InternalServiceException" => {
            respond(StatusCode::INTERNAL_SERVER_ERROR, failure(&refusal))
        }
        Err(refusal) => respond(StatusCode::BAD_REQUEST, failure(&refusal)),
    }
}

fn failure(refusal: &Refusal) -> Value {
    json!({"__type": refusal.name, "Message": refusal.message})
}

fn respond(status: StatusCode, body: Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests;
