//! A headless Chromium, steered over WebDriver (<https://www.w3.org/TR/webdriver2/>), which is JSON over HTTP. `tests/cloud/tools.sh chromium`
//! finds or installs it. What it writes to its console, and what it asks of whom, is kept.

use std::path::Path;
use std::time::{Duration, Instant};

use base64_simd::STANDARD;
use serde_json::{Value, json};

use super::server::{self, Server};
use super::stack::skip;

/// A page that computes on a machine that compiles meanwhile may take its time.
const PATIENCE: Duration = Duration::from_secs(60);
/// What WebDriver calls a reference to an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// WebDriver's codes of keys that write nothing.
pub mod keys {
    pub const TAB: &str = "\u{e004}";
    pub const ENTER: &str = "\u{e007}";
    pub const CONTROL: &str = "\u{e009}";
}

/// One window. Dropped, the browser and its profile are gone.
pub struct Browser {
    /// The driver; the browser is in its process group, and ends with it.
    _driver: Server,
    session: String,
    http: reqwest::Client,
    _profile: tempfile::TempDir,
}

/// A request that the browser has sent, and the status of its answer, if one came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub method: String,
    pub url: String,
    pub status: Option<u64>,
}

impl Browser {
    /// `None`, loudly, where there is no browser.
    pub async fn start() -> Option<Browser> {
        let tools = server::root().join("target/tools");
        let (browser, driver) = (tools.join("chromium"), tools.join("chromedriver"));
        if !browser.exists() || !driver.exists() {
            return skip("Chromium is not there: run `tests/cloud/tools.sh chromium`");
        }
        let profile = tempfile::tempdir().unwrap();
        let http = server::http();
        let ready = async |port: u16| {
            let status = http.get(format!("http://127.0.0.1:{port}/status")).send().await;
            let Ok(status) = status else { return false };
            status.text().await.is_ok_and(|text| text.contains(r#""ready":true"#))
        };
        let arguments = |command: &mut std::process::Command, port: u16| {
            command.arg(&driver).arg(format!("--port={port}")).env("HOME", profile.path());
        };
        let driver = Server::start(profile.path().join("driver.log"), arguments, ready).await;
        let options = json!({
            "binary": browser,
            // Root, as in a container, has no sandbox. The rest keeps it from asking anybody anything by itself.
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
                format!("--user-data-dir={}", profile.path().join("profile").display())],
        });
        let capabilities = json!({
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            // Milliseconds: a page that computes may keep a script waiting.
            "timeouts": {"script": 300_000},
        });
        let mut browser = Browser { session: driver.url(), _driver: driver, http, _profile: profile };
        let session = browser.post("/session", json!({"capabilities": {"alwaysMatch": capabilities}})).await;
        browser.session += &format!("/session/{}", session["sessionId"].as_str().unwrap());
        Some(browser)
    }

    pub async fn open(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Runs the body of a function in the page; what it returns.
    pub async fn run(&self, script: &str, arguments: &[Value]) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": arguments})).await
    }

    /// Waits until an expression is neither false, nor null, nor empty; its value. Panics with the page's text, if it does not become that.
    pub async fn until(&self, what: &str, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.run(&format!("return ({expression});"), &[]).await;
            let empty = matches!(value, Value::Null | Value::Bool(false)) || value == json!("") || value == json!(0);
            if !empty {
                return value;
            }
            if Instant::now() > deadline {
                let text = self.run("return document.body.innerText;", &[]).await;
                panic!(
                    "not within {PATIENCE:?}: {what} ({expression}). The page says:\n{}",
                    text.as_str().unwrap_or_default()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the first element of a CSS selector shows.
    pub async fn text(&self, selector: &str) -> String {
        let script = "const e = document.querySelector(arguments[0]); return e && e.innerText;";
        let text = self.run(script, &[json!(selector)]).await;
        text.as_str().unwrap_or_else(|| panic!("the page has no {selector}")).trim().to_owned()
    }

    /// Clicks as a mouse does: whatever is hidden, or lies under something else, cannot be clicked.
    pub async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Types a text in place of what a field holds.
    pub async fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        self.post(&format!("/element/{element}/clear"), json!({})).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Presses keys together, on whatever has the focus.
    pub async fn press(&self, keys: &[&str]) {
        let down = keys.iter().map(|key| json!({"type": "keyDown", "value": key}));
        let up = keys.iter().rev().map(|key| json!({"type": "keyUp", "value": key}));
        let actions: Vec<_> = down.chain(up).collect();
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})).await;
    }

    /// A command of Chromium's own protocol (<https://chromedevtools.github.io/devtools-protocol/>).
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// The window's size in CSS pixels, and which colours its owner likes.
    pub async fn look(&self, width: u32, height: u32, scheme: &str) {
        let phone = width < 600;
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": scheme})).await;
    }

    /// The whole page as PNG, also what lies below the window.
    pub async fn screenshot(&self, file: &Path) {
        let whole = json!({"format": "png", "captureBeyondViewport": true});
        let image = self.devtools("Page.captureScreenshot", whole).await;
        let image = STANDARD.decode_to_vec(image["data"].as_str().unwrap()).unwrap();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, image).unwrap();
    }

    /// Warnings and errors on the console since the last call.
    pub async fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": "browser"})).await;
        let entries = entries.as_array().unwrap().iter();
        let bad = entries.filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING");
        bad.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Every request to a server since the last call. The browser's own pages (`chrome:`) and data in the page ask nobody.
    pub async fn sent(&self) -> Vec<Sent> {
        let entries = self.post("/se/log", json!({"type": "performance"})).await;
        let mut sent: Vec<(String, Sent)> = Vec::new();
        for entry in entries.as_array().unwrap() {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let (method, event) = (&event["message"]["method"], &event["message"]["params"]);
            let id = event["requestId"].as_str().unwrap_or_default().to_owned();
            if method == "Network.requestWillBeSent" {
                let text = |key: &str| event["request"][key].as_str().unwrap().to_owned();
                let asked = ["http", "ws"].iter().any(|scheme| text("url").starts_with(scheme));
                if asked {
                    sent.push((id, Sent { method: text("method"), url: text("url"), status: None }));
                }
            } else if method == "Network.responseReceived" {
                let status = event["response"]["status"].as_u64();
                if let Some((_, sent)) = sent.iter_mut().rev().find(|(known, _)| *known == id) {
                    sent.status = status;
                }
            }
        }
        sent.into_iter().map(|(_, sent)| sent).collect()
    }

    async fn element(&self, selector: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.session);
        let request = self.http.post(&url).header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.unwrap();
        let succeeded = answer.status().is_success();
        let mut answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let value = answer["value"].take();
        assert!(succeeded, "WebDriver {path}: {}", value["message"].as_str().unwrap_or_default());
        value
    }
}
