//! A proxy between the consumer and its S3 and Glue, in which requests go wrong as they do between a function and AWS.
//!
//! Which request goes wrong, and how, is a function of the seed, the operation, and how many requests of that operation
//! there were before: the same seed makes the same choices. (How many requests there are depends on what the processes do,
//! and that on their timing.) Times are shares of the function's time-out: where that is 3 s in place of a minute, a request
//! that lands minutes later does so after seconds.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Larger than any object that the tests write.
const LARGEST: usize = 64 << 20;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 500, and nothing is done.
    Error500,
    /// 503 SlowDown, and nothing is done.
    SlowDown,
    /// 403, and nothing is done. The SDK does not try it again.
    Denied,
    /// 409, and nothing is done.
    Conflict,
    /// A TCP reset; the request never arrives.
    ResetBefore,
    /// The request is applied, and a TCP reset is all that comes back.
    ResetAfter,
    /// The request is applied, and a 500 comes back.
    AnswerLost,
    /// The request, or its answer, is held until after the function's time-out. Either way it is applied.
    Delay,
    /// A TCP reset, or a 403; the request lands between a tenth of the function's time-out and twice of it later.
    Late,
    /// A part of the time-out passes before it is applied: a few of these, and the function's time is up.
    Slow,
}

impl Fault {
    /// All that an answer or a connection can do; [`Fault::Slow`] is for the function's clock.
    pub const ALL: [Fault; 9] = [
        Fault::Error500,
        Fault::SlowDown,
        Fault::Denied,
        Fault::Conflict,
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::AnswerLost,
        Fault::Delay,
        Fault::Late,
    ];
}

/// How much goes wrong.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// One of these, each as likely as the other.
    pub faults: Vec<Fault>,
    /// The share of requests with a fault, from 0 to 1.
    pub rate: f64,
    /// Every request takes up to so long, so that it can be in the middle of one that something else happens.
    pub latency: Duration,
}

/// How often each fault was injected, by operation.
pub type Injected = BTreeMap<(Fault, &'static str), u64>;

/// A running proxy. Dropped, it takes no more connections.
pub struct FaultProxy {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    task: JoinHandle<()>,
}

struct Proxy {
    /// `host:port` of S3 and of Glue: they start with a stack that has to know the proxy already.
    upstreams: OnceLock<[String; 2]>,
    /// The function's.
    time_out: Duration,
    state: Mutex<State>,
    /// Requests that are on their way to an upstream, those that will land later too.
    under_way: AtomicUsize,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    /// Requests by operation, since the plan was made.
    seen: BTreeMap<&'static str, u64>,
    injected: Injected,
}

impl FaultProxy {
    pub async fn start(time_out: Duration) -> FaultProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Arc::new(Proxy {
            upstreams: OnceLock::new(),
            time_out,
            state: Mutex::default(),
            under_way: AtomicUsize::new(0),
        });
        let task = tokio::spawn(serve(listener, proxy.clone()));
        FaultProxy { address, proxy, task }
    }

    /// For `S3_ENDPOINT` and `AWS_ENDPOINT_URL_GLUE`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where requests go, each an `http://` URL without a path. Before it is known, every one is answered with 502.
    pub fn pass_on_to(&self, s3: &str, glue: &str) {
        let host = |url: &str| url.strip_prefix("http://").expect("the stand-ins speak http").to_owned();
        self.proxy.upstreams.set([host(s3), host(glue)]).expect("the upstreams are known once");
    }

    /// From now on requests go wrong by this plan, counted anew.
    pub fn follow(&self, plan: Plan) {
        let mut state = self.proxy.state();
        state.plan = Some(plan);
        state.seen.clear();
    }

    /// From now on nothing goes wrong. What was held back still lands.
    pub fn calm(&self) {
        self.proxy.state().plan = None;
    }

    /// Since the start.
    pub fn injected(&self) -> Injected {
        self.proxy.state().injected.clone()
    }

    /// Waits until nothing that was held back has yet to land.
    pub async fn settled(&self) {
        while self.proxy.under_way.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Whatever is closed from this side is closed with a reset, as no answer ends a connection.
        stream.set_zero_linger().unwrap();
        stream.set_nodelay(true).unwrap();
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| proxy.clone().answer(request));
            // An error is a client that went away, or a reset.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The connection is to be reset.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("reset")
    }
}

impl std::error::Error for Reset {}

impl Proxy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response, Reset> {
        let (head, body) = request.into_parts();
        let operation = operation(&head);
        let (fault, latency, mut rng) = self.choose(operation);
        let body = to_bytes(Body::new(body), LARGEST).await.map_err(|_| Reset)?;
        tokio::time::sleep(latency.mul_f64(rng.f64())).await;
        let time_out = self.time_out;
        let mut share = |from: f64, to: f64| time_out.mul_f64(from + rng.f64() * (to - from));
        let Some(fault) = fault else { return Ok(self.apply(head, body, Duration::ZERO).await) };
        match fault {
            Fault::Error500 | Fault::SlowDown | Fault::Denied | Fault::Conflict => Ok(refusal(fault, &head)),
            Fault::ResetBefore => Err(Reset),
            Fault::ResetAfter => {
                self.apply(head, body, Duration::ZERO).await;
                Err(Reset)
            }
            Fault::AnswerLost => {
                let refusal = refusal(Fault::Error500, &head);
                self.apply(head, body, Duration::ZERO).await;
                Ok(refusal)
            }
            Fault::Delay => {
                let (held, answer_held) = (share(1.0, 1.3), rng.bool());
                if answer_held {
                    let answer = self.apply(head, body, Duration::ZERO).await;
                    tokio::time::sleep(held).await;
                    Ok(answer)
                } else {
                    Ok(self.apply(head, body, held).await)
                }
            }
            Fault::Late => {
                let (later, denied) = (share(0.1, 2.0), rng.bool());
                let refusal = refusal(Fault::Denied, &head);
                // Nobody waits for it.
                drop(self.apply(head, body, later));
                if denied { Ok(refusal) } else { Err(Reset) }
            }
            Fault::Slow => Ok(self.apply(head, body, share(0.2, 0.5)).await),
        }
    }

    /// What goes wrong with this request; and what else is random about it.
    fn choose(&self, operation: &'static str) -> (Option<Fault>, Duration, fastrand::Rng) {
        let mut state = self.state();
        let number = *state.seen.entry(operation).and_modify(|n| *n += 1).or_default();
        let Some(plan) = state.plan.clone() else { return (None, Duration::ZERO, fastrand::Rng::with_seed(0)) };
        let mut hasher = DefaultHasher::new();
        (plan.seed, operation, number).hash(&mut hasher);
        let mut rng = fastrand::Rng::with_seed(hasher.finish());
        let fault = if rng.f64() < plan.rate { rng.choice(plan.faults) } else { None };
        if let Some(fault) = fault {
            *state.injected.entry((fault, operation)).or_default() += 1;
        }
        (fault, plan.latency, rng)
    }

    /// Sends a request on after a while. It arrives, also when whoever sent it is gone by then.
    fn apply(self: &Arc<Self>, head: Parts, body: Bytes, after: Duration) -> impl Future<Output = Response> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let proxy = self.clone();
        let applied = tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let answer = proxy.forward(head, body).await;
            proxy.under_way.fetch_sub(1, Ordering::SeqCst);
            answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
        });
        async { applied.await.unwrap() }
    }

    /// On a connection of its own, to the end of the answer.
    async fn forward(&self, head: Parts, body: Bytes) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let [s3, glue] = self.upstreams.get().ok_or("the upstreams are not known yet")?;
        let stream = TcpStream::connect(if is_glue(&head) { glue } else { s3 }).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (head, body) = sender.send_request(Request::from_parts(head, Body::from(body))).await?.into_parts();
        let body = to_bytes(Body::new(body), LARGEST).await?;
        Ok(Response::from_parts(head, Body::from(body)))
    }
}

fn is_glue(head: &Parts) -> bool {
    head.headers.contains_key("x-amz-target")
}

/// What the consumer asks for, in its own words.
fn operation(head: &Parts) -> &'static str {
    let path = head.uri.path();
    if is_glue(head) {
        return match head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
            Some("AWSGlue.GetTable") => "Glue GetTable",
            Some("AWSGlue.CreatePartition") => "Glue CreatePartition",
            _ => "Glue",
        };
    }
    match head.method {
        Method::HEAD => "HEAD object",
        Method::GET if head.uri.query().is_some_and(|query| query.contains("list-type=")) => "LIST",
        Method::GET if path.contains("/_ledger/") => "GET ledger",
        Method::PUT if path.contains("/_ledger/") => "PUT ledger",
        Method::PUT if path.contains("_dead_letters/") => "PUT dead letters",
        Method::PUT => "PUT object",
        _ => "other",
    }
}

/// The service's own words for it.
fn refusal(fault: Fault, head: &Parts) -> Response {
    if is_glue(head) {
        // Glue says with 400 what S3 has other numbers for.
        let (status, name) = match fault {
            Fault::SlowDown => (400, "ThrottlingException"),
            Fault::Denied => (400, "AccessDeniedException"),
            Fault::Conflict => (400, "ConcurrentModificationException"),
            _ => (500, "InternalServiceException"),
        };
        let body = format!(r#"{{"__type":"{name}","Message":"injected"}}"#);
        return answer(status, "application/x-amz-json-1.1", body);
    }
    let (status, code) = match fault {
        Fault::SlowDown => (503, "SlowDown"),
        Fault::Denied => (403, "AccessDenied"),
        Fault::Conflict => (409, "ConditionalRequestConflict"),
        _ => (500, "InternalError"),
    };
    // A HEAD has no body, and so no code either.
    let body = match head.method {
        Method::HEAD => String::new(),
        _ => format!(
            r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>"#
        ),
    };
    answer(status, "application/xml", body)
}

fn answer(status: u16, content_type: &'static str, body: String) -> Response {
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::Router;

    use super::*;
    use crate::support::server;

    const TIME_OUT: Duration = Duration::from_millis(600);

    /// An upstream that counts what arrives, behind a proxy in which everything goes wrong in this one way.
    async fn with(fault: Option<Fault>) -> (FaultProxy, Arc<AtomicUsize>) {
        let arrived = Arc::new(AtomicUsize::new(0));
        let counter = arrived.clone();
        let router = Router::new().fallback(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { "applied" }
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let upstream = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let proxy = FaultProxy::start(TIME_OUT).await;
        proxy.pass_on_to(&upstream, &upstream);
        if let Some(fault) = fault {
            proxy.follow(plan(7, vec![fault], 1.0));
        }
        (proxy, arrived)
    }

    fn plan(seed: u64, faults: Vec<Fault>, rate: f64) -> Plan {
        Plan { seed, faults, rate, latency: Duration::ZERO }
    }

    /// The status and the body; or whether the connection was reset.
    async fn put(proxy: &FaultProxy) -> Result<(u16, String), bool> {
        let request = server::http().put(format!("{}/lake/object", proxy.url())).body("body");
        let reset = |error: reqwest::Error| {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            std::iter::from_fn(|| {
                let now = source?;
                source = now.source();
                Some(now)
            })
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        };
        let answer = request.send().await.map_err(reset)?;
        Ok((answer.status().as_u16(), answer.text().await.map_err(reset)?))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_calm_proxy_passes_everything_on() {
        let (proxy, arrived) = with(None).await;
        assert_eq!(put(&proxy).await, Ok((200, "applied".to_owned())));
        assert_eq!((arrived.load(Ordering::SeqCst), proxy.injected()), (1, Injected::new()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refused_request_never_arrives() {
        let refused = [(Fault::Error500, 500), (Fault::SlowDown, 503), (Fault::Denied, 403), (Fault::Conflict, 409)];
        for (fault, status) in refused {
            let (proxy, arrived) = with(Some(fault)).await;
            assert_eq!(put(&proxy).await.unwrap().0, status);
            assert_eq!(arrived.load(Ordering::SeqCst), 0, "{fault:?}");
            assert_eq!(proxy.injected(), Injected::from([((fault, "PUT object"), 1)]));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reset_is_one_of_tcp_and_the_request_arrives_or_does_not() {
        for (fault, arrives) in [(Fault::ResetBefore, 0), (Fault::ResetAfter, 1)] {
            let (proxy, arrived) = with(Some(fault)).await;
            assert_eq!(put(&proxy).await, Err(true), "{fault:?}");
            assert_eq!(arrived.load(Ordering::SeqCst), arrives, "{fault:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lost_answer_is_of_a_request_that_was_applied() {
        let (proxy, arrived) = with(Some(Fault::AnswerLost)).await;
        assert_eq!(put(&proxy).await.unwrap().0, 500);
        assert_eq!(arrived.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delayed_request_is_answered_after_the_time_out_and_applied_also_when_nobody_waits() {
        let (proxy, arrived) = with(Some(Fault::Delay)).await;
        let begin = std::time::Instant::now();
        assert_eq!(put(&proxy).await, Ok((200, "applied".to_owned())));
        assert!(begin.elapsed() >= TIME_OUT, "{:?}", begin.elapsed());
        // Whoever sends the next one is gone as soon as the proxy has it.
        let taken = async {
            while proxy.proxy.under_way.load(Ordering::SeqCst) == 0 && arrived.load(Ordering::SeqCst) == 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            biased;
            () = taken => {}
            answer = put(&proxy) => panic!("{answer:?}"),
        }
        proxy.settled().await;
        assert_eq!(arrived.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_late_request_is_refused_and_lands_all_the_same() {
        let (proxy, arrived) = with(Some(Fault::Late)).await;
        match put(&proxy).await {
            Ok((status, _)) => assert_eq!(status, 403),
            Err(reset) => assert!(reset),
        }
        assert_eq!(arrived.load(Ordering::SeqCst), 0);
        proxy.settled().await;
        assert_eq!(arrived.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_same_seed_makes_the_same_choices() {
        let choices = async |seed| {
            let proxy = FaultProxy::start(TIME_OUT).await;
            proxy.follow(plan(seed, Fault::ALL.to_vec(), 0.5));
            (0..100).map(|_| proxy.proxy.choose("PUT object").0).collect::<Vec<_>>()
        };
        let first = choices(1).await;
        assert_eq!(first, choices(1).await);
        assert_ne!(first, choices(2).await);
        let faults = first.iter().flatten().count();
        assert!((30..=70).contains(&faults), "{faults}");
    }
}
