//! The document in lines for people: `ok` or `!!`, the step, and what is known of it.

use std::io::Write;

use jiff::Timestamp;

use super::document::{Consumer, Functions, Lake, Schedule, Section, Status, Topic};
use crate::{Error, text};

pub fn lines(status: &Status, waited: Option<u64>, out: &mut dyn Write) -> Result<(), Error> {
    let lag = status.topic.known.as_ref().map(|topic| topic.lag);
    let steps = match &status.trouble {
        Some(trouble) => vec![("provision", Err(trouble.clone()))],
        None => vec![
            ("functions", line(&status.functions, functions)),
            ("schedule", line(&status.schedule, schedule)),
            ("topic", line(&status.topic, topic)),
            ("event source", line(&status.consumer, |consumer| event_source(consumer, lag))),
            ("lake", line(&status.lake, lake)),
        ],
    };
    for (name, step) in &steps {
        let (mark, text) = match step {
            Ok(text) => ("ok", text),
            Err(reason) => ("!!", reason),
        };
        writeln!(out, "{mark}  {name:<12}  {text}")?;
    }
    let first = steps.iter().find(|(_, step)| step.is_err());
    if let (Some((name, _)), Some(seconds)) = (first, waited) {
        writeln!(
            out,
            "\nAfter {seconds} s no record has come all the way: it stops at the first line with !!, {name}."
        )?;
    }
    Ok(())
}

fn line<T>(section: &Section<T>, say: impl FnOnce(&T) -> String) -> Result<String, String> {
    match (&section.trouble, &section.known) {
        (None, Some(known)) => Ok(say(known)),
        (trouble, _) => Err(trouble.clone().unwrap_or_else(|| "it was not asked: try again".to_owned())),
    }
}

fn functions(functions: &Functions) -> String {
    format!("{}, {} can be invoked", functions.producer.name, functions.consumer.name)
}

fn schedule(schedule: &Schedule) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut text = match (&schedule.rule, &schedule.expression) {
        (None, None) => "no rule is known".to_owned(),
        _ => format!("{} {}", part(&schedule.expression), part(&schedule.state)),
    };
    match &schedule.last_run {
        None => text += ", no run has ended yet",
        Some(run) => {
            let count = |name: &str| run.metrics.get(name).copied().unwrap_or_default();
            text += &format!(
                ", last run ended {} ({} ago): {} fetched, {} published, {} rejected",
                text::time(run.ended),
                age(run.ended),
                count("RecordsFetched"),
                count("RecordsPublished"),
                count("RecordsRejected")
            );
        }
    }
    text
}

fn topic(topic: &Topic) -> String {
    let partitions = text::count(topic.partitions.len() as u64, "partition");
    format!("{} holds {} records in {partitions}", topic.name, topic.records)
}

fn event_source(consumer: &Consumer, lag: Option<i64>) -> String {
    let behind = format!("lag {}", text::or_dash(lag));
    match &consumer.source {
        Some(source) => format!("{behind}; {} invocations, {} failed", source.invocations, source.failures),
        None => behind,
    }
}

fn lake(lake: &Lake) -> String {
    let newest = lake.newest_record.map_or_else(String::new, |newest| format!("; newest record {} old", age(newest)));
    format!(
        "s3://{}/{} has {} rows in {}, {}{newest}",
        lake.bucket,
        lake.prefix,
        lake.rows,
        text::count(lake.objects, "object"),
        text::count(lake.dead_letters, "dead letter")
    )
}

/// How long ago, in the largest unit that says enough.
fn age(ms: i64) -> String {
    text::age((Timestamp::now().as_millisecond() - ms).div_euclid(1000))
}
