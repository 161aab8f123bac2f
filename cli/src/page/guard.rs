//! Who may ask. The page has no password, so it answers only to its own names and to its own pages: a site on the Internet can
//! point a name of its own at 127.0.0.1 (DNS rebinding), or post a form across origins, in the browser of whoever visits it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// No script, style, font or picture from anywhere else, nothing inline, in no other page's frame.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
);

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names by which the page is reached. A port may be another one outside of a container, so ports are not compared.
#[derive(Debug, Clone)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    pub fn new(more: &[String]) -> Hosts {
        let own = ["localhost", "127.0.0.1", "[::1]"];
        Hosts(own.into_iter().chain(more.iter().map(|host| without_port(host))).map(str::to_owned).collect())
    }

    fn allows(&self, host: &str) -> bool {
        self.0.iter().any(|known| known.eq_ignore_ascii_case(without_port(host)))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// A header that stands there once, and is text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn refusal(hosts: &Hosts, request: &Request) -> Option<&'static str> {
    let headers = request.headers();
    let Some(host) = text(headers, header::HOST).filter(|host| hosts.allows(host)) else {
        return Some("this page is not reached by that name: open it at localhost, or start it with --host NAME");
    };
    // Browsers say so of what a page of another site makes them send. A link to the page itself is nothing to refuse.
    if request.uri().path() != "/" && text(headers, FETCH_SITE) == Some("cross-site") {
        return Some("another site's requests are refused: open the page itself");
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    // Only browsers send it, and with every POST that another page could make them send.
    let own = text(headers, header::ORIGIN).and_then(|origin| origin.strip_prefix("http://")) == Some(host);
    (!own).then_some("another page's requests are refused: press the button on the page itself")
}

pub async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&hosts, &request) {
        Some(error) => (StatusCode::FORBIDDEN, Json(json!({"error": error}))).into_response(),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
