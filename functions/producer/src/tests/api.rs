//! Fetching: each way in which an API can fail.

use std::time::Duration;

use pipeline::datasets;
use serde_json::json;
use tokio::time::Instant;

use super::machine::{self, Reply, ok, people, reply};
use crate::api::{Api, ApiError, Fetch, FetchError, authorization};

/// Fetches once from an API that gives these replies, with 5 s of time; yields what was asked, too.
async fn fetch(replies: Vec<Reply>, variables: &[(&str, &str)]) -> (Fetch, Vec<String>) {
    fetch_within(replies, variables, Duration::from_secs(5)).await
}

async fn fetch_within(replies: Vec<Reply>, variables: &[(&str, &str)], time: Duration) -> (Fetch, Vec<String>) {
    let server = machine::Api::start(replies).await;
    let config = machine::config(&server.url, "unused:9092", variables);
    let mut api = Api::new(&config.api).unwrap();
    api.backoff.first = Duration::from_millis(5);
    let fetch = api.fetch(&datasets::load("names").unwrap().source, None, Instant::now() + time).await;
    let requests = server.requests.lock().unwrap().clone();
    (fetch, requests)
}

#[tokio::test]
async fn an_answer_is_its_records() {
    let (fetch, requests) = fetch(vec![ok(&people(7))], &[]).await;
    assert_eq!((fetch.records.unwrap().len(), fetch.retries), (7, 0));
    assert!(requests[0].starts_with("GET /api/?results=10&key=hush HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("user-agent: freshet/"), "{}", requests[0]);
}

#[tokio::test]
async fn an_empty_array_is_a_success() {
    let (fetch, _) = fetch(vec![ok(&json!({"results": []}))], &[]).await;
    assert_eq!(fetch.records.unwrap().len(), 0);
}

#[tokio::test]
async fn a_5xx_and_a_broken_connection_are_tried_again() {
    let broken = Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"results\": [".to_vec());
    let replies = vec![reply("500 Internal Server Error", "", ""), broken, ok(&people(2))];
    let (fetch, _) = fetch(replies, &[]).await;
    assert_eq!((fetch.records.unwrap().len(), fetch.retries), (2, 2));
}

#[tokio::test]
async fn a_429_waits_as_long_as_retry_after_says() {
    let started = Instant::now();
    let replies = vec![reply("429 Too Many Requests", "retry-after: 1\r\n", ""), ok(&people(1))];
    let (fetch, _) = fetch(replies, &[]).await;
    assert_eq!(fetch.retries, 1);
    assert!(fetch.records.is_ok() && started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_retry_after_may_be_a_date() {
    let at = jiff::Timestamp::now() + Duration::from_millis(2500);
    let date = at.strftime("%a, %d %b %Y %H:%M:%S GMT");
    let started = Instant::now();
    let headers = format!("retry-after: {date}\r\n");
    let (fetch, _) = fetch(vec![reply("503 Service Unavailable", &headers, ""), ok(&people(1))], &[]).await;
    assert!(fetch.records.is_ok() && started.elapsed() >= Duration::from_millis(1000), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_retry_after_beyond_the_time_left_is_not_waited_for_nor_ignored() {
    let started = Instant::now();
    let replies = vec![reply("429 Too Many Requests", "retry-after: 60\r\n", "")];
    let (fetch, requests) = fetch_within(replies, &[], Duration::from_secs(59)).await;
    assert!(matches!(fetch.records, Err(FetchError::Patience(wait)) if wait.as_secs() == 60));
    assert!(started.elapsed() < Duration::from_secs(20) && requests.len() == 1);
}

#[tokio::test]
async fn an_api_that_stays_down_is_given_up() {
    let (fetch, requests) = fetch(vec![reply("502 Bad Gateway", "", "")], &[]).await;
    assert!(matches!(fetch.records, Err(FetchError::Status { status, .. }) if status.as_u16() == 502));
    assert_eq!((fetch.retries, requests.len()), (3, 4));
}

#[tokio::test]
async fn a_4xx_is_final_and_says_what_to_check() {
    let (fetch, requests) = fetch(vec![reply("403 Forbidden", "", "")], &[]).await;
    let message = fetch.records.unwrap_err().to_string();
    assert_eq!(message, "the API answers 403 Forbidden. Check API_AUTHORIZATION");
    assert_eq!(requests.len(), 1);
}

#[tokio::test]
async fn an_answer_that_holds_no_records_is_a_failed_fetch_and_no_error_quotes_it() {
    let html = "<html><body>Maintenance POSTCODE-4711</body></html>";
    let cases = [
        (reply("200 OK", "content-type: text/html\r\n", html), "(text/html, 51 bytes) is no JSON, at line 1, column 1"),
        (reply("200 OK", "", r#"{"results": [{"postcode": "POSTCODE-4711"#), "is no JSON, at line 1"),
        (reply("200 OK", "", ""), "(no content type, 0 bytes) is no JSON"),
        (reply("200 OK", "", "\u{fffd}\u{0}"), "is no JSON"),
        (ok(&json!({"people": []})), "has no array at `results`, but null. Check `source.records`"),
        (ok(&json!({"results": "POSTCODE-4711"})), "has no array at `results`, but string"),
        (ok(&json!({"results": {"a": 1}})), "has no array at `results`, but object"),
        (
            ok(&json!({"error": "Uh oh, something has gone wrong."})),
            "the API reports: Uh oh, something has gone wrong.",
        ),
        (ok(&json!([1, 2])), "has no array at `results`"),
    ];
    for (reply, expected) in cases {
        let (fetch, requests) = fetch(vec![reply], &[]).await;
        let message = fetch.records.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("POSTCODE"), "{message}");
        assert_eq!(requests.len(), 1, "{message}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_also_when_its_length_is_not_announced() {
    let limit = [("API_MAX_BODY_BYTES", "1000")];
    let body = people(50).to_string();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunk}");
    for reply in [ok(&people(50)), Reply::Raw(chunked.into_bytes())] {
        let (fetch, requests) = fetch(vec![reply.clone()], &limit).await;
        assert!(matches!(fetch.records, Err(FetchError::TooLarge { limit: 1000 })));
        assert_eq!(requests.len(), 1);
    }
}

#[tokio::test]
async fn an_api_that_hangs_is_timed_out_and_tried_again() {
    let replies = vec![Reply::Hang(Duration::from_secs(60)), ok(&people(1))];
    let (fetch, _) = fetch(replies, &[("API_TIMEOUT_SECONDS", "1")]).await;
    assert_eq!((fetch.records.unwrap().len(), fetch.retries), (1, 1));
}

#[tokio::test]
async fn a_fetch_ends_with_the_time_it_has() {
    let started = Instant::now();
    let hang = vec![Reply::Hang(Duration::from_secs(60))];
    let (fetch, _) = fetch_within(hang, &[], Duration::from_millis(300)).await;
    assert!(matches!(fetch.records, Err(FetchError::OutOfTime)));
    // The time-out of one request is longer.
    assert!(started.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn no_error_shows_the_url_since_it_may_hold_a_key() {
    let config = machine::config("http://127.0.0.1:1/?key=hush", "unused:9092", &[]);
    let mut api = Api::new(&config.api).unwrap();
    api.backoff.first = Duration::from_millis(1);
    let source = datasets::load("names").unwrap().source;
    let fetch = api.fetch(&source, None, Instant::now() + Duration::from_secs(5)).await;
    let message = fetch.records.unwrap_err().to_string();
    assert!(message.starts_with("the API cannot be reached") && !message.contains("hush"), "{message}");
}

#[test]
fn an_authorization_is_sent_and_never_shown() {
    assert!(!format!("{:?}", authorization("Bearer hush").unwrap()).contains("hush"));
    assert!(matches!(authorization("two\nlines"), Err(ApiError::Authorization)));
}
