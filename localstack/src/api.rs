//! A stand-in for the HTTP API that the producer reads: the Random User API (`GET /api/?results=N`, answering
//! `{"results": […], "info": {…}}`) with people recorded from the real one, or any JSON document.
//!
//! It can be asked for any number of people that are all different ([`ApiOptions::distinct`]), so that a test can count
//! what arrives in the lake; it keeps a budget of people still to be handed out; and it can misbehave as real APIs do.
//! Nobody is handed out twice: an answer that its client loses is gone, as it is with the real one.

mod people;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;

use crate::server::Server;
use people::People;

/// As many as the real API gives in one answer.
pub const MOST_PEOPLE: u64 = 5000;
/// A free port of it.
const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the stand-in for the API cannot listen on {0} ({1}): free that port, or name another one")]
    Listen(SocketAddr, std::io::Error),
    #[error("the recorded answers in localstack/fixtures/randomuser are damaged ({0}): take them from git again")]
    Recorded(serde_json::Error),
}

#[derive(Debug, Clone, Default)]
pub struct ApiOptions {
    /// Every person is another one: the recorded ones first, then new ones put together from their parts. Otherwise the
    /// recorded ones come again and again, exactly as they were recorded.
    pub distinct: bool,
    /// Other seeds make other people.
    pub seed: u64,
    /// How many people are handed out in all, before answers are empty; without it, there is no end.
    pub remaining: Option<u64>,
}

/// A way in which an answer goes wrong. Only those that say so hand people out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429 with `Retry-After` in seconds.
    TooManyRequests { retry_after: u64 },
    /// 500.
    ServerError,
    /// 200 with a page of HTML, as proxies answer.
    Html,
    /// 200 with a JSON document that ends in the middle.
    Truncated,
    /// 200 with `{"error": "…"}`, as the real API answers when it is overloaded.
    ErrorObject,
    /// The right answer, late. A client that gives up before takes nobody with it.
    Slow(Duration),
    /// 200 with a JSON document of this many bytes.
    Oversized(usize),
    /// The connection breaks off within the body.
    HangUp,
    /// The right answer breaks off in its middle: its people are handed out, and lost.
    CutOff,
    /// The right answer, in which every second person has no email address.
    Incomplete,
}

/// A running API. Dropped, it stops.
#[derive(Debug)]
pub struct Api {
    server: Server,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Source,
    ledger: Mutex<Ledger>,
    requests: AtomicU64,
}

#[derive(Debug)]
enum Source {
    People(People),
    Document(Mutex<String>),
}

/// What was handed out, what may be, and what goes wrong next.
#[derive(Debug, Default)]
struct Ledger {
    served: u64,
    /// Of each answer that broke off, the numbers of its people.
    lost: Vec<Range<u64>>,
    remaining: Option<u64>,
    faults: VecDeque<Fault>,
}

impl Api {
    /// Serves people on a free port of the loopback.
    pub async fn start(options: ApiOptions) -> Result<Self, Error> {
        Self::start_at(LOOPBACK, options).await
    }

    /// Serves people on this address: in a container, on another than the loopback.
    pub async fn start_at(address: SocketAddr, options: ApiOptions) -> Result<Self, Error> {
        let people = People::new(options.distinct, options.seed).map_err(Error::Recorded)?;
        Self::serve(address, Source::People(people), options.remaining).await
    }

    /// Serves one JSON document at every path, for a dataset of another shape.
    pub async fn start_document(json: impl Into<String>) -> Result<Self, Error> {
        Self::serve(LOOPBACK, Source::Document(Mutex::new(json.into())), None).await
    }

    async fn serve(address: SocketAddr, source: Source, remaining: Option<u64>) -> Result<Self, Error> {
        let ledger = Mutex::new(Ledger { remaining, ..Ledger::default() });
        let shared = Arc::new(Shared { source, ledger, requests: AtomicU64::new(0) });
        let router = match shared.source {
            Source::People(_) => Router::new().route("/api", get(answer)).route("/api/", get(answer)),
            Source::Document(_) => Router::new().fallback(get(answer)),
        };
        let server = Server::start_at(address, router.with_state(Arc::clone(&shared))).await;
        let server = server.map_err(|e| Error::Listen(address, e))?;
        Ok(Self { server, shared })
    }

    /// `http://127.0.0.1:PORT/api/`, to which `?results=N` can be added.
    pub fn url(&self) -> String {
        format!("{}/api/", self.server.url())
    }

    /// How many people were handed out.
    pub fn served(&self) -> u64 {
        self.shared.ledger().served
    }

    /// Who was handed out in answers that broke off: people are numbered from 0 in the order in which they are handed out.
    pub fn lost(&self) -> Vec<Range<u64>> {
        self.shared.ledger().lost.clone()
    }

    /// How many people may still be handed out, unless there is no end to them.
    pub fn remaining(&self) -> Option<u64> {
        self.shared.ledger().remaining
    }

    /// Hands out this many more people, and then none.
    pub fn set_remaining(&self, people: u64) {
        self.shared.ledger().remaining = Some(people);
    }

    /// How many requests came in, those that went wrong too.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The next `times` answers go wrong like this, after those that were ordered before.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        self.shared.ledger().faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Answers go right again.
    pub fn clear_faults(&self) {
        self.shared.ledger().faults.clear();
    }

    /// Serves another document from now on. Does nothing to an API that serves people.
    pub fn set_document(&self, json: impl Into<String>) {
        if let Source::Document(document) = &self.shared.source {
            *document.lock().unwrap_or_else(PoisonError::into_inner) = json.into();
        }
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right answer to a request for this many people, which arrives or does not.
    fn body(&self, results: u64, arrives: bool) -> String {
        match &self.source {
            Source::Document(document) => document.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Source::People(people) => {
                let (first, count) = {
                    let mut ledger = self.ledger();
                    let (first, count) = ledger.take(results);
                    if !arrives {
                        ledger.lost.push(first..first + count);
                    }
                    (first, count)
                };
                people.answer(first, count)
            }
        }
    }
}

impl Ledger {
    /// Hands out up to `wanted` people: the number of the first one, and how many.
    fn take(&mut self, wanted: u64) -> (u64, u64) {
        let count = wanted.min(self.remaining.unwrap_or(u64::MAX));
        let first = self.served;
        self.served += count;
        self.remaining = self.remaining.map(|remaining| remaining - count);
        (first, count)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = shared.ledger().faults.pop_front();
    match fault {
        None => {}
        // The people are handed out after the wait: a client that gives up takes none with it.
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::TooManyRequests { retry_after }) => {
            let error = r#"{"error": "Too many requests: slow down."}"#.to_owned();
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, retry_after)], error).into_response();
        }
        Some(Fault::ServerError) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Fault::Html) => return Html("<!doctype html><title>Sign in to the network</title>").into_response(),
        Some(Fault::Truncated) => return json(r#"{"results": [{"gender": "female", "name": {"ti"#.to_owned()),
        Some(Fault::ErrorObject) => {
            return json(r#"{"error": "Uh oh, something has gone wrong. Please try again."}"#.to_owned());
        }
        Some(Fault::Oversized(bytes)) => {
            let (before, after) = (r#"{"results": [], "padding": ""#, r#""}"#);
            let padding = bytes.saturating_sub(before.len() + after.len());
            return json(format!("{before}{}{after}", "x".repeat(padding)));
        }
        Some(Fault::CutOff | Fault::Incomplete) => {}
        Some(Fault::HangUp) => {
            return break_off(r#"{"results": ["#.to_owned());
        }
    }
    let results = results(uri.query().unwrap_or_default());
    let arrives = fault != Some(Fault::CutOff);
    // Thousands of people take a while in a debug build.
    let body = tokio::task::spawn_blocking(move || shared.body(results, arrives)).await;
    match (body, fault) {
        (Ok(body), Some(Fault::CutOff)) => break_off(body.chars().take(body.len() / 2).collect()),
        (Ok(body), Some(Fault::Incomplete)) => json(without_every_second_email(&body)),
        (Ok(body), _) => json(body),
        (Err(error), _) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// This much of an answer, and then the end of the connection.
fn break_off(start: String) -> Response {
    let start = futures::stream::once(async { Ok(start) });
    let end = futures::stream::once(async {
        // What is before has to be on its way, or the client sees a connection without an answer.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("a test hangs up"))
    });
    json(Body::from_stream(start.chain(end)))
}

fn without_every_second_email(body: &str) -> String {
    let Ok(mut answer) = serde_json::from_str::<serde_json::Value>(body) else { return body.to_owned() };
    let people = answer.get_mut("results").and_then(|people| people.as_array_mut());
    for person in people.into_iter().flatten().step_by(2) {
        person.as_object_mut().and_then(|person| person.remove("email"));
    }
    answer.to_string()
}

/// The number of people asked for: one, as with the real API, where nothing sensible is said.
fn results(query: &str) -> u64 {
    let results = query.split('&').find_map(|parameter| parameter.strip_prefix("results="));
    results.and_then(|results| results.parse().ok()).filter(|results| *results > 0).unwrap_or(1).min(MOST_PEOPLE)
}

fn json(body: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], body.into()).into_response()
}

#[cfg(test)]
mod tests;
