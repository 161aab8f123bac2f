//! Queries from the page: they only read, and an answer is bounded in rows, bytes, memory and time.

use std::time::{Duration, Instant};

use datafusion::arrow::array::Array;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use pipeline::dataset::Dataset;
use serde::Serialize;

use super::view::SavedQuery;
use crate::query::Session;
use crate::{Error, Lake};

pub const ROWS: usize = 1_000;
/// Of all cells' texts.
const BYTES: usize = 2_000_000;
/// Of one cell's.
const CELL: usize = 20_000;
/// Of the statement. An operator may be a level of the plan, which takes 16 KiB of the stack where nothing is optimised.
const TOKENS: usize = 600;
/// What sorting and grouping may take.
const MEMORY: usize = 256 << 20;
pub const TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub columns: Vec<Column>,
    /// Each cell as text, or null.
    pub rows: Vec<Vec<Option<String>>>,
    /// There are more rows than are shown.
    pub cut: bool,
    pub elapsed_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    pub name: String,
    /// Arrow's name of it.
    pub r#type: String,
    pub numeric: bool,
}

pub async fn query(lake: &Lake, sql: &str) -> Result<Answer, Error> {
    // What is no SQL is refused below, in better words.
    let tokens = Tokenizer::new(&GenericDialect, sql).tokenize().unwrap_or_default();
    if tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count() > TOKENS {
        return Err(Error::stopped(format!(
            "the statement has more than {TOKENS} words and signs, which is all that the page takes: shorten it, or use `freshet query`"
        )));
    }
    match tokio::time::timeout(TIME, answer(lake, sql)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::stopped(format!(
            "the query took longer than {} s and was ended: ask for less, with a condition on dt and hour, or use `freshet query`",
            TIME.as_secs()
        ))),
    }
}

async fn answer(lake: &Lake, sql: &str) -> Result<Answer, Error> {
    let started = Instant::now();
    let session = Session::open_bounded(lake, MEMORY)?;
    let mut batches = session.stream(sql).await?;
    let schema = batches.schema();
    let columns = schema.fields().iter().map(|field| Column {
        name: field.name().clone(),
        r#type: field.data_type().to_string(),
        numeric: field.data_type().is_numeric(),
    });
    let columns = columns.collect();
    let (mut rows, mut size, mut cut) = (Vec::new(), 0, false);
    'reading: while let Some(batch) = batches.next().await {
        let batch = batch.map_err(|e| session.refused(&e))?;
        let options = FormatOptions::new().with_null("");
        let cells: Result<Vec<_>, ArrowError> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect();
        let cells =
            cells.map_err(|e| Error::stopped(format!("a column cannot be shown: {e}. Leave it out of the query")))?;
        for row in 0..batch.num_rows() {
            if rows.len() == ROWS || size > BYTES {
                cut = true;
                break 'reading;
            }
            let texts = batch.columns().iter().zip(&cells);
            let texts = texts.map(|(column, cells)| {
                (!column.is_null(row) && !column.data_type().is_null()).then(|| shown(cells.value(row).to_string()))
            });
            let texts: Vec<Option<String>> = texts.collect();
            size += texts.iter().flatten().map(String::len).sum::<usize>();
            rows.push(texts);
        }
    }
    Ok(Answer { columns, rows, cut, elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) })
}

/// A cell's text, not longer than can be looked at.
fn shown(mut text: String) -> String {
    if text.len() > CELL {
        text.truncate(text.floor_char_boundary(CELL));
        text.push('…');
    }
    text
}

/// Questions that one has of every lake, and of the people.
pub fn saved(dataset: &Dataset) -> Vec<SavedQuery> {
    let name = &dataset.name;
    let columns: Vec<String> = dataset.columns.iter().take(4).map(|column| format!("\"{}\"", column.name)).collect();
    let mut saved = vec![
        SavedQuery {
            name: "rows by hour",
            sql: format!(
                "SELECT dt, hour, count(*) AS rows\nFROM {name}\nGROUP BY dt, hour ORDER BY dt DESC, hour DESC LIMIT 48"
            ),
        },
        SavedQuery {
            name: "newest rows",
            sql: format!(
                "SELECT \"_timestamp\", \"_partition\", \"_offset\", {}\nFROM {name}\nORDER BY \"_timestamp\" DESC, \"_offset\" DESC LIMIT 20",
                columns.join(", ")
            ),
        },
        SavedQuery {
            name: "dead letters by reason",
            sql: format!(
                "SELECT stage, error, count(DISTINCT id) AS letters\nFROM {name}_dead_letters\nGROUP BY stage, error ORDER BY letters DESC LIMIT 20"
            ),
        },
        SavedQuery {
            name: "offsets by partition",
            sql: format!(
                "SELECT \"_partition\", \"_epoch\", min(\"_offset\") AS first, max(\"_offset\") AS last, count(*) AS rows,\n       count(DISTINCT \"_offset\") AS offsets\nFROM {name}\nGROUP BY \"_partition\", \"_epoch\" ORDER BY 1, 2"
            ),
        },
    ];
    if dataset.columns.iter().any(|column| column.name == "nation") {
        saved.insert(
            2,
            SavedQuery {
                name: "nations",
                sql: format!("SELECT nation, count(*) AS people\nFROM {name}\nGROUP BY nation ORDER BY people DESC, nation LIMIT 20"),
            },
        );
    }
    saved
}
