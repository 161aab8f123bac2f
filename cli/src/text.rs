//! Text for people: aligned tables, times, numbers with their noun.

use jiff::Timestamp;

/// An aligned table. Columns whose cells are all numbers (or `-`) stand to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |i: usize| rows.iter().filter_map(move |row| row.get(i));
    let numeric = |i: usize| cells(i).all(|c| c == "-" || c.parse::<i64>().is_ok());
    let columns: Vec<(usize, bool)> = header
        .iter()
        .enumerate()
        .map(|(i, title)| {
            let widest = cells(i).map(|c| c.chars().count()).max().unwrap_or(0);
            (widest.max(title.chars().count()), numeric(i))
        })
        .collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&columns)
            .map(|(cell, (width, right))| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
            .collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(line(&header)).chain(rows.iter().map(|row| line(row))).collect()
}

/// A number, or `-` where there is none.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| v.to_string())
}

/// Milliseconds since 1970 as RFC 3339 UTC.
pub fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |t| format!("{t:.3}"))
}

/// A number of seconds, in the largest unit that says enough.
pub fn age(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

/// `1 range`, `2 ranges`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_texts_to_the_left() {
        let rows = [vec!["names".to_owned(), "7".to_owned()], vec!["n".to_owned(), "-".to_owned()]];
        assert_eq!(table(&["topic", "rows"], &rows), "topic  rows\nnames     7\nn         -\n");
    }

    #[test]
    fn times_are_utc_and_any_number_prints() {
        assert_eq!(time(1_795_410_367_000), "2026-11-23T05:06:07.000Z");
        assert_eq!(time(i64::MAX), "9223372036854775807 ms");
        assert_eq!([age(-3), age(119), age(120), age(7200)], ["0 s", "119 s", "2 min", "2 h"]);
        assert_eq!((count(1, "row"), count(2, "row")), ("1 row".to_owned(), "2 rows".to_owned()));
    }
}
