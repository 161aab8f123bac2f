//! The page's requests. docs/PAGE.md has them in a table.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};

use super::guard::{Hosts, guard};
use super::letters::{Found, MOST};
use super::live::{Live, Viewer};
use super::sql::{self, Answer};
use crate::Error;
use crate::status::document::Status;
use crate::verify::{Report, VerifyOptions, verify};

const STYLE: &str = include_str!("templates/page.css");
const SCRIPT: &str = include_str!("templates/page.js");
const ICON: &str = include_str!("templates/icon.svg");
/// Statements are short.
const BODY: usize = 64 << 10;
const QUERIES_AT_ONCE: usize = 2;
const LETTERS: usize = 100;

struct Page {
    live: Arc<Live>,
    queries: Semaphore,
    /// Held while the lake is verified.
    verifying: Mutex<()>,
}

type App = State<Arc<Page>>;

pub fn router(live: Arc<Live>, hosts: Hosts) -> Router {
    let page = Arc::new(Page { live, queries: Semaphore::new(QUERIES_AT_ONCE), verifying: Mutex::default() });
    Router::new()
        .route("/", get(whole))
        .route("/page.css", get(|| file("text/css; charset=utf-8", STYLE)))
        .route("/page.js", get(|| file("text/javascript; charset=utf-8", SCRIPT)))
        .route("/icon.svg", get(|| file("image/svg+xml", ICON)))
        .route("/api/status", get(status))
        .route("/api/events", get(events))
        .route("/api/dead-letters", get(dead_letters))
        .route("/api/runs", post(start_run))
        .route("/api/verify", post(verify_now))
        .route("/api/query", post(query))
        .fallback(|| async {
            refused(StatusCode::NOT_FOUND, "there is no such page: docs/PAGE.md has those that there are")
        })
        .method_not_allowed_fallback(|| async {
            refused(StatusCode::METHOD_NOT_ALLOWED, "that request has another method: docs/PAGE.md has it in a table")
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(hosts, guard))
        .with_state(page)
}

/// Names what the page is made of.
pub fn version() -> String {
    let digest = Sha256::new().chain_update(super::view::PAGE).chain_update(STYLE).chain_update(SCRIPT).finalize();
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// An error of the API: a sentence that says what to do.
fn refused(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(json!({"error": error.to_string()}))).into_response()
}

/// What could not be done, because somebody who was asked did not answer.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        refused(StatusCode::BAD_GATEWAY, self)
    }
}

async fn file(kind: &'static str, text: &'static str) -> ([(HeaderName, &'static str); 2], &'static str) {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text)
}

async fn whole(State(page): App) -> Result<Html<String>, Error> {
    let frame = page.live.look().first().await;
    page.live.view().page(&page.live.dataset, &frame).map(Html)
}

async fn status(State(page): App) -> Json<Status> {
    Json(page.live.look().status().await)
}

#[derive(Serialize)]
struct Update<'a> {
    version: &'a str,
    /// HTML of the parts that are others than in the event before.
    parts: BTreeMap<&'a str, &'a str>,
}

/// One event a second: silence is a sign that the connection is lost.
async fn events(State(page): App) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let viewer = page.live.look();
    let version = page.live.view().version.clone();
    let updates =
        stream::unfold((viewer, version, 0), |(mut viewer, version, seen): (Viewer, String, u64)| async move {
            let frame = viewer.next().await?;
            let new = frame.parts.iter().filter(|(_, (number, _))| *number > seen);
            let update = Update { version: &version, parts: new.map(|(name, (_, html))| (*name, &**html)).collect() };
            // Texts always serialise.
            let event = Event::default().event("status").data(serde_json::to_string(&update).unwrap_or_default());
            Some((Ok(event), (viewer, version, frame.number)))
        });
    Sse::new(updates).keep_alive(KeepAlive::new().interval(Duration::from_secs(5)))
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn dead_letters(State(page): App, limit: Result<Query<Limit>, QueryRejection>) -> Result<Json<Found>, Response> {
    let Query(Limit { limit }) =
        limit.map_err(|_| refused(StatusCode::BAD_REQUEST, "limit is a number: /api/dead-letters?limit=100"))?;
    let found = page.live.letters(limit.unwrap_or(LETTERS).min(MOST)).await;
    found.map(Json).map_err(IntoResponse::into_response)
}

async fn start_run(State(page): App) -> Response {
    match page.live.looker.source.start_run().await {
        Ok(true) => (StatusCode::ACCEPTED, Json(json!({"started": true}))).into_response(),
        Ok(false) => refused(StatusCode::CONFLICT, "a run is under way: wait for its end"),
        Err(error) => error.into_response(),
    }
}

async fn verify_now(State(page): App) -> Result<Json<Report>, Response> {
    let Ok(_verifying) = page.verifying.try_lock() else {
        return Err(refused(StatusCode::CONFLICT, "the lake is being verified: wait for the result"));
    };
    let verified = async {
        let pipeline = page.live.looker.source.pipeline().await?;
        let kafka = page.live.looker.source.kafka().await?;
        verify(&pipeline.lake, &VerifyOptions { deep: true, kafka: Some(kafka), ..VerifyOptions::default() }).await
    };
    verified.await.map(Json).map_err(IntoResponse::into_response)
}

#[derive(Deserialize)]
struct Statement {
    sql: String,
}

async fn query(State(page): App, statement: Result<Json<Statement>, JsonRejection>) -> Result<Json<Answer>, Response> {
    let Json(Statement { sql }) = statement.map_err(|_| {
        refused(
            StatusCode::BAD_REQUEST,
            r#"a query is JSON of 64 kB at most: {"sql": "SELECT …"}, with content-type application/json"#,
        )
    })?;
    let Ok(_permit) = page.queries.try_acquire() else {
        return Err(refused(
            StatusCode::TOO_MANY_REQUESTS,
            "other queries are running: try again when they have ended",
        ));
    };
    let pipeline = page.live.looker.source.pipeline().await.map_err(IntoResponse::into_response)?;
    sql::query(&pipeline.lake, &sql).await.map(Json).map_err(|error| refused(StatusCode::BAD_REQUEST, error))
}
