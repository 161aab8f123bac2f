//! Light and dark, wide and on a phone, with the keyboard alone and for those who hear the page.

use serde_json::{Value, json};

use crate::support::browser::{Browser, keys};
use crate::support::server::root;
use crate::support::stack::skip;

/// What can be operated, as far as it is shown.
const CONTROLS: &str = "[...document.querySelectorAll('a[href], button, input, select, textarea, summary')]
    .filter(e => !e.disabled && e.checkVisibility())";
/// Name, and place in the page.
const DESCRIBE: &str = "(e => `${e.tagName.toLowerCase()}#${e.id} ${(e.ariaLabel || e.innerText || '').slice(0, 40)} ${CONTROLS.indexOf(e)}`)";

pub async fn everybody_can_read_and_reach_everything(browser: &Browser) {
    for (device, width, height) in [("wide", 1600, 900), ("phone", 390, 844)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme).await;
            browser.run("window.scrollTo(0, 0); document.activeElement.blur();", &[]).await;
            let file = root().join(format!("target/screenshots/page-{device}-{scheme}.png"));
            browser.screenshot(&file).await;
            println!("{}", file.display());
            nothing_lies_beyond_the_edge(browser, device).await;
            axe_finds_nothing(browser, "document", &format!("{device}, {scheme}")).await;
        }
        each_control_has_a_name(browser).await;
        each_control_is_reached_by_the_keyboard(browser).await;
    }
    browser.look(1600, 900, "light").await;
}

/// Tables may be scrolled for themselves; the page as a whole only downwards.
async fn nothing_lies_beyond_the_edge(browser: &Browser, device: &str) {
    let wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(wider, &[]).await, 0, "the page is wider than the window of a {device}");
}

/// `part` is a document or a selector, in JavaScript.
pub async fn axe_finds_nothing(browser: &Browser, part: &str, look: &str) {
    let tools = std::fs::read_dir(root().join("target/tools")).into_iter().flatten().filter_map(Result::ok);
    let Some(axe) = tools.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("/axe-")) else {
        return skip("axe-core is not there: run `tests/cloud/tools.sh axe`").unwrap_or_default();
    };
    let axe = std::fs::read_to_string(axe).unwrap();
    if part == "document" {
        // Pale, it is not connected: a busy machine may be late with an event.
        browser
            .until("the page is connected", "getComputedStyle(document.querySelector('main')).opacity === '1'")
            .await;
    }
    let list = ".then(found => found.violations.flatMap(v => v.nodes.map(n => `${v.id}: ${v.help}: ${n.html.slice(0, 200)}: ${n.failureSummary}`)))";
    let found = browser.run(&format!("{axe};\nreturn axe.run({part}){list}"), &[]).await;
    assert_eq!(found, json!([]), "{look}");
}

/// By the browser's own reckoning, which is what it tells a screen reader.
async fn each_control_has_a_name(browser: &Browser) {
    let tree = browser.devtools("Accessibility.getFullAXTree", json!({})).await;
    let mut named = 0;
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let properties = node["properties"].as_array().into_iter().flatten();
        let focusable = properties.into_iter().any(|p| p["name"] == "focusable" && p["value"]["value"] == true);
        if focusable && role != "RootWebArea" {
            assert_ne!(node["name"]["value"].as_str().unwrap_or_default().trim(), "", "a {role} has no name: {node:#}");
            named += 1;
        }
    }
    assert!(named >= 5, "only {named} controls have been found");
}

/// In turn, from the top, and each shows that it has the focus.
async fn each_control_is_reached_by_the_keyboard(browser: &Browser) {
    let controls = browser.run(&format!("return {CONTROLS}.length"), &[]).await.as_u64().unwrap();
    browser.run("document.activeElement.blur(); window.reached = new Set(); window.hidden = new Set();", &[]).await;
    let note =
        "const e = document.activeElement; if (e !== document.body) { reached.add(e); const s = getComputedStyle(e);
        if (s.outlineStyle === 'none' && s.boxShadow === 'none') hidden.add(e); }";
    for _ in 0..controls + 20 {
        browser.press(&[keys::TAB]).await;
        browser.run(note, &[]).await;
    }
    // What the page has drawn anew since has been reached under its old self.
    let describe = DESCRIBE.replace("CONTROLS", CONTROLS);
    let missed = browser.run(&format!("return {CONTROLS}.filter(e => !reached.has(e)).map({describe})"), &[]).await;
    assert_eq!(missed, json!([]), "the keyboard does not reach these");
    let unseen = browser.run(&format!("return [...hidden].map({describe})"), &[]).await;
    assert_eq!(unseen, Value::Array(Vec::new()), "these do not show that they have the focus");
}
