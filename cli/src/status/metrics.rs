//! What a function has written of itself: its lines of metrics, summed up, and the last quarter of an hour line by line.

use std::collections::{BTreeMap, VecDeque};

use pipeline::telemetry::{FRESHNESS, Metric};
use serde_json::Value;

/// How far back the charts go, in milliseconds.
pub const CHARTED: i64 = 15 * 60 * 1000;

/// One line of metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970.
    pub at: i64,
    /// How long the run took, where the function says so.
    pub duration_ms: Option<u64>,
    pub metrics: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    names: &'static [Metric],
    /// Milliseconds since 1970; lines from there on are summed up.
    pub since: i64,
    pub sums: BTreeMap<String, u64>,
    /// Lines that have the first of the names, which each invocation writes once.
    pub invocations: u64,
    pub last: Option<Line>,
    /// When the freshness of `sums` was measured.
    measured: i64,
    /// Of the last 15 minutes, by their time.
    pub recent: VecDeque<Line>,
}

impl Metrics {
    pub fn new(names: &'static [Metric], since: i64) -> Metrics {
        // A freshness of 0 would be a claim.
        let sums =
            names.iter().filter(|metric| **metric != FRESHNESS).map(|metric| (metric.name.to_owned(), 0)).collect();
        Metrics { names, since, sums, invocations: 0, last: None, measured: i64::MIN, recent: VecDeque::new() }
    }

    /// Takes what the log has more.
    pub fn read(&mut self, text: &str, now: i64) {
        for line in text.lines() {
            // Most lines are neither, and need not be parsed.
            if line.contains("\"_aws\"") {
                self.metrics(line);
            } else if line.contains("\"elapsed_ms\"") || line.contains("elapsed_ms\\\"") {
                self.summary(line);
            }
        }
        self.recent.retain(|line| line.at >= now - CHARTED);
        // A function has several logs, whose times overlap.
        self.recent.make_contiguous().sort_by_key(|line| line.at);
    }

    fn metrics(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line.trim()) else { return };
        let own = |metric: &Metric| Some((metric.name.to_owned(), line[metric.name].as_u64()?));
        let metrics: BTreeMap<String, u64> = self.names.iter().filter_map(own).collect();
        let Some(at) = line["_aws"]["Timestamp"].as_i64().filter(|_| !metrics.is_empty()) else { return };
        for (name, value) in &metrics {
            if name != FRESHNESS.name {
                let sum = self.sums.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*value);
            } else if at >= self.measured {
                self.measured = at;
                self.sums.insert(name.clone(), *value);
            }
        }
        let line = Line { at, duration_ms: None, metrics };
        if self.names.first().is_some_and(|first| line.metrics.contains_key(first.name)) {
            self.invocations += 1;
            if self.last.as_ref().is_none_or(|last| last.at <= at) {
                self.last = Some(line.clone());
            }
        }
        self.recent.push_back(line);
    }

    /// The producer says behind its metrics how long the run took.
    fn summary(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line.trim()) else { return };
        let Some(summary) = line["summary"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            return;
        };
        let duration = summary["elapsed_ms"].as_u64();
        let Some(run) = self.recent.back_mut() else { return };
        run.duration_ms = run.duration_ms.or(duration);
        if let Some(last) = self.last.as_mut().filter(|last| last.at == run.at) {
            last.duration_ms = run.duration_ms;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::{CONSUMER, PRODUCER};

    const RUN: &str = concat!(
        r#"{"RecordsFetched":20,"RecordsPublished":19,"FetchRetries":1,"_aws":{"Timestamp":1000}}"#,
        "\n",
        r#"{"level":"INFO","summary":"{\"fetched\":20,\"elapsed_ms\":5000}","message":"The run ended"}"#,
        "\nneither\n"
    );

    #[test]
    fn lines_of_metrics_are_summed_and_the_run_has_its_duration() {
        let mut metrics = Metrics::new(PRODUCER, 0);
        metrics.read(RUN, 1000);
        metrics.read(&RUN.replace("1000", "900000"), 900_000);
        assert_eq!((metrics.sums["RecordsPublished"], metrics.sums["FetchRetries"], metrics.invocations), (38, 2, 2));
        assert_eq!(metrics.sums["RecordsRejected"], 0);
        let last = metrics.last.clone().unwrap();
        assert_eq!((last.at, last.duration_ms), (900_000, Some(5000)));
        // The first one leaves the charts, and stays in the sums.
        metrics.read("", 1001 + CHARTED);
        assert_eq!((metrics.recent.len(), metrics.sums["RecordsFetched"]), (1, 40));
    }

    #[test]
    fn freshness_is_the_last_and_absent_where_nothing_was_stored() {
        let mut metrics = Metrics::new(CONSUMER, 0);
        assert_eq!(metrics.sums.get("Freshness"), None);
        metrics.read(r#"{"RowsStored":3,"Freshness":900,"_aws":{"Timestamp":1}}"#, 1);
        metrics.read("{\"RowsStored\":3,\"Freshness\":400,\"_aws\":{\"Timestamp\":2}}\n{\"OffsetGaps\":7,\"_aws\":{\"Timestamp\":3}}", 3);
        assert_eq!((metrics.sums["Freshness"], metrics.sums["OffsetGaps"], metrics.invocations), (400, 7, 2));
    }

    #[test]
    fn of_several_logs_the_newest_line_is_the_last() {
        let mut metrics = Metrics::new(CONSUMER, 0);
        for (at, freshness) in [(5, 500), (9, 900), (3, 300)] {
            metrics.read(&format!(r#"{{"RowsStored":1,"Freshness":{freshness},"_aws":{{"Timestamp":{at}}}}}"#), 9);
        }
        assert_eq!((metrics.sums["Freshness"], metrics.sums["RowsStored"]), (900, 3));
        let times: Vec<i64> = metrics.recent.iter().map(|line| line.at).collect();
        assert_eq!((times, metrics.last.unwrap().at), (vec![3, 5, 9], 9));

        let mut runs = Metrics::new(PRODUCER, 0);
        runs.read(&RUN.replace("1000", "2000"), 2000);
        runs.read(&RUN.replace("5000", "7000"), 2000);
        let durations: Vec<_> = runs.recent.iter().map(|line| (line.at, line.duration_ms)).collect();
        assert_eq!(durations, [(1000, Some(7000)), (2000, Some(5000))]);
        assert_eq!(runs.last.unwrap().duration_ms, Some(5000));
    }
}
