//! The Lambda Runtime API of one process, on a port of its own, so that no request has to say from which process it
//! comes. Paths, headers and answers as in AWS's "Using the Lambda runtime API" and "Lambda Extensions API".

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{ACCOUNT, MAX_PAYLOAD, random_id};

/// The most that is read of a body, to answer 413 to one that is too large instead of cutting the connection.
const MAX_READ: usize = 64 << 20;

/// What a function answered.
#[derive(Debug)]
pub(super) enum Reply {
    Success(Bytes),
    Error { error_type: String, message: String },
    TooLarge { bytes: usize },
}

/// One invocation on its way to the process.
pub(super) struct Invocation {
    pub(super) request_id: String,
    pub(super) payload: Bytes,
    /// Unix time in milliseconds at which the function is ended.
    pub(super) deadline_ms: u64,
    pub(super) reply: oneshot::Sender<Reply>,
    /// Set when the process has fetched it; until then it can go to another process without being delivered twice.
    pub(super) fetched: Arc<AtomicBool>,
}

/// How far a process has come with its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Init {
    Running,
    Ready,
    Failed { error_type: String, message: String },
}

struct Shared {
    function: String,
    arn: String,
    work: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    current: Mutex<Option<(String, oneshot::Sender<Reply>)>>,
    init: watch::Sender<Init>,
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Option<(String, oneshot::Sender<Reply>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the invocation in hand; false when `request_id` is not its id.
    fn answer(&self, request_id: &str, reply: Reply) -> bool {
        let mut current = self.current();
        match current.take() {
            Some((id, sender)) if id == request_id => {
                // Nobody listens any more when the host was dropped.
                let _ = sender.send(reply);
                true
            }
            other => {
                *current = other;
                false
            }
        }
    }
}

/// The listener and what stands between it and the host.
pub(super) struct Api {
    address: String,
    shared: Arc<Shared>,
    work: mpsc::Sender<Invocation>,
    server: JoinHandle<()>,
}

impl Api {
    /// Listens on a free port of the loopback.
    pub(super) async fn start(function: &str, arn: &str) -> io::Result<Api> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (work, received) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            function: function.to_owned(),
            arn: arn.to_owned(),
            work: tokio::sync::Mutex::new(received),
            current: Mutex::new(None),
            init: watch::Sender::new(Init::Running),
        });
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{request_id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{request_id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .route("/2020-01-01/extension/register", post(register))
            .route("/2020-01-01/extension/event/next", get(extension_event))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "The Runtime API of a function stopped; its process ends and the next invocation starts another.");
            }
        });
        Ok(Api { address, shared, work, server })
    }

    /// `host:port`, the value of `AWS_LAMBDA_RUNTIME_API`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn init(&self) -> watch::Receiver<Init> {
        self.shared.init.subscribe()
    }

    /// Queues an invocation for the process's next request.
    pub(super) async fn send(&self, invocation: Invocation) {
        // The receiver lives in `shared`, which this handle keeps.
        let _ = self.work.send(invocation).await;
    }

    pub(super) fn is_busy(&self) -> bool {
        self.shared.current().is_some()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ErrorBody {
    error_type: String,
    error_message: String,
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    shared.init.send_if_modified(|init| {
        let first = *init == Init::Running;
        if first {
            *init = Init::Ready;
        }
        first
    });
    let received = shared.work.lock().await.recv().await;
    let Some(invocation) = received else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "Host.Stopped", "The host of this function has stopped.");
    };
    invocation.fetched.store(true, Ordering::Release);
    let headers = [
        ("lambda-runtime-aws-request-id", invocation.request_id.clone()),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", shared.arn.clone()),
        ("lambda-runtime-trace-id", trace_id(invocation.deadline_ms)),
        (CONTENT_TYPE.as_str(), "application/json".to_owned()),
    ];
    *shared.current() = Some((invocation.request_id, invocation.reply));
    (headers, invocation.payload).into_response()
}

async fn response(State(shared): State<Arc<Shared>>, Path(request_id): Path<String>, body: Body) -> Response {
    // A body that breaks off is a process that dies: the host sees that, and answers for it.
    let Ok(body) = to_bytes(body, MAX_READ).await else {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "The response could not be read to its end.",
        );
    };
    if body.len() > MAX_PAYLOAD {
        shared.answer(&request_id, Reply::TooLarge { bytes: body.len() });
        let message = format!("Exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes).");
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message);
    }
    accepted(shared.answer(&request_id, Reply::Success(body)))
}

async fn error(
    State(shared): State<Arc<Shared>>,
    Path(request_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (error_type, message) = read_error(&headers, body).await;
    accepted(shared.answer(&request_id, Reply::Error { error_type, message }))
}

async fn init_error(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let (error_type, message) = read_error(&headers, body).await;
    shared.init.send_replace(Init::Failed { error_type, message });
    accepted(true)
}

/// Registers an internal extension that asks for no events: what `lambda_runtime` does so that the real Lambda sends
/// SIGTERM before it ends a process.
async fn register(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Register {
        #[serde(default)]
        events: Vec<String>,
    }
    match serde_json::from_slice::<Register>(&body) {
        Ok(register) if register.events.is_empty() => {
            let answer = serde_json::json!({
                "functionName": shared.function,
                "functionVersion": "$LATEST",
                "handler": "bootstrap",
                "accountId": ACCOUNT,
            });
            let headers =
                [("lambda-extension-identifier", random_id()), (CONTENT_TYPE.as_str(), "application/json".to_owned())];
            (headers, answer.to_string()).into_response()
        }
        Ok(_) => refuse(
            StatusCode::FORBIDDEN,
            "Extension.UnsupportedEvents",
            "This host sends no events to extensions; register for none.",
        ),
        Err(error) => refuse(StatusCode::BAD_REQUEST, "InvalidRequestFormat", &error.to_string()),
    }
}

/// An extension without events waits as long as the process lives.
async fn extension_event() -> Response {
    std::future::pending().await
}

async fn read_error(headers: &HeaderMap, body: Body) -> (String, String) {
    let body = to_bytes(body, MAX_PAYLOAD).await.unwrap_or_default();
    let ErrorBody { mut error_type, mut error_message } = serde_json::from_slice(&body).unwrap_or_default();
    if error_type.is_empty() {
        let header = headers.get("lambda-runtime-function-error-type").and_then(|value| value.to_str().ok());
        error_type = header.unwrap_or("Unhandled").to_owned();
    }
    if error_message.is_empty() {
        error_message = String::from_utf8_lossy(&body).chars().take(2_000).collect();
    }
    (error_type, error_message)
}

fn accepted(known: bool) -> Response {
    if known {
        (StatusCode::ACCEPTED, [(CONTENT_TYPE, "application/json")], r#"{"status":"OK"}"#).into_response()
    } else {
        refuse(StatusCode::BAD_REQUEST, "InvalidRequestID", "This is not the invocation in hand.")
    }
}

fn refuse(status: StatusCode, error_type: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errorType": error_type, "errorMessage": message });
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// An X-Ray trace header that asks not to be sampled.
fn trace_id(now_ms: u64) -> String {
    let root = fastrand::u128(..) >> 32;
    format!("Root=1-{:08x}-{root:024x};Parent={:016x};Sampled=0", now_ms / 1000, fastrand::u64(..))
}
