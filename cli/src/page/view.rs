//! From the document to HTML. Each number is drawn by its path in the document, so that page and API cannot differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error as TemplateError, HtmlEscape, State, UndefinedBehavior, context};
use serde::Serialize;

use super::chart::{History, charts};
use super::format;
use super::letters::Found;
use crate::status::document::Status;
use crate::{Error, text};

/// Parts of the page that change, and their templates; each stands in an element with this id.
const PARTS: [(&str, &str); 8] = [
    ("summary", include_str!("templates/summary.html")),
    ("schedule", include_str!("templates/schedule.html")),
    ("producer", include_str!("templates/producer.html")),
    ("topic", include_str!("templates/topic.html")),
    ("consumer", include_str!("templates/consumer.html")),
    ("lake", include_str!("templates/lake.html")),
    ("charts", include_str!("templates/charts.html")),
    ("dead-letters", include_str!("templates/dead_letters.html")),
];
pub const PAGE: &str = include_str!("templates/page.html");

/// A query that can be chosen.
#[derive(Debug, Clone, Serialize)]
pub struct SavedQuery {
    pub name: &'static str,
    pub sql: String,
}

/// One picture: the HTML of each part.
#[derive(Debug, Default)]
pub struct Frame {
    pub number: u64,
    /// By the part's id: the number of the picture in which it became what it is, and its HTML.
    pub parts: BTreeMap<&'static str, (u64, Arc<str>)>,
}

pub struct View {
    templates: Environment<'static>,
    saved: Vec<SavedQuery>,
    /// Another one means other scripts: a page that was open over a new start loads itself again.
    pub version: String,
}

impl View {
    /// `version` names what the page is made of.
    pub fn new(saved: Vec<SavedQuery>, version: String) -> Result<View, Error> {
        let mut templates = Environment::new();
        // A name that is misspelt is a defect, not a gap in the page.
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
        templates.add_function("number", number);
        templates.add_filter("bytes", format::bytes);
        templates.add_filter("thousands", format::thousands);
        templates.add_filter("milliseconds", format::milliseconds);
        templates.add_filter("age", |ms: i64| text::age(ms.div_euclid(1000)));
        templates.add_filter("clock", clock);
        templates.add_filter("time", text::time);
        for (name, source) in PARTS.into_iter().chain([("page", PAGE)]) {
            templates.add_template(name, source).map_err(defect)?;
        }
        Ok(View { templates, saved, version })
    }

    /// The next picture; parts that are as before keep their number.
    pub fn frame(&self, before: &Frame, status: &Status, history: &History<'_>, letters: &Found) -> Frame {
        let number = before.number + 1;
        let context = context! {
            status => Serde(status),
            now => status.at,
            charts => Serde(charts(history)),
            letters => Serde(letters),
        };
        let mut parts = BTreeMap::new();
        for (name, _) in PARTS {
            let drawn = self.templates.get_template(name).and_then(|template| template.render(&context));
            let html = drawn.unwrap_or_else(|error| defective(&error));
            let same = before.parts.get(name).filter(|(_, before)| **before == *html);
            parts.insert(name, same.cloned().unwrap_or_else(|| (number, html.into())));
        }
        Frame { number, parts }
    }

    /// The whole page.
    pub fn page(&self, dataset: &str, frame: &Frame) -> Result<String, Error> {
        let parts: BTreeMap<&str, Value> =
            frame.parts.iter().map(|(name, (_, html))| (*name, Value::from_safe_string(html.to_string()))).collect();
        let context = context! { dataset, parts, saved => Serde(&self.saved), version => &*self.version };
        self.templates.get_template("page").and_then(|page| page.render(context)).map_err(defect)
    }
}

/// Who looks shall see it: there is no log.
fn defective(error: &TemplateError) -> String {
    let reason = format!("{error:#}");
    let reason = HtmlEscape(&reason);
    format!("<p class=\"trouble\">This part cannot be drawn. It is a defect: please report it: {reason}</p>")
}

fn defect(error: TemplateError) -> Error {
    Error::stopped(format!("the page cannot be drawn: {error:#}. This is a defect: please report it"))
}

/// A number of the document, `number("lake.rows")`, as people read it, with the number itself beside it for machines.
fn number(state: &State<'_, '_>, path: String, how: Option<String>) -> Result<Value, TemplateError> {
    let mut value = state.lookup("status").unwrap_or_default();
    for name in path.split('.') {
        value = match name.parse::<usize>() {
            Ok(place) => value.get_item_by_index(place)?,
            Err(_) => value.get_attr(name)?,
        };
    }
    // Paths come from the templates, and end in names of ours.
    let html = match value.as_i64() {
        None => format!("<span class=\"number none\" data-value=\"{path}\">–</span>"),
        Some(number) => {
            let shown = match how.as_deref() {
                Some("bytes") => format::bytes(number),
                Some("milliseconds") => format::milliseconds(number),
                Some("seconds") => text::age(number),
                _ => format::thousands(number),
            };
            format!("<span class=\"number\" data-value=\"{path}\" data-raw=\"{number}\">{shown}</span>")
        }
    };
    Ok(Value::from_safe_string(html))
}

/// `05:06:07`, UTC.
fn clock(ms: i64) -> String {
    text::time(ms).get(11..19).unwrap_or_default().to_owned()
}
