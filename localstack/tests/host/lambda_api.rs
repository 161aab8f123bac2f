//! A function behind the Invoke API, which a small server plays.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use localstack::{
    event_source::{EventSource, EventSourceConfig, LambdaFunction, LambdaFunctionError},
    runtime::{InvokeError, MAX_PAYLOAD, Payload},
};
use rdkafka::producer::{BaseRecord, Producer};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::embedded_broker::{broker, create_topic, producer};

const SOON: Duration = Duration::from_secs(20);

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, &'static str)>, &'static str);

fn success(body: &'static str) -> Answer {
    (200, vec![("x-amz-executed-version", "$LATEST")], body)
}

fn function_error(body: &'static str) -> Answer {
    (200, vec![("x-amz-executed-version", "$LATEST"), ("x-amz-function-error", "Unhandled")], body)
}

fn throttle() -> Answer {
    let body =
        r#"{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}"#;
    (429, vec![("x-amzn-errortype", "TooManyRequestsException"), ("retry-after", "1")], body)
}

struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Script {
    /// Taken one by one; the last one stays.
    answers: VecDeque<Answer>,
    requests: Vec<Request>,
    delay: Duration,
}

/// The API on a port of the loopback. Dropped, it is down.
struct Api {
    url: String,
    script: Arc<Mutex<Script>>,
    task: JoinHandle<()>,
}

impl Api {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Api {
        let script = Arc::new(Mutex::new(Script { answers: answers.into_iter().collect(), ..Script::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(answer)
            .layer(axum::extract::DefaultBodyLimit::max(2 * MAX_PAYLOAD))
            .with_state(script.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Api { url, script, task }
    }

    fn function(&self, name: &str) -> LambdaFunction {
        LambdaFunction::new(&sdk(&self.url), name).unwrap()
    }

    fn bodies(&self) -> Vec<Bytes> {
        self.script.lock().unwrap().requests.iter().map(|request| request.body.clone()).collect()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let ((status, answer_headers, text), delay) = {
        let mut script = script.lock().unwrap();
        script.requests.push(Request { method, uri, headers, body });
        let last = script.answers.len() == 1;
        let answer = if last { script.answers[0].clone() } else { script.answers.pop_front().unwrap() };
        (answer, script.delay)
    };
    tokio::time::sleep(delay).await;
    let mut response = (StatusCode::from_u16(status).unwrap(), text).into_response();
    for (name, value) in answer_headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn sdk(url: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session".into()), None, "test");
    SdkConfig::builder()
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .build()
}

fn event() -> Bytes {
    Bytes::from_static(br#"{"records":{}}"#)
}

#[tokio::test]
async fn an_event_is_posted_signed_for_lambda_and_answered_with_the_functions_response() {
    let api = Api::start([success(r#"{"rows":3}"#)]).await;
    assert_eq!(api.function("consumer").invoke(event()).await.unwrap(), r#"{"rows":3}"#);
    let script = api.script.lock().unwrap();
    let request = &script.requests[0];
    assert_eq!(request.method, Method::POST);
    assert_eq!(request.uri, "/2015-03-31/functions/consumer/invocations");
    assert_eq!(request.body, event());
    let header = |name: &str| request.headers[name].to_str().unwrap();
    assert_eq!(header("x-amz-invocation-type"), "RequestResponse");
    assert_eq!(header("x-amz-security-token"), "session");
    let authorization = header("authorization");
    let scope = format!("Credential=AKIDEXAMPLE/{}/eu-west-1/lambda/aws4_request", &header("x-amz-date")[..8]);
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 ") && authorization.contains(&scope), "{authorization}");
    let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-invocation-type;x-amz-security-token";
    assert!(authorization.contains(signed), "{authorization}");
}

#[tokio::test]
async fn a_qualifier_and_an_arn_stand_in_the_path_and_the_arns_region_signs() {
    let api = Api::start([success("null")]).await;
    api.function("consumer:live").invoke(event()).await.unwrap();
    api.function("arn:aws:lambda:us-east-2:123456789012:function:consumer:$LATEST").invoke(event()).await.unwrap();
    let script = api.script.lock().unwrap();
    let paths: Vec<_> = script.requests.iter().map(|request| request.uri.path()).collect();
    assert_eq!(
        paths,
        [
            "/2015-03-31/functions/consumer%3Alive/invocations",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-2%3A123456789012%3Afunction%3Aconsumer%3A%24LATEST/invocations",
        ]
    );
    let authorization = script.requests[1].headers["authorization"].to_str().unwrap();
    assert!(authorization.contains("/us-east-2/lambda/aws4_request"), "{authorization}");
}

#[test]
fn what_names_no_function_is_refused_before_anything_is_sent() {
    let sdk = sdk("http://127.0.0.1:1");
    for name in ["", "a function", "../functions", "arn:aws:s3:::lake", "arn:aws:lambda:eu-west-1:1:layer:l"] {
        let refused = LambdaFunction::new(&sdk, name);
        assert!(matches!(&refused, Err(LambdaFunctionError::Name(n)) if n == name), "{refused:?}");
    }
    let nowhere = LambdaFunction::new(&SdkConfig::builder().build(), "consumer");
    assert!(nowhere.unwrap_err().to_string().contains("AWS_REGION"));
}

#[tokio::test]
async fn an_error_of_the_function_fails_the_invocation_though_its_status_is_200() {
    let api = Api::start([
        function_error(r#"{"errorType":"StoreError","errorMessage":"no ledger"}"#),
        function_error(r#"{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited with error: signal: killed"}"#),
        function_error(r#""a value of its own""#),
    ])
    .await;
    let function = api.function("consumer");
    let error = |error_type: &str, message: &str| {
        Err(InvokeError::FunctionError { error_type: error_type.to_owned(), message: message.to_owned() })
    };
    assert_eq!(function.invoke(event()).await, error("StoreError", "no ledger"));
    let killed = "RequestId: 1 Error: Runtime exited with error: signal: killed";
    assert_eq!(function.invoke(event()).await, error("Runtime.ExitError", killed));
    assert_eq!(function.invoke(event()).await, error("no error type", r#""a value of its own""#));
}

#[tokio::test]
async fn a_function_that_ran_past_its_time_out_is_told_from_one_that_failed() {
    let late =
        r#"{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 1 Error: Task timed out after 3.00 seconds"}"#;
    let api = Api::start([function_error(late)]).await;
    let answer = api.function("consumer").invoke(event()).await;
    assert_eq!(answer, Err(InvokeError::Timeout(Duration::from_secs(3))));
}

#[tokio::test]
async fn a_throttled_invocation_fails_and_says_so_and_a_later_one_succeeds() {
    let api = Api::start([throttle(), success("{}")]).await;
    let function = api.function("consumer");
    let refused = function.invoke(event()).await.unwrap_err();
    let (status, error_type) = (429, "TooManyRequestsException".to_owned());
    assert_eq!(refused, InvokeError::Refused { status, error_type, message: "Rate Exceeded.".to_owned() });
    assert!(refused.to_string().contains("concurrency"), "{refused}");
    assert_eq!(function.invoke(event()).await.unwrap(), "{}");
    assert_eq!(api.bodies().len(), 2, "only the event source retries");
}

#[tokio::test]
async fn whatever_kept_the_function_from_running_is_a_failure_with_its_reason() {
    let api = Api::start([
        (503, vec![], r#"{"__type":"com.amazonaws.lambda#ServiceException","Message":"later"}"#),
        (404, vec![("x-amzn-errortype", "ResourceNotFoundException:http://internal.amazon.com/")], "{}"),
        (502, vec![], "<html>Bad gateway</html>"),
        // An asynchronous invocation was accepted: nothing says that the function will succeed.
        (202, vec![], ""),
    ])
    .await;
    let function = api.function("consumer");
    let refused = |status, error_type: &str, message: &str| {
        Err(InvokeError::Refused { status, error_type: error_type.to_owned(), message: message.to_owned() })
    };
    assert_eq!(function.invoke(event()).await, refused(503, "ServiceException", "later"));
    assert_eq!(function.invoke(event()).await, refused(404, "ResourceNotFoundException", "{}"));
    assert_eq!(function.invoke(event()).await, refused(502, "no error type", "<html>Bad gateway</html>"));
    assert_eq!(function.invoke(event()).await, refused(202, "no error type", ""));
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_a_failure_that_names_it() {
    let api = Api::start([success("{}")]).await;
    let url = api.url.clone();
    drop(api);
    let function = LambdaFunction::new(&sdk(&url), "consumer").unwrap();
    let error = tokio::time::timeout(SOON, function.invoke(event())).await.unwrap().unwrap_err();
    assert!(matches!(&error, InvokeError::Unreachable { message } if message.contains(&url)), "{error}");
}

#[tokio::test]
async fn an_answer_is_not_waited_for_longer_than_the_limit() {
    let api = Api::start([success("{}")]).await;
    api.script.lock().unwrap().delay = SOON;
    let limit = Duration::from_millis(300);
    let function = api.function("consumer").time_limit(limit);
    assert_eq!(function.invoke(event()).await, Err(InvokeError::Timeout(limit)));
}

#[tokio::test]
async fn an_event_over_six_megabytes_is_not_sent_and_the_largest_one_is() {
    let api = Api::start([success("{}")]).await;
    let function = api.function("consumer");
    let too_large = function.invoke(vec![b' '; MAX_PAYLOAD + 1].into()).await;
    assert_eq!(too_large, Err(InvokeError::PayloadTooLarge { payload: Payload::Request, bytes: MAX_PAYLOAD + 1 }));
    assert!(api.bodies().is_empty());
    function.invoke(vec![b' '; MAX_PAYLOAD].into()).await.unwrap();
    assert_eq!(api.bodies()[0].len(), MAX_PAYLOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_throttled_is_delivered_later_and_committed_once() {
    let Some(broker) = broker().await else { return };
    create_topic(&broker, "throttled", 1).await;
    let producer = producer(&broker);
    for value in ["one", "two", "three"] {
        producer.send(BaseRecord::<(), _>::to("throttled").partition(0).payload(value)).unwrap();
    }
    producer.flush(SOON).unwrap();
    let api = Api::start([throttle()]).await;
    let config = EventSourceConfig {
        maximum_batching_window: Duration::from_millis(500),
        retry_backoff_cap: Duration::from_millis(200),
        ..EventSourceConfig::new("throttled", broker.bootstrap_servers(), "group")
    };
    let source = EventSource::start(config.clone(), api.function("consumer").invoker()).unwrap();
    let throttled = async {
        while source.stats().failures < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, throttled).await.unwrap();
    assert_eq!(source.lag().await.unwrap()[&0].committed, None);
    let error = source.stats().last_error.unwrap();
    assert!(error.contains("429") && error.contains("TooManyRequestsException"), "{error}");

    api.script.lock().unwrap().answers = [success("{}")].into();
    tokio::time::timeout(SOON, source.drained()).await.unwrap();
    source.stop().await;
    let delivered = api.bodies();
    let [refused @ .., last] = delivered.as_slice() else { panic!("nothing was delivered") };
    assert!(refused.iter().all(|body| body == last), "the batch is tried again whole");
    let event: serde_json::Value = serde_json::from_slice(last).unwrap();
    let offsets: Vec<_> =
        event["records"]["throttled-0"].as_array().unwrap().iter().map(|r| r["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 2]);

    // A second source of the group finds everything committed, and delivers nothing again.
    let again = EventSource::start(config, api.function("consumer").invoker()).unwrap();
    tokio::time::timeout(SOON, again.drained()).await.unwrap();
    assert_eq!(again.lag().await.unwrap()[&0].committed, Some(3));
    again.stop().await;
    assert_eq!(api.bodies().len(), delivered.len());
    broker.stop().await.unwrap();
}
