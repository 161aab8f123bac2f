//! Dataset files: what is read can be used, what is refused says where and why, and neither takes long.

use std::time::{Duration, Instant};

use consumer::decode::{Decoder, Row};
use consumer::encode::Encoder;
use fastrand::Rng;
use pipeline::dataset::Dataset;
use pipeline::lake::{Directory, Layout, arrow_schema, hive_columns};
use pipeline::record;
use serde_json::{Value, json};

use super::json::damage;
use super::rows::shorten;
use super::{any, one_in, say};

/// A case takes milliseconds; a busy machine is allowed to stumble.
const LONG: Duration = Duration::from_secs(20);

pub struct Answers(Vec<Value>);

/// What the APIs of both datasets answered once.
pub fn answers() -> Answers {
    let recorded = include_str!("../../localstack/fixtures/randomuser/v1.4-30.json");
    let mut people: Value = serde_json::from_str(recorded).unwrap();
    people["results"].as_array_mut().unwrap().truncate(3);
    let orders = json!({"pages": [{"orders": [
        {"id": 1, "paid": true, "at": "2026-11-23T06:00:00.25+01:00", "lines": [{"article": "tea", "quantity": 2, "price": 3.5}]},
        {"id": "four", "at": 7, "lines": {}}]}]});
    Answers(vec![people, orders, json!([[], {}, "", 0, null, [1, "a"], ["b", "c"]])])
}

pub fn cases() -> impl FnMut(&mut Rng) {
    let answers = answers();
    move |rng| {
        let text = file(rng);
        // One that does not end, or overflows its stack, can be looked at.
        if std::env::var_os("FUZZ_CASE").is_some() {
            say(&text);
        }
        check(&text, &answers);
    }
}

/// As the functions read it from a folder: what is no UTF-8 is refused there.
fn file(rng: &mut Rng) -> String {
    let mut text = any(
        rng,
        &[
            include_str!("../../datasets/names.yaml"),
            include_str!("../datasets/orders.yaml"),
            include_str!("../datasets/orders.yaml"),
        ],
    )
    .to_owned();
    for _ in 0..any(rng, &[0, 1, 1, 2, 4]) {
        match rng.u32(..6) {
            0 => lines(&mut text, rng),
            1 => replace_value(&mut text, rng),
            2 => replace_value_by(&mut text, &bomb(rng), rng),
            3 => {
                let expression = expression(rng);
                replace_after(&mut text, "expression: ", &quoted(&expression), rng);
            }
            4 => {
                let expression = expression(rng);
                replace_after(&mut text, "records: ", &quoted(&expression), rng);
            }
            _ => {
                let mut bytes = text.into_bytes();
                let other = include_str!("../../datasets/names.yaml").as_bytes();
                if rng.bool() {
                    damage(&mut bytes, other, rng);
                } else {
                    let at = rng.usize(..=bytes.len());
                    bytes.splice(at..at, any(rng, &PIECES).bytes());
                }
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
    match rng.u32(..40) {
        0 => format!("\u{feff}{text}"),
        1 => text.replace('\n', "\r\n"),
        2 => text.replace('\n', "\r"),
        // UTF-16, as an editor may write it.
        3 => text.chars().flat_map(|c| ['\0', c]).collect(),
        4 => format!("{}{text}", bomb(rng)),
        _ => text,
    }
}

const PIECES: [&str; 30] = [
    "&a ",
    "*a",
    "<<: *a",
    "!!binary ",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "\t",
    "? ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ": ",
    "#",
    "\"",
    "'",
    "\u{feff}",
    "\0",
    "\u{85}",
    "\u{2028}",
    "~",
    "${HOME}",
    "!include x",
    "\r",
];

fn lines(text: &mut String, rng: &mut Rng) {
    let mut all: Vec<&str> = text.lines().collect();
    if all.is_empty() {
        return;
    }
    let (at, other) = (rng.usize(..all.len()), rng.usize(..all.len()));
    match rng.u32(..4) {
        0 => {
            all.remove(at);
        }
        1 => all.insert(other, all[at]),
        2 => all.swap(at, other),
        _ => all[at] = all[at].trim_start(),
    }
    *text = all.join("\n") + "\n";
}

const VALUES: [&str; 26] = [
    "0",
    "-1",
    "1e9",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "99999999999999999999999999",
    "0x7fffffff",
    "0o17",
    ".inf",
    ".nan",
    "true",
    "null",
    "",
    "[]",
    "{}",
    "''",
    "2026-11-23",
    "1_000",
    "+5",
    "'a/b'",
    "..",
    "\"\\u0000\"",
    "\"\\x00\"",
    "orders",
];

fn replace_value(text: &mut String, rng: &mut Rng) {
    let value = match one_in(rng, 6) {
        true => "a".repeat(rng.usize(..300_000)),
        false => any(rng, &VALUES).to_owned(),
    };
    replace_value_by(text, &value, rng);
}

/// One of the file's values, whatever it is.
fn replace_value_by(text: &mut String, value: &str, rng: &mut Rng) {
    let places: Vec<usize> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
    if places.is_empty() {
        return;
    }
    let from = any(rng, &places);
    let length = text[from..].find([',', '\n', '}']).unwrap_or(text.len() - from);
    text.replace_range(from..from + length, value);
}

/// An expression: it ends with the line or the mapping.
fn replace_after(text: &mut String, name: &str, value: &str, rng: &mut Rng) {
    let places: Vec<usize> = text.match_indices(name).map(|(at, _)| at + name.len()).collect();
    if places.is_empty() {
        return;
    }
    let from = any(rng, &places);
    let line = text[from..].find('\n').unwrap_or(text.len() - from);
    let end = if text[from..from + line].ends_with('}') { " }" } else { "" };
    text.replace_range(from..from + line, &format!("{value}{end}"));
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Small, and enormous when it is read.
fn bomb(rng: &mut Rng) -> String {
    let deep = any(rng, &[10, 60, 70, 1_000, 20_000]);
    match rng.u32(..6) {
        0 => {
            let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
            for level in 1..any(rng, &[5, 9, 40]) {
                let alias = format!("*a{}", level - 1);
                text += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
            }
            text
        }
        1 => format!("{}{}", "[".repeat(deep), "]".repeat(deep)),
        2 => format!("{}1{}", "{a: ".repeat(deep), "}".repeat(deep)),
        3 => "- ".repeat(deep),
        4 => format!("&a [{}]", "*a, ".repeat(deep)),
        _ => "? ".repeat(deep),
    }
}

/// What stands around an expression, or is repeated in it: opening, and closing again.
const NESTED: [(&str, &str); 20] = [
    ("(", ")"),
    ("[", "]"),
    ("[?", "]"),
    ("{a: ", "}"),
    ("!", ""),
    ("&", ""),
    ("not_null(", ")"),
    ("to_array(", ")"),
    ("to_string([", "])"),
    ("map(&", ", @)"),
    ("sort_by(@, &", ")"),
    ("length(", ")"),
    ("@ | ", ""),
    ("a.", ""),
    ("*.", ""),
    ("[@, @] | ", ""),
    ("[@, @][] | ", ""),
    ("join('', [@, @]) | ", ""),
    ("{a: @, b: @} | ", ""),
    ("`[1, 2, 3]`[].", ""),
];

const REPEATED: [&str; 14] = [
    "[]",
    "[*]",
    "[0]",
    "[?a]",
    "[::2]",
    ".a",
    ".*",
    " || a",
    " && a",
    " == a",
    " | @",
    " | to_string([@])",
    "[?@ == @]",
    " | [@, @]",
];

const ATOMS: [&str; 34] = [
    "@",
    "a",
    "results",
    "email",
    "location.postcode",
    "*",
    "[]",
    "[0]",
    "[-1]",
    "[2147483647]",
    "[-2147483647]",
    "[2147483648]",
    "[::0]",
    "[::-1]",
    "[::2147483647]",
    "[-2147483647::-2147483647]",
    "[0:999999:999999]",
    "`null`",
    "`[1,`",
    "`{\"a\": [1e400]}`",
    "`1e308`",
    "'x'",
    "''",
    "\"é\"",
    "\"\\ud800\"",
    "pages[].orders[]",
    "sum(lines[].price)",
    "to_number('[[1]]')",
    "avg(`[]`)",
    "nosuch(@)",
    "abs(`-9223372036854775808`)",
    "contains(@, @)",
    "max_by(@, &a)",
    "sort(@)",
];

pub fn expression(rng: &mut Rng) -> String {
    let mut text = any(rng, &ATOMS).to_owned();
    for _ in 0..any(rng, &[0, 1, 2, 4]) {
        let times = any(rng, &[1, 1, 2, 10, 40, 200, 1_000, 5_000]);
        text = match rng.u32(..4) {
            0 => text + &any(rng, &REPEATED).repeat(times),
            1 => format!("{text}{}{}", any(rng, &[" || ", " && ", " | ", ".", " == ", ", "]), any(rng, &ATOMS)),
            _ => {
                let (open, close) = any(rng, &NESTED);
                let times = times.min(4_000 / open.len());
                format!("{}{text}{}", open.repeat(times), close.repeat(times))
            }
        };
    }
    // Near the longest that is taken at all.
    if one_in(rng, 3) && text.len() > 1_000 {
        let (open, close) = any(rng, &NESTED);
        let times = 990 / (open.len() + close.len());
        text = format!("{}@{}", open.repeat(times), close.repeat(times));
    }
    text
}

pub fn check(text: &str, answers: &Answers) {
    let begin = Instant::now();
    let shown = || shorten(text.as_bytes());
    match Dataset::parse("datasets/x.yaml", text) {
        Err(error) => {
            let message = error.to_string();
            let rest = message.strip_prefix("datasets/x.yaml:").unwrap_or_else(|| panic!("{message}"));
            let (line, reason) = rest.split_once(": ").unwrap_or_else(|| panic!("{message}"));
            assert!(line.parse::<usize>().is_ok_and(|line| line > 0), "{message}: {}", shown());
            assert!(!reason.trim().is_empty());
            assert!(message.len() < 3_000, "{} characters of error: {}", message.len(), shown());
        }
        Ok(dataset) => use_it(&dataset, answers),
    }
    assert!(begin.elapsed() < LONG, "{:?}: {}", begin.elapsed(), shown());
}

/// Everything that is done with a dataset between its file and a row.
fn use_it(dataset: &Dataset, answers: &Answers) {
    let layout = Layout { prefix: dataset.lake.prefix.clone(), ledger_prefix: "_ledger".to_owned() };
    assert_eq!(layout.directory(Directory::of(0)), format!("{}/dt=1970-01-01/hour=00/", dataset.lake.prefix));
    assert_eq!(hive_columns(dataset).len(), arrow_schema(dataset).fields().len());
    assert!(dataset.schedule.run < dataset.schedule.every);
    Encoder::new(dataset, 0, 0).finish().unwrap();
    let _ = Decoder::new(dataset).decode("{}", &mut Row::default());
    for answer in &answers.0 {
        let Ok(root) = dataset.source.records.search(answer) else { continue };
        if let Some(error) = &dataset.source.error {
            let _ = record::extract(error, &root);
        }
        let elements = root.as_array().cloned().unwrap_or_default();
        for element in elements.iter().take(3).chain([&root]) {
            for column in &dataset.columns {
                let Ok(found) = record::extract(&column.expression, element) else { continue };
                // As a row, and as a dead letter shows it.
                let _ = record::to_json(column, &found);
                let _ = serde_json::to_vec(&*found);
            }
        }
    }
}
