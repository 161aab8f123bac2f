//! Fetches one answer of the API: time-outs, retries, a limit on its size, and whether it holds records at all.
//!
//! No error quotes an answer: it may hold what only a hashed column may show.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use jmespath::{Rcvar, Variable};
use pipeline::dataset::Source;
use pipeline::record;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::config::ApiConfig;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot make an HTTP client: {0}. Check the system's CA certificates")]
    Client(String),
    #[error("the dataset's header `{0}` is no HTTP header: correct `source.headers` in the dataset file")]
    Header(String),
    #[error(
        "API_AUTHORIZATION is no header value: it holds a character that HTTP does not allow, such as a line end. Correct it"
    )]
    Authorization,
}

/// Why a fetch yielded nothing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the API cannot be reached, or broke off: {0}. Check API_URL and the network")]
    Transport(String),
    #[error("the API answers {status}. {}", advice(*status))]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error(
        "the API's answer is larger than {limit} bytes. Ask for fewer records, or raise API_MAX_BODY_BYTES and the function's memory"
    )]
    TooLarge { limit: usize },
    #[error(
        "the API's answer ({content_type}, {size} bytes) is no JSON, at line {line}, column {column}. Check API_URL"
    )]
    NotJson { content_type: String, size: usize, line: usize, column: usize },
    #[error("the API reports: {0}")]
    Api(String),
    #[error("the API's answer has no array at `{expression}`, but {found}. Check `source.records` in the dataset file")]
    NoRecords { expression: String, found: String },
    #[error("the API asks for {} s of patience, longer than this run lasts. Fetch less often", .0.as_secs())]
    Patience(Duration),
    #[error("the run's time is up")]
    OutOfTime,
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "Check API_AUTHORIZATION",
        404 => "Check API_URL",
        429 => "Fetch less often: FETCH_EVERY_SECONDS",
        500.. => "The API is in trouble; the next run tries again",
        _ => "Check API_URL and the API's documentation",
    }
}

/// What came of a fetch, and how often it was retried.
#[derive(Debug)]
pub struct Fetch {
    pub records: Result<Vec<Rcvar>, FetchError>,
    pub retries: u64,
}

/// How long to wait before a retry: a random time up to `first`, doubled each time, `most` at most.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub attempts: u32,
    pub first: Duration,
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { attempts: 4, first: Duration::from_millis(500), most: Duration::from_secs(8) }
    }
}

impl Backoff {
    fn before_retry(&self, retry: u32) -> Duration {
        let most = self.first.saturating_mul(1 << retry.min(20)).min(self.most);
        // Each RandomState has keys of its own: random enough to spread retries, without a crate.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        most.mul_f64(0.5 + random / 2.0)
    }
}

pub struct Api {
    client: reqwest::Client,
    url: String,
    headers: HeaderMap,
    max_body_bytes: usize,
    pub backoff: Backoff,
}

impl Api {
    /// Connects to nothing yet.
    pub fn new(config: &ApiConfig) -> Result<Api, ApiError> {
        // reqwest panics without a process-wide provider; a second one changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in &config.headers {
            let wrong = || ApiError::Header(name.clone());
            let header: HeaderName = name.parse().map_err(|_| wrong())?;
            headers.insert(header, value.parse().map_err(|_| wrong())?);
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("freshet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .timeout(config.timeout)
            .build()
            .map_err(|e| ApiError::Client(chain(&e)))?;
        let (url, max_body_bytes) = (config.url.clone(), config.max_body_bytes);
        Ok(Api { client, url, headers, max_body_bytes, backoff: Backoff::default() })
    }

    /// Fetches the records of one answer, giving up at `until`.
    pub async fn fetch(&self, source: &Source, authorization: Option<&HeaderValue>, until: Instant) -> Fetch {
        let mut retries = 0;
        loop {
            let attempt = self.attempt(source, authorization);
            let outcome = timeout_at(until, attempt).await.unwrap_or(Err(FetchError::OutOfTime));
            let Err(error) = outcome else { return Fetch { records: outcome, retries: u64::from(retries) } };
            let wait = match &error {
                FetchError::Status { status, retry_after } if is_passing(*status) => *retry_after,
                FetchError::Transport(_) => None,
                _ => return Fetch { records: Err(error), retries: u64::from(retries) },
            };
            if let Some(patience) = wait.filter(|wait| !fits(*wait, until)) {
                return Fetch { records: Err(FetchError::Patience(patience)), retries: u64::from(retries) };
            }
            let wait = wait.unwrap_or_else(|| self.backoff.before_retry(retries));
            if retries + 1 >= self.backoff.attempts || !fits(wait, until) {
                return Fetch { records: Err(error), retries: u64::from(retries) };
            }
            let wait_ms = wait.as_millis() as u64;
            tracing::warn!(%error, wait_ms, "A request to the API failed and is tried again");
            tokio::time::sleep(wait).await;
            retries += 1;
        }
    }

    async fn attempt(&self, source: &Source, authorization: Option<&HeaderValue>) -> Result<Vec<Rcvar>, FetchError> {
        let mut request = self.client.get(&self.url).headers(self.headers.clone());
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(FetchError::Status { status, retry_after: retry_after(answer.headers()) });
        }
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("no content type").to_owned();
        let body = self.body(answer).await?;
        let parsed = serde_json::from_slice::<Variable>(&body);
        let parsed = parsed.map_err(|e| FetchError::NotJson {
            content_type,
            size: body.len(),
            line: e.line(),
            column: e.column(),
        })?;
        records(source, &Rcvar::new(parsed))
    }

    async fn body(&self, mut answer: Response) -> Result<Vec<u8>, FetchError> {
        let limit = self.max_body_bytes;
        let announced = answer.content_length().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
        if announced > limit {
            return Err(FetchError::TooLarge { limit });
        }
        let mut body = Vec::with_capacity(announced);
        while let Some(chunk) = answer.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > limit {
                return Err(FetchError::TooLarge { limit });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// A value for the `Authorization` header, which no log of the HTTP client shows.
pub fn authorization(value: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| ApiError::Authorization)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The records of an answer, unless it is an error that came with status 200.
fn records(source: &Source, answer: &Rcvar) -> Result<Vec<Rcvar>, FetchError> {
    if let Some(expression) = &source.error {
        let reported = record::extract(expression, answer).map_err(FetchError::Api)?;
        if reported.is_truthy() {
            // Only the API's own words; anything else could be records.
            let message = reported.as_string().cloned().unwrap_or_else(|| "an error that is no text".to_owned());
            return Err(FetchError::Api(message.chars().take(300).collect()));
        }
    }
    let expression = || source.records.as_str().to_owned();
    match record::extract(&source.records, answer) {
        Ok(found) => match found.as_ref() {
            Variable::Array(records) => Ok(records.clone()),
            other => Err(FetchError::NoRecords { expression: expression(), found: other.get_type().to_string() }),
        },
        Err(found) => Err(FetchError::NoRecords { expression: expression(), found }),
    }
}

fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn fits(wait: Duration, until: Instant) -> bool {
    Instant::now().checked_add(wait).is_some_and(|end| end < until)
}

/// Seconds, or an HTTP date: <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

fn transport(error: reqwest::Error) -> FetchError {
    // Without the URL: it may hold an API key.
    FetchError::Transport(chain(&error.without_url()))
}

/// An error with its causes: reqwest's own text alone says next to nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
