//! The charts: the last 15 minutes in steps of ten seconds, as lines to draw and as a sentence.

use std::collections::VecDeque;

use serde::Serialize;

use crate::status::metrics::{CHARTED, Line, Metrics};
use crate::text::count;

const STEP_MS: i64 = 10_000;
const STEPS: usize = (CHARTED / STEP_MS) as usize;
/// The drawing's own units; it is stretched to where it stands.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 56.0;

/// What the charts are drawn from.
pub struct History<'a> {
    pub now: i64,
    /// A run is alive, whose records the producer's log does not have yet.
    pub running: bool,
    pub producer: Option<&'a Metrics>,
    pub consumer: Option<&'a Metrics>,
    /// The topic's, if it answers.
    pub lag: Option<i64>,
    pub lags: &'a VecDeque<(i64, i64)>,
    pub attempts: &'a VecDeque<(i64, u64)>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Chart {
    pub id: &'static str,
    pub title: &'static str,
    /// The highest value, as it stands beside the chart.
    pub highest: String,
    pub series: Vec<Series>,
    /// What one who does not see the chart is told.
    pub text: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub name: &'static str,
    /// The newest value in words.
    pub now: String,
    /// The `d` of an SVG path; empty where there is nothing to draw.
    pub line: String,
    /// The same down to the ground.
    pub area: String,
}

/// One value a step; `None` where nothing is known.
type Steps = Vec<Option<f64>>;

pub fn charts(history: &History<'_>) -> Vec<Chart> {
    let now = history.now;
    let (mut published, stored) = (
        history.producer.map(|metrics| rates(now, metrics, "RecordsPublished")).unwrap_or_default(),
        history.consumer.map(|metrics| rates(now, metrics, "RowsStored")).unwrap_or_default(),
    );
    // What is not known yet is not 0.
    let last = history.producer.and_then(|metrics| metrics.recent.back()).and_then(|line| step(now, line.at));
    if history.running {
        published.iter_mut().skip(last.map_or(0, |last| last + 1)).for_each(|rate| *rate = None);
    }
    let lines = |metrics: &Metrics| metrics.recent.iter().filter_map(freshness).collect::<Vec<_>>();
    let freshness = highest(now, history.consumer.map(lines).unwrap_or_default());
    let lag = highest(now, pairs(history.lags));
    let lag_now = history.lag.map(|lag| lag as f64);
    let invocations = highest(now, pairs(history.attempts));
    vec![
        chart("records", "Records per second", rate, vec![newest("in", published), newest("out", stored)]),
        chart("freshness", "Freshness", milliseconds, vec![newest("age when stored", freshness)]),
        chart("lag", "Lag", records, vec![("records", lag, lag_now)]),
        chart("invocations", "Invocation time", milliseconds, vec![newest("longest", invocations)]),
    ]
}

fn freshness(line: &Line) -> Option<(i64, f64)> {
    Some((line.at, *line.metrics.get("Freshness")? as f64))
}

fn pairs<T: Copy + TryInto<i64>>(values: &VecDeque<(i64, T)>) -> Vec<(i64, f64)> {
    let number = |value: T| value.try_into().unwrap_or(i64::MAX) as f64;
    values.iter().map(|(at, value)| (*at, number(*value))).collect()
}

/// The step of a time; the last one is the present.
fn step(now: i64, at: i64) -> Option<usize> {
    let back = usize::try_from((now - at).max(0) / STEP_MS).ok()?;
    STEPS.checked_sub(back + 1)
}

/// Records a second: what a run says at its end was done all along its duration.
fn rates(now: i64, metrics: &Metrics, name: &str) -> Steps {
    let mut sums = vec![0.0; STEPS];
    for line in &metrics.recent {
        let records = line.metrics.get(name).copied().unwrap_or_default() as f64;
        let duration = i64::try_from(line.duration_ms.unwrap_or_default()).unwrap_or_default().min(CHARTED);
        let parts = duration / 1000 + 1;
        for part in 0..parts {
            if let Some(step) = step(now, line.at - duration * part / parts) {
                sums[step] += records / parts as f64;
            }
        }
    }
    // Before the log begins nothing is known.
    let first = step(now, metrics.since).unwrap_or(0);
    let rate = |(step, sum): (usize, f64)| (step >= first).then_some(sum * 1000.0 / STEP_MS as f64);
    sums.into_iter().enumerate().map(rate).collect()
}

/// The highest of each step.
fn highest(now: i64, values: Vec<(i64, f64)>) -> Steps {
    let mut steps: Steps = vec![None; STEPS];
    for (at, value) in values {
        if let Some(step) = step(now, at) {
            steps[step] = Some(steps[step].map_or(value, |highest| highest.max(value)));
        }
    }
    steps
}

/// Of each series its name, its steps, and its value of now.
type Named = (&'static str, Steps, Option<f64>);

/// One whose value of now is that of the last step which has one.
fn newest(name: &'static str, steps: Steps) -> Named {
    let now = steps.iter().rev().flatten().next().copied();
    (name, steps, now)
}

fn chart(id: &'static str, title: &'static str, say: fn(f64) -> String, series: Vec<Named>) -> Chart {
    let top = series.iter().flat_map(|(_, steps, _)| steps.iter().flatten()).copied().fold(0.0, f64::max);
    let drawn: Vec<Series> = series.iter().map(|(name, steps, now)| draw(name, steps, top, now.map(say))).collect();
    let values: Vec<String> = drawn.iter().map(|series| format!("{} {}", series.name, series.now)).collect();
    let minutes = count((CHARTED / 60_000).unsigned_abs(), "minute");
    let text = match top > 0.0 {
        true => format!("{title} in the last {minutes}: now {}; highest {}", values.join(", "), say(top)),
        false => format!("{title} in the last {minutes}: nothing yet"),
    };
    Chart { id, title, highest: say(top), series: drawn, text }
}

fn draw(name: &'static str, steps: &[Option<f64>], top: f64, now: Option<String>) -> Series {
    let scale = if top > 0.0 { (HEIGHT - 2.0) / top } else { 0.0 };
    let points: Vec<(f64, f64)> = steps
        .iter()
        .enumerate()
        .filter_map(|(step, value)| {
            let x = step as f64 * WIDTH / (STEPS - 1) as f64;
            Some((x, HEIGHT - 1.0 - (*value)? * scale))
        })
        .collect();
    let now = now.unwrap_or_else(|| "–".to_owned());
    let mut line: String = points
        .iter()
        .enumerate()
        .map(|(i, (x, y))| format!("{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' }))
        .collect();
    if points.len() == 1 {
        // A path of one point is drawn where it is closed.
        line.push('Z');
    }
    let area = match (points.first(), points.last()) {
        (Some((first, _)), Some((last, _))) => format!("{line}L{last:.1} {HEIGHT:.0}L{first:.1} {HEIGHT:.0}Z"),
        _ => String::new(),
    };
    Series { name, now, line, area }
}

fn rate(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}/s") } else { format!("{}/s", super::format::thousands(value.round() as i64)) }
}

fn records(value: f64) -> String {
    super::format::thousands(value as i64)
}

fn milliseconds(value: f64) -> String {
    super::format::milliseconds(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::document::PRODUCER;

    #[test]
    fn a_run_is_spread_over_its_duration_and_the_last_step_is_now() {
        let mut metrics = Metrics::new(PRODUCER, 0);
        let now = 10_000_000;
        metrics.read(&format!(r#"{{"RecordsPublished":100,"_aws":{{"Timestamp":{now}}}}}"#), now);
        metrics.recent[0].duration_ms = Some(19_999);
        let steps = rates(now, &metrics, "RecordsPublished");
        let [before, first, last] = [3, 2, 1].map(|back| steps[STEPS - back].unwrap());
        assert!(before == 0.0 && first > 4.0 && last > 4.0 && (first + last - 10.0).abs() < 1e-9, "{first} {last}");
        metrics.since = now;
        assert_eq!(rates(now, &metrics, "RecordsPublished")[STEPS - 2], None);
        let highest = highest(now, vec![(now, 3.0), (now - 1, 8.0), (now - CHARTED, 9.0)]);
        assert_eq!((highest[STEPS - 1], highest[0]), (Some(8.0), None));
    }

    #[test]
    fn a_chart_without_values_says_so() {
        let chart = chart("lag", "Lag", records, vec![("records", vec![None; STEPS], None)]);
        assert_eq!(chart.text, "Lag in the last 15 minutes: nothing yet");
        assert_eq!((chart.series[0].line.as_str(), chart.series[0].now.as_str()), ("", "–"));
    }

    #[test]
    fn the_lag_of_now_is_the_topics_and_one_value_is_drawn_too() {
        let lags = VecDeque::from([(9_999_000, 50), (10_000_000, 3)]);
        let attempts = VecDeque::new();
        let history = History {
            now: 10_000_000,
            running: false,
            producer: None,
            consumer: None,
            lag: Some(3),
            lags: &lags,
            attempts: &attempts,
        };
        let lag = charts(&history).remove(2);
        assert_eq!(
            (lag.series[0].now.as_str(), lag.highest.as_str(), lag.series[0].line.as_str()),
            ("3", "50", "M300.0 1.0Z")
        );
        let silent = charts(&History { lag: None, ..history }).remove(2);
        assert_eq!(silent.series[0].now, "–");
    }
}
