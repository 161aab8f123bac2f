//! The dataset file's shape, and the checks that lower it. Every value that can be wrong in itself carries its place.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{Codec, Column, Dataset, Expression, FIRST_COLUMN_ID, Format, Lake, Schedule, Source, Topic, Type};

/// What is wrong, and where.
pub(super) type Wrong = (Location, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Yaml {
    name: Spanned<String>,
    #[serde(default)]
    description: String,
    source: YamlSource,
    schedule: YamlSchedule,
    topic: YamlTopic,
    lake: YamlLake,
    columns: Spanned<Vec<YamlColumn>>,
    #[serde(default)]
    queries: Vec<YamlQuery>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlSource {
    url: Spanned<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    records: Spanned<String>,
    error: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlSchedule {
    every_minutes: Spanned<u32>,
    run_seconds: Spanned<u32>,
    fetch_every_seconds: Spanned<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlTopic {
    name: Spanned<String>,
    partitions: Spanned<i32>,
    replication_factor: Spanned<i32>,
    retention_hours: Spanned<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlLake {
    prefix: Spanned<String>,
    format: Spanned<String>,
    codec: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlColumn {
    id: Spanned<i32>,
    name: Spanned<String>,
    #[serde(rename = "type")]
    kind: Spanned<String>,
    #[serde(default)]
    required: bool,
    hash: Option<Spanned<String>>,
    expression: Spanned<String>,
    #[serde(default)]
    description: String,
}

/// Read by Terraform alone; checked here, so that a wrong file is refused in one place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlQuery {
    name: Spanned<String>,
    #[serde(default, rename = "description")]
    _description: String,
    sql: Spanned<String>,
}

impl Yaml {
    pub(super) fn check(self, sha256: String) -> Result<Dataset, Wrong> {
        check_name(&self.name, "a dataset name")?;
        let columns = check_columns(self.columns)?;
        check_queries(&self.queries)?;
        Ok(Dataset {
            name: self.name.value,
            description: self.description,
            source: self.source.check()?,
            schedule: self.schedule.check()?,
            topic: self.topic.check()?,
            lake: self.lake.check()?,
            columns,
            sha256,
        })
    }
}

impl YamlSource {
    fn check(self) -> Result<Source, Wrong> {
        if !self.url.value.starts_with("https://") && !self.url.value.starts_with("http://") {
            return Err(wrong(&self.url, format!("{} is no URL: write https://…", quoted(&self.url.value))));
        }
        Ok(Source {
            url: self.url.value,
            headers: self.headers.into_iter().collect(),
            records: compile(&self.records)?,
            error: self.error.as_ref().map(compile).transpose()?,
        })
    }
}

impl YamlSchedule {
    fn check(self) -> Result<Schedule, Wrong> {
        for (value, key) in [
            (&self.every_minutes, "every_minutes"),
            (&self.run_seconds, "run_seconds"),
            (&self.fetch_every_seconds, "fetch_every_seconds"),
        ] {
            if value.value == 0 {
                return Err(wrong(value, format!("`{key}` must be at least 1")));
            }
        }
        let every = Duration::from_secs(u64::from(self.every_minutes.value) * 60);
        let run = Duration::from_secs(u64::from(self.run_seconds.value));
        if run >= every {
            let reason = format!(
                "a run of {} s does not end before the next one starts, after {} s: lower run_seconds or raise every_minutes",
                run.as_secs(),
                every.as_secs()
            );
            return Err(wrong(&self.run_seconds, reason));
        }
        if run > Duration::from_secs(840) {
            let reason = "`run_seconds` can be 840 at most: a Lambda function ends after 900 s".to_owned();
            return Err(wrong(&self.run_seconds, reason));
        }
        if self.fetch_every_seconds.value > 900 {
            let reason = "`fetch_every_seconds` can be 900 at most: a Lambda function ends after that".to_owned();
            return Err(wrong(&self.fetch_every_seconds, reason));
        }
        let fetch_every = Duration::from_secs(u64::from(self.fetch_every_seconds.value));
        Ok(Schedule { every, run, fetch_every })
    }
}

impl YamlTopic {
    fn check(self) -> Result<Topic, Wrong> {
        let name = &self.name.value;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 249 || !name.chars().all(legal) || name == "." || name == ".." {
            let name = quoted(name);
            let reason = format!("{name} is no topic name: up to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`");
            return Err(wrong(&self.name, reason));
        }
        if !(1..=10_000).contains(&self.partitions.value) {
            return Err(wrong(&self.partitions, "`partitions` must be between 1 and 10000".to_owned()));
        }
        if !(1..=15).contains(&self.replication_factor.value) {
            return Err(wrong(&self.replication_factor, "`replication_factor` must be between 1 and 15".to_owned()));
        }
        if self.retention_hours.value == 0 {
            return Err(wrong(&self.retention_hours, "`retention_hours` must be at least 1".to_owned()));
        }
        Ok(Topic {
            name: self.name.value,
            partitions: self.partitions.value,
            replication_factor: self.replication_factor.value,
            retention: Duration::from_secs(u64::from(self.retention_hours.value) * 3600),
        })
    }
}

impl YamlLake {
    fn check(self) -> Result<Lake, Wrong> {
        check_prefix(&self.prefix.value).map_err(|reason| wrong(&self.prefix, reason))?;
        let codec = self.codec.as_ref().map(|c| c.value.as_str());
        let format = match (self.format.value.as_str(), codec) {
            ("parquet", None | Some("zstd")) => Format::Parquet(Codec::Zstd),
            ("parquet", Some("snappy")) => Format::Parquet(Codec::Snappy),
            ("parquet", Some("none")) => Format::Parquet(Codec::None),
            ("ndjson", None | Some("gzip")) => Format::Ndjson(Codec::Gzip),
            ("ndjson", Some("zstd")) => Format::Ndjson(Codec::Zstd),
            ("ndjson", Some("none")) => Format::Ndjson(Codec::None),
            (format @ ("parquet" | "ndjson"), Some(codec)) => {
                let known = if format == "parquet" { "zstd, snappy, none" } else { "gzip, zstd, none" };
                let place = self.codec.as_ref().unwrap_or(&self.format);
                let codec = quoted(codec);
                return Err(wrong(place, format!("unknown codec {codec} for {format}: use one of {known}")));
            }
            (format, _) => {
                let format = quoted(format);
                return Err(wrong(&self.format, format!("unknown format {format}: use parquet or ndjson")));
            }
        };
        Ok(Lake { prefix: self.prefix.value, format })
    }
}

/// What a lake prefix may be; `S3_OUTPUT_PREFIX` obeys the same rule.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let parts_ok = prefix.split('/').all(|part| !part.is_empty() && !part.starts_with(['_', '.']));
    if prefix.chars().all(legal) && parts_ok {
        return Ok(());
    }
    Err(format!(
        "{} is no lake prefix: letters, digits, `_`, `-`, `.`, with `/` between parts only; Athena skips parts that begin with `_` or `.`",
        quoted(prefix)
    ))
}

fn check_columns(columns: Spanned<Vec<YamlColumn>>) -> Result<Vec<Column>, Wrong> {
    if columns.value.is_empty() {
        return Err(wrong(&columns, "`columns` is empty: name at least one".to_owned()));
    }
    let mut names: HashMap<String, u64> = HashMap::new();
    let mut ids: HashMap<i32, u64> = HashMap::new();
    let mut checked = Vec::with_capacity(columns.value.len());
    for column in columns.value {
        check_name(&column.name, "a column name")?;
        let name = &column.name.value;
        if name == "dt" || name == "hour" {
            return Err(wrong(&column.name, format!("`{name}` is reserved: it names a partition of the lake")));
        }
        if let Some(first) = names.insert(name.clone(), column.name.referenced.line()) {
            return Err(wrong(&column.name, format!("column `{name}` stands twice, first in line {first}")));
        }
        let id = column.id.value;
        if id < FIRST_COLUMN_ID {
            return Err(wrong(&column.id, format!("column id {id} is the system's: use {FIRST_COLUMN_ID} or more")));
        }
        if let Some(first) = ids.insert(id, column.id.referenced.line()) {
            let reason =
                format!("column id {id} stands twice, first in line {first}: ids are permanent, take a new one");
            return Err(wrong(&column.id, reason));
        }
        checked.push(column.check()?);
    }
    Ok(checked)
}

fn check_queries(queries: &[YamlQuery]) -> Result<(), Wrong> {
    let mut names: HashMap<&str, u64> = HashMap::new();
    for query in queries {
        check_name(&query.name, "a query name")?;
        if let Some(first) = names.insert(&query.name.value, query.name.referenced.line()) {
            return Err(wrong(
                &query.name,
                format!("query `{}` stands twice, first in line {first}", query.name.value),
            ));
        }
        if query.sql.value.trim().is_empty() {
            return Err(wrong(&query.sql, format!("query `{}` is empty: write its SQL", query.name.value)));
        }
    }
    Ok(())
}

impl YamlColumn {
    fn check(self) -> Result<Column, Wrong> {
        let kind = match self.kind.value.as_str() {
            "string" => Type::String,
            "boolean" => Type::Boolean,
            "integer" => Type::Integer,
            "double" => Type::Double,
            "timestamp" => Type::Timestamp,
            other => {
                let other = quoted(other);
                let reason = format!("unknown type {other}: use one of string, boolean, integer, double, timestamp");
                return Err(wrong(&self.kind, reason));
            }
        };
        if let Some(hash) = &self.hash {
            if hash.value != "hmac-sha256" {
                return Err(wrong(hash, format!("unknown hash {}: use hmac-sha256", quoted(&hash.value))));
            }
            if kind != Type::String {
                return Err(wrong(hash, format!("a hashed column is a string, not {kind}: change its type")));
            }
        }
        Ok(Column {
            id: self.id.value,
            kind,
            required: self.required,
            hashed: self.hash.is_some(),
            expression: compile(&self.expression)?,
            name: self.name.value,
            description: self.description,
        })
    }
}

/// Names stand in Glue, in SQL and in object keys: what all of them take unquoted.
fn check_name(name: &Spanned<String>, what: &str) -> Result<(), Wrong> {
    let text = name.value.as_str();
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    if text.starts_with('_') {
        return Err(wrong(name, format!("{} is reserved: names that begin with `_` are the system's", quoted(text))));
    }
    if begins && text.len() <= 128 && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Ok(());
    }
    let text = quoted(text);
    Err(wrong(name, format!("{text} is not {what}: up to 128 of a-z, 0-9 and `_`, beginning with a letter")))
}

/// Far above what a column needs, and far below where the library's recursion would end the process.
const LONGEST_EXPRESSION: usize = 1_000;
/// How much larger than what it is given an expression's result may be made by its form.
const MOST_COPIES: u64 = 1_000;

fn compile(expression: &Spanned<String>) -> Result<Expression, Wrong> {
    let text = &expression.value;
    if text.len() > LONGEST_EXPRESSION {
        return Err(wrong(
            expression,
            format!("a JMESPath expression can have {LONGEST_EXPRESSION} characters at most"),
        ));
    }
    let shown = quoted(text);
    let compiled = jmespath::compile(text)
        .map_err(|e| wrong(expression, format!("bad JMESPath expression {shown}: {}", cut(&e.reason.to_string()))))?;
    if huge_step(text) {
        return Err(wrong(expression, format!("a slice in {shown} has a number of more than six digits")));
    }
    if let Some(name) = unknown_function(compiled.as_ast()) {
        return Err(wrong(expression, format!("JMESPath has no function {}, in {shown}", quoted(name))));
    }
    if copies(compiled.as_ast()) > MOST_COPIES {
        let reason = format!("{shown} makes {MOST_COPIES} copies and more of what it is given: nest fewer lists in it");
        return Err(wrong(expression, reason));
    }
    Ok(compiled)
}

/// Slices with such numbers overflow in the library, once the API's array is long enough.
fn huge_step(expression: &str) -> bool {
    let number = |part: &str| part.len() > 6 && part.bytes().all(|b| b.is_ascii_digit());
    expression.contains(':') && expression.split(|c: char| !c.is_ascii_alphanumeric()).any(number)
}

/// The library finds a misspelt function only when a record reaches it; the file should be refused before that.
fn unknown_function(ast: &jmespath::ast::Ast) -> Option<&str> {
    use jmespath::ast::Ast;
    match ast {
        Ast::Function { name, args, .. } => match jmespath::DEFAULT_RUNTIME.get_function(name) {
            Some(_) => args.iter().find_map(unknown_function),
            None => Some(name),
        },
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => unknown_function(lhs).or_else(|| unknown_function(rhs)),
        Ast::Condition { predicate, then, .. } => unknown_function(predicate).or_else(|| unknown_function(then)),
        Ast::Expref { ast: node, .. }
        | Ast::Flatten { node, .. }
        | Ast::Not { node, .. }
        | Ast::ObjectValues { node, .. } => unknown_function(node),
        Ast::MultiList { elements, .. } => elements.iter().find_map(unknown_function),
        Ast::MultiHash { elements, .. } => elements.iter().find_map(|pair| unknown_function(&pair.value)),
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Literal { .. } | Ast::Slice { .. } => None,
    }
}

/// How many times larger than what it is given a result can become: each step of `[@, @] | [@, @] | …` doubles it, and a line of
/// them would fill any memory. An upper bound.
fn copies(ast: &jmespath::ast::Ast) -> u64 {
    use jmespath::ast::Ast;
    let both = |lhs: &Ast, rhs: &Ast| copies(lhs).saturating_mul(copies(rhs));
    let most = |lhs: &Ast, rhs: &Ast| copies(lhs).max(copies(rhs));
    let sum = |parts: &mut dyn Iterator<Item = u64>| parts.fold(0, u64::saturating_add).max(1);
    match ast {
        Ast::Identity { .. } | Ast::Field { .. } | Ast::Index { .. } | Ast::Slice { .. } => 1,
        Ast::Literal { value, .. } => elements(value),
        Ast::Subexpr { lhs, rhs, .. } | Ast::Projection { lhs, rhs, .. } => both(lhs, rhs),
        Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } | Ast::Comparison { lhs, rhs, .. } => most(lhs, rhs),
        Ast::Condition { predicate, then, .. } => most(predicate, then),
        Ast::Expref { ast: node, .. }
        | Ast::Flatten { node, .. }
        | Ast::Not { node, .. }
        | Ast::ObjectValues { node, .. } => copies(node),
        Ast::MultiList { elements, .. } => sum(&mut elements.iter().map(copies)),
        Ast::MultiHash { elements, .. } => sum(&mut elements.iter().map(|pair| copies(&pair.value))),
        Ast::Function { name, args, .. } => {
            let of_args: Vec<u64> = args.iter().map(copies).collect();
            let all = of_args.iter().fold(1, |product: u64, factor| product.saturating_mul(*factor));
            match (name.as_str(), args.first()) {
                // What is put between the parts comes as often as there are parts.
                ("join", Some(Ast::Literal { .. })) => all,
                ("join", _) => all.saturating_mul(32),
                // Quotes and backslashes are doubled.
                ("to_string", _) => all.saturating_mul(2),
                ("merge", _) => sum(&mut of_args.into_iter()),
                _ if args.iter().any(|arg| matches!(arg, Ast::Expref { .. })) => all,
                _ => of_args.into_iter().max().unwrap_or(1),
            }
        }
    }
}

/// Of a literal: a projection over it does what follows for each.
fn elements(value: &jmespath::Variable) -> u64 {
    let within: u64 = match value {
        jmespath::Variable::Array(found) => found.iter().map(|value| elements(value)).sum(),
        jmespath::Variable::Object(found) => found.values().map(|value| elements(value)).sum(),
        _ => 1,
    };
    within.max(1)
}

/// A value in an error: as much of it as tells which one is meant.
fn quoted(text: &str) -> String {
    format!("`{}`", cut(text))
}

pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 200;
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn wrong<T>(place: &Spanned<T>, reason: String) -> Wrong {
    (place.referenced, reason)
}
