//! A metric has one name and one unit wherever it is spoken of: in the functions, in docs/CONFIGURATION.md, on the dashboard, in the alarms, and
//! on the page.

use std::collections::BTreeSet;
use std::path::Path;

use freshet::status::document::{CONSUMER, PRODUCER};
use pipeline::telemetry::{METRICS, Metric};

use crate::support::server::root;

const FUNCTIONS: [&str; 2] = ["producer", "consumer"];

/// A metric as a place names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    function: String,
    name: String,
    /// Absent where the place says nothing about it.
    unit: Option<String>,
}

impl Named {
    fn new(function: &str, name: &str, unit: Option<&str>) -> Named {
        Named { function: function.to_owned(), name: name.to_owned(), unit: unit.map(str::to_owned) }
    }

    fn is(&self, other: &Named) -> bool {
        self.function == other.function && self.name == other.name && (self.unit.is_none() || self.unit == other.unit)
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What the functions write: a metric is a function's where its constant stands in the function's sources.
fn written() -> BTreeSet<Named> {
    let mut written = BTreeSet::new();
    for function in FUNCTIONS {
        let mut sources = String::new();
        collect(&root().join("functions").join(function).join("src"), &mut sources);
        for metric in METRICS {
            // RowsStored is telemetry::ROWS_STORED.
            let mut constant = String::from("telemetry::");
            for (index, letter) in metric.name.chars().enumerate() {
                if letter.is_uppercase() && index > 0 {
                    constant.push('_');
                }
                constant.push(letter.to_ascii_uppercase());
            }
            if sources.split(|c: char| c != ':' && c != '_' && !c.is_alphanumeric()).any(|word| word == constant) {
                written.insert(Named::new(function, metric.name, Some(metric.unit)));
            }
        }
    }
    written
}

/// The text of all Rust files below a folder, without their tests.
fn collect(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]").next().unwrap());
        }
    }
}

/// The table of docs/CONFIGURATION.md.
fn documented(page: &str) -> BTreeSet<Named> {
    let section = page.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section on metrics");
    let mut documented = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        let functions = if cells[3] == "both" { FUNCTIONS.to_vec() } else { vec![cells[3]] };
        documented.extend(functions.into_iter().map(|function| Named::new(function, name, Some(cells[2]))));
    }
    documented
}

/// Widgets of infra/dashboard.tf: `{ title = "…", unit = "…", stat = "…", ours = { producer = ["…"] } }`, each on a line.
fn on_the_dashboard(terraform: &str) -> BTreeSet<Named> {
    let mut shown = BTreeSet::new();
    for line in terraform.lines() {
        let Some((widget, ours)) = line.split_once("ours = {") else { continue };
        let unit = quoted(widget.split_once("unit = ").expect("a unit of the widget").1)[0];
        for function in FUNCTIONS {
            let Some((_, names)) = ours.split_once(&format!("{function} = [")) else { continue };
            let (names, _) = names.split_once(']').expect("the end of the list");
            shown.extend(quoted(names).into_iter().map(|name| Named::new(function, name, Some(unit))));
        }
    }
    shown
}

/// Alarms of infra/monitoring.tf in the namespace of the deployment. They have no unit: CloudWatch takes each value as it was written.
fn watched(terraform: &str) -> BTreeSet<Named> {
    let mut watched = BTreeSet::new();
    for alarm in terraform.split("namespace").skip(1).filter(|rest| rest.trim_start().starts_with("= var.name")) {
        let name = quoted(alarm.split_once("metric").expect("the alarm's metric").1)[0];
        let dimensions = alarm.split_once("local.").expect("the metric's dimensions").1;
        let function = dimensions.split('_').next().unwrap();
        watched.insert(Named::new(function, name, None));
    }
    watched
}

/// What `GET /api/status` sums up of the functions' logs.
fn answered() -> BTreeSet<Named> {
    let of = |function, metrics: &[Metric]| -> Vec<Named> {
        metrics.iter().map(|metric| Named::new(function, metric.name, Some(metric.unit))).collect()
    };
    of("producer", PRODUCER).into_iter().chain(of("consumer", CONSUMER)).collect()
}

/// The table of docs/PAGE.md: `| `producer.RecordsFetched`, `.RecordsPublished` | Count | … |`.
fn explained(page: &str) -> BTreeSet<Named> {
    let mut explained = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let mut function = "";
        for path in cells[0].split('`').skip(1).step_by(2) {
            let Some((section, name)) = path.split_once('.') else { continue };
            if !section.is_empty() {
                function = section;
            }
            if FUNCTIONS.contains(&function) && name.starts_with(char::is_uppercase) {
                explained.insert(Named::new(function, name, Some(cells[1])));
            }
        }
    }
    explained
}

fn templates() -> String {
    let folder = std::fs::read_dir(root().join("cli/src/page/templates")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "html"));
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Templates of the page: `number("producer.RecordsFetched")`, with how it is shown behind it where it is no count.
fn on_the_page(templates: &str) -> BTreeSet<Named> {
    let mut shown = BTreeSet::new();
    for call in templates.split("number(").skip(1) {
        let arguments = quoted(call.split_once(')').expect("the end of the call").0);
        let Some((function, name)) = arguments[0].split_once('.') else { continue };
        // Metrics alone are written so.
        if FUNCTIONS.contains(&function) && name.starts_with(char::is_uppercase) {
            let unit = match arguments.get(1) {
                Some(&"bytes") => "Bytes",
                Some(&"milliseconds") => "Milliseconds",
                None => "Count",
                Some(other) => other,
            };
            shown.insert(Named::new(function, name, Some(unit)));
        }
    }
    shown
}

/// What stands in quotation marks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

/// What a place names, and no function writes so.
fn unknown(named: &BTreeSet<Named>, written: &BTreeSet<Named>) -> Vec<Named> {
    named.iter().filter(|named| !written.iter().any(|written| named.is(written))).cloned().collect()
}

/// What a function writes, and a place lacks.
fn missing(named: &BTreeSet<Named>, written: &BTreeSet<Named>) -> Vec<Named> {
    written.iter().filter(|written| !named.iter().any(|named| named.is(written))).cloned().collect()
}

#[test]
fn each_metric_has_the_same_name_and_unit_wherever_it_is_named() {
    let written = written();
    for metric in METRICS {
        assert!(written.iter().any(|written| written.name == metric.name), "no function writes {}", metric.name);
    }
    let documented = documented(&read("docs/CONFIGURATION.md"));
    assert_eq!(documented, written, "docs/CONFIGURATION.md (left) is not what the functions write (right)");
    let shown = on_the_dashboard(&read("infra/dashboard.tf"));
    assert_eq!(shown, written, "infra/dashboard.tf (left) is not what the functions write (right)");
    let watched = watched(&read("infra/monitoring.tf"));
    assert!(watched.len() >= 9, "infra/monitoring.tf was not read: {watched:?}");
    assert_eq!(unknown(&watched, &written), [], "infra/monitoring.tf watches what no function writes");
    assert_eq!(answered(), written, "the API's document (left) is not what the functions write (right)");
    let explained = explained(&read("docs/PAGE.md"));
    assert_eq!(explained, written, "docs/PAGE.md (left) is not what the functions write (right)");
    let shown = on_the_page(&templates());
    assert!(shown.len() >= 10, "the templates of the page were not read: {shown:?}");
    assert_eq!(unknown(&shown, &written), [], "the page shows what no function writes");
}

#[test]
fn a_name_or_a_unit_that_differs_in_one_place_is_noticed() {
    let written = written();
    let changed = |path: &str, from: &str, to: &str| {
        let text = read(path);
        assert!(text.contains(from), "{path} has no {from}");
        text.replace(from, to)
    };
    let documented = |from, to| documented(&changed("docs/CONFIGURATION.md", from, to));
    let shown = |from, to| on_the_dashboard(&changed("infra/dashboard.tf", from, to));
    let watched = |from, to| watched(&changed("infra/monitoring.tf", from, to));

    let row = Named::new("consumer", "Rows", Some("Count"));
    assert_eq!(unknown(&documented("`RowsStored`", "`Rows`"), &written), [row]);
    let seconds = Named::new("consumer", "Freshness", Some("Seconds"));
    assert_eq!(unknown(&documented("| `Freshness` | Milliseconds", "| `Freshness` | Seconds"), &written), [seconds]);
    let none = Named::new("producer", "BytesIn", Some("Bytes"));
    let other_function = documented("| `BytesIn` | Bytes | consumer", "| `BytesIn` | Bytes | both");
    assert_eq!(unknown(&other_function, &written), [none]);
    assert_eq!(unknown(&shown("\"FetchRetries\"", "\"Retries\""), &written).len(), 1);
    assert_eq!(missing(&shown("\"FetchRetries\"", "\"Retries\""), &written).len(), 1);
    assert_eq!(unknown(&shown("unit = \"Bytes\"", "unit = \"Count\""), &written).len(), 2);
    assert_eq!(unknown(&watched("\"OffsetGaps\"", "\"Gaps\""), &written), [Named::new("consumer", "Gaps", None)]);
    let explained = |from, to| explained(&changed("docs/PAGE.md", from, to));
    assert_eq!(missing(&explained("`.BytesOut` | Bytes", "`.BytesOut` | Count"), &written).len(), 2);
    assert_eq!(unknown(&explained("`.RangesAdopted`", "`.Adopted`"), &written).len(), 1);
    let page = |from: &str, to: &str| on_the_page(&templates().replace(from, to));
    assert_eq!(unknown(&page("producer.FetchRetries", "producer.Retries"), &written).len(), 1);
    assert_eq!(unknown(&page("(\"consumer.RowsStored\")", "(\"consumer.RowsStored\", \"bytes\")"), &written).len(), 1);
    // The lag's alarm names its metric in another block.
    assert_eq!(unknown(&watched("\"RecordsPublished\"", "\"Published\""), &written).len(), 1);
}
