//! The stand-in for the API, over plain HTTP.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Status, headers and body of a GET; a body that breaks off is what came of it.
async fn get(api: &Api, query: &str) -> (u16, String, String) {
    let url = format!("{}{query}", api.url());
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn people(api: &Api, count: u64) -> Vec<Value> {
    let (status, _, body) = get(api, &format!("?results={count}")).await;
    assert_eq!(status, 200);
    match serde_json::from_str::<Value>(&body).unwrap()["results"].take() {
        Value::Array(people) => people,
        other => panic!("{other}"),
    }
}

/// The names of the members at every level, and the types of the values.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(name, value)| format!("{name}:{}", shape(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::String(_) => "string".to_owned(),
        Value::Number(number) if number.is_u64() => "integer".to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn people_who_need_not_differ_are_the_recorded_ones_as_they_were() {
    let api = Api::start(ApiOptions::default()).await.unwrap();
    let recorded: Vec<Value> = people::recorded_people();
    assert_eq!(recorded.len(), 80);
    let answer = people(&api, 200).await;
    assert_eq!(answer.len(), 200);
    assert_eq!(answer[..80], recorded);
    assert_eq!(answer[80..160], recorded);
}

#[tokio::test]
async fn distinct_people_are_distinct_and_look_like_the_recorded_ones() {
    let api = Api::start(ApiOptions { distinct: true, ..ApiOptions::default() }).await.unwrap();
    let shapes: HashSet<String> = people::recorded_people().iter().map(shape).collect();
    let started = Instant::now();
    let mut all = people(&api, 5000).await;
    let taken = started.elapsed();
    all.extend(people(&api, 3000).await);
    assert!(taken.as_secs() < 20, "5,000 people took {taken:?}");

    for part in [&["email"][..], &["name", "last"], &["login", "uuid"]] {
        let values: HashSet<String> = all
            .iter()
            .map(|person| {
                let value = part.iter().fold(person, |value, member| &value[member]);
                format!("{} {value}", person["name"]["first"])
            })
            .collect();
        assert_eq!(values.len(), 8000, "{part:?}");
    }
    for person in &all {
        assert!(shapes.contains(&shape(person)), "{person}");
        for (axis, most) in [("latitude", 90.0), ("longitude", 180.0)] {
            let degrees: f64 = person["location"]["coordinates"][axis].as_str().unwrap().parse().unwrap();
            assert!(degrees.abs() <= most);
        }
        let uuid = person["login"]["uuid"].as_str().unwrap();
        assert!(uuid.len() == 36 && uuid.split('-').count() == 5, "{uuid}");
    }
    let numbers = all.iter().filter(|person| person["location"]["postcode"].is_number()).count();
    assert!((1000..7000).contains(&numbers), "{numbers} of 8000 postcodes are numbers");
}

#[tokio::test]
async fn the_same_seed_makes_the_same_people_and_another_one_others() {
    let mut answers = Vec::new();
    for seed in [7, 7, 8] {
        let api = Api::start(ApiOptions { distinct: true, seed, ..ApiOptions::default() }).await.unwrap();
        answers.push(people(&api, 500).await);
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[tokio::test]
async fn nobody_is_handed_out_beyond_the_budget() {
    let api = Api::start(ApiOptions { distinct: true, remaining: Some(250), ..ApiOptions::default() }).await.unwrap();
    let counts = [people(&api, 100).await.len(), people(&api, 100).await.len(), people(&api, 100).await.len()];
    assert_eq!(counts, [100, 100, 50]);
    assert_eq!((people(&api, 100).await.len(), api.served(), api.remaining()), (0, 250, Some(0)));
    api.set_remaining(1);
    assert_eq!((people(&api, 100).await.len(), api.served()), (1, 251));
    assert_eq!(api.requests(), 5);
}

#[tokio::test]
async fn requests_at_the_same_moment_get_different_people() {
    let api = Api::start(ApiOptions { distinct: true, ..ApiOptions::default() }).await.unwrap();
    let answers = futures::future::join_all((0..20).map(|_| people(&api, 100))).await;
    let emails: HashSet<_> = answers.iter().flatten().map(|person| person["email"].to_string()).collect();
    assert_eq!(emails.len(), 2000);
}

#[tokio::test]
async fn an_answer_goes_wrong_as_often_as_ordered_and_takes_nobody_with_it() {
    let api = Api::start(ApiOptions { remaining: Some(10), ..ApiOptions::default() }).await.unwrap();
    api.fail_next(2, Fault::TooManyRequests { retry_after: 3 });
    api.fail_next(1, Fault::ServerError);
    api.fail_next(1, Fault::Html);
    api.fail_next(1, Fault::Truncated);
    api.fail_next(1, Fault::ErrorObject);
    api.fail_next(1, Fault::Oversized(1 << 20));
    api.fail_next(1, Fault::HangUp);
    api.fail_next(1, Fault::Slow(Duration::from_millis(200)));
    for _ in 0..2 {
        let (status, head, _) = get(&api, "?results=5").await;
        assert!(status == 429 && head.contains("retry-after: 3"), "{head}");
    }
    assert_eq!(get(&api, "?results=5").await.0, 500);
    assert!(get(&api, "?results=5").await.2.starts_with("<!doctype html>"));
    assert!(serde_json::from_str::<Value>(&get(&api, "?results=5").await.2).is_err());
    assert!(serde_json::from_str::<Value>(&get(&api, "?results=5").await.2).unwrap()["error"].is_string());
    let big = get(&api, "?results=5").await.2;
    assert!(big.len() == 1 << 20 && serde_json::from_str::<Value>(&big).is_ok());
    let (status, head, body) = get(&api, "?results=5").await;
    assert!(status == 200 && head.contains("chunked") && !body.ends_with("0\r\n\r\n"), "{body}");
    assert_eq!(api.served(), 0);
    let started = Instant::now();
    assert_eq!(people(&api, 5).await.len(), 5);
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(api.served(), 5);
}

#[tokio::test]
async fn an_answer_that_breaks_off_loses_its_people_and_an_incomplete_one_their_addresses() {
    let api = Api::start(ApiOptions { distinct: true, ..ApiOptions::default() }).await.unwrap();
    assert_eq!(people(&api, 3).await.len(), 3);
    api.fail_next(1, Fault::CutOff);
    let (status, _, body) = get(&api, "?results=4").await;
    assert!(status == 200 && body.contains("email") && !body.ends_with("0\r\n\r\n"), "{body}");
    assert_eq!((api.served(), api.lost().first()), (7, Some(&(3..7))));
    api.fail_next(1, Fault::Incomplete);
    let incomplete = people(&api, 4).await;
    assert_eq!(incomplete.iter().filter(|person| person["email"].is_string()).count(), 2);
    assert!(incomplete.iter().all(|person| person["name"]["first"].is_string()));
    assert_eq!((api.served(), api.lost().len()), (11, 1));
}

#[tokio::test]
async fn odd_requests_get_one_person_and_greedy_ones_5000() {
    assert_eq!([results(""), results("results=0"), results("results=x"), results("nat=de&results=7")], [1, 1, 1, 7]);
    assert_eq!(results("results=999999"), MOST_PEOPLE);
}

#[tokio::test]
async fn a_document_is_served_as_it_stands_until_it_is_replaced() {
    let api = Api::start_document(r#"{"features": []}"#).await.unwrap();
    assert_eq!(get(&api, "anything?x=1").await.2, r#"{"features": []}"#);
    api.set_document("[1]");
    api.fail_next(1, Fault::ServerError);
    assert_eq!(get(&api, "").await.0, 500);
    assert_eq!(get(&api, "").await.2, "[1]");
}

#[tokio::test]
async fn a_stopped_api_takes_no_more_connections() {
    let api = Api::start(ApiOptions::default()).await.unwrap();
    let address = api.url().trim_start_matches("http://").split('/').next().unwrap().to_owned();
    // An idle connection does not hold it up.
    let _idle = TcpStream::connect(&address).await.unwrap();
    let started = Instant::now();
    api.stop().await;
    assert!(TcpStream::connect(&address).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(3));
}
