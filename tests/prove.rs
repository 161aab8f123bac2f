//! The consumer's binary, driven by the event source, while everything around it fails; and then the proof that each record is
//! in the lake once, whole.
//!
//! `make prove` runs it for as long as it is told to (`SECONDS=`), one stack a class of faults; `make test` in short. Both print a
//! seed, which replays a run (`SEED=`): the same records, the same faults for the same number of requests. When which process
//! runs is the machine's, so that a replay is a run of the same kind, not the same run.
//!
//! On the embedded broker, and on three of Apache Kafka, to which things can happen that the embedded one does not know. Each class of
//! faults has a partition of its own that had no records before it.

mod attempts;
mod bench;
mod classes;
mod comparison;
mod orders;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::time::{Duration, Instant};

use self::attempts::Counts;
use self::bench::{Bench, TIME_OUT};
use self::classes::{BROKERS, Class, PROCESSES_AND_SOURCE, REQUESTS, until};
use self::comparison::{Comparison, compare};
use crate::support::fault_proxy::{Fault, Injected};
use crate::support::kafka::Brokers;

/// How long each class of faults is injected, at least, where nobody says otherwise.
const SHORT: Duration = Duration::from_millis(800);
/// A class that has not injected its least by then has failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// One line of the summary.
struct Row {
    class: Class,
    injected: u64,
    records: usize,
    counts: Counts,
    offset_gaps: u64,
    compared: Comparison,
    stuck: usize,
    recovery: Duration,
}

struct Run {
    rows: Vec<Row>,
    requests: Injected,
    /// What is wrong, each with where to look.
    violations: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_each_record_is_stored_once_and_no_partition_is_stuck() {
    let order = Order::read();
    let runs = match order.seconds {
        // Two stacks at once, over which the classes come one after the other: most of the time is waited.
        None => {
            let (a, b) = tokio::join!(
                run(Brokers::Embedded, order.seed, &REQUESTS, SHORT),
                run(Brokers::Embedded, order.seed, &PROCESSES_AND_SOURCE, SHORT)
            );
            a.zip(b).map(|((a, _), (b, _))| vec![a, b])
        }
        Some(seconds) => {
            long(Brokers::Embedded, order.seed, seconds, &[&REQUESTS[..], &PROCESSES_AND_SOURCE].concat()).await
        }
    };
    order.conclude(runs);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_to_brokers_and_topics_each_record_is_stored_once_and_no_partition_is_stuck() {
    let order = Order::read();
    let Some(brokers) = Brokers::apache().await else { return };
    let runs = match order.seconds {
        None => run(brokers, order.seed, &[&BROKERS[..], &[Class::MadeAnew, Class::Everything]].concat(), SHORT)
            .await
            .map(|(run, _)| vec![run]),
        Some(seconds) => {
            long(brokers, order.seed, seconds, &[&BROKERS[..], &REQUESTS, &PROCESSES_AND_SOURCE].concat()).await
        }
    };
    order.conclude(runs);
}

/// What was asked for.
struct Order {
    seed: u64,
    /// How long it is to take. In short otherwise.
    seconds: Option<u64>,
    begin: Instant,
}

impl Order {
    fn read() -> Order {
        let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let number =
            |name: &str| given(name).map(|text| text.parse::<u64>().unwrap_or_else(|e| panic!("{name}={text}: {e}")));
        let seed = number("PROVE_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
        say(&format!("prove: seed {seed}; `make prove SEED={seed}` makes the same choices"));
        Order { seed, seconds: number("PROVE_SECONDS"), begin: Instant::now() }
    }

    fn conclude(&self, runs: Option<Vec<Run>>) {
        let Some(runs) = runs else { return };
        say(&summary(&runs));
        let (seed, took) = (self.seed, self.begin.elapsed().as_secs_f64());
        say(&format!("prove: seed {seed}, {took:.0} s, function's time-out {} s", TIME_OUT.as_secs()));
        let violations: Vec<_> = runs.iter().flat_map(|run| &run.violations).cloned().collect();
        assert!(violations.is_empty(), "seed {seed}:\n{}", violations.join("\n"));
    }
}

/// Each class of faults on a stack of its own.
async fn long(mut brokers: Brokers, seed: u64, seconds: u64, classes: &[Class]) -> Option<Vec<Run>> {
    // The last one, of everything, has as long as five others.
    let each = Duration::from_secs(seconds) / (classes.len() as u32 + 4);
    let mut runs = Vec::new();
    for class in classes {
        let time = if *class == Class::Everything { each * 5 } else { each };
        let (run, again) = run(brokers, seed, &[*class], time).await?;
        runs.push(run);
        brokers = again;
    }
    Some(runs)
}

/// Classes of faults one after the other on one stack, and the proof at the end. The brokers come back empty.
async fn run(brokers: Brokers, seed: u64, classes: &[Class], time: Duration) -> Option<(Run, Brokers)> {
    let mut bench = Bench::start(brokers, classes.len()).await?;
    let mut run = Run { rows: Vec::new(), requests: Injected::new(), violations: Vec::new() };
    for (number, class) in classes.iter().enumerate() {
        let row = prove(&mut bench, seed, number, *class, time).await;
        let violations = violations(&row);
        let go_on = row.stuck == 0;
        if !violations.is_empty() {
            run.violations.push(format!("{}: {}\n{}", class.name(), violations.join("; "), bench.last_words()));
        }
        run.rows.push(row);
        if !go_on {
            break;
        }
    }
    run.requests = bench.proxy.injected();
    run.violations.extend(bench.verify().await.into_iter().map(|finding| format!("freshet verify --deep: {finding}")));
    // Everything once more: a record of one class may have been stored again under another.
    let whole = compare(&bench.lake().await, 0, &bench.topic.expected(0)).await.unwrap();
    run.violations.extend(whole.examples);
    Some((run, bench.stop().await))
}

/// Records come, faults are injected while they are stored, then there is peace: how long until everything is there, and
/// whether it is.
async fn prove(bench: &mut Bench, seed: u64, number: usize, class: Class, time: Duration) -> Row {
    let mut hasher = DefaultHasher::new();
    (seed, class.name()).hash(&mut hasher);
    let mut rng = fastrand::Rng::with_seed(hasher.finish());
    let (since, before, gaps_before) = (bench.topic.next_day(), bench.attempts.counts(), bench.offset_gaps());
    class.begin(bench, rng.u64(..)).await;
    let feed = bench.topic.feed(number, class.padding(), rng.fork());
    // Before the first attempt there is nothing to disturb.
    until(PATIENCE, || bench.attempts.counts().attempts > before.attempts).await;
    let (begin, mut injected) = (Instant::now(), 0);
    while begin.elapsed() < time || (injected < class.least() && begin.elapsed() < time + PATIENCE) {
        injected += class.step(bench, number, &mut rng).await;
    }
    feed.stop().await;
    class.end(bench).await;
    let (recovery, stuck) = bench.recover().await;
    let expected = bench.topic.expected(since);
    let compared = compare(&bench.lake().await, since, &expected).await.unwrap();
    let counts = bench.attempts.counts().since(before);
    let offset_gaps = bench.offset_gaps() - gaps_before;
    let row = Row { class, injected, records: expected.len(), counts, offset_gaps, compared, stuck, recovery };
    let name = class.name();
    say(&format!(
        "prove: {name}: {injected} injected, {:.1} s, {:.1} s to recover",
        begin.elapsed().as_secs_f64(),
        recovery.as_secs_f64()
    ));
    row
}

fn violations(row: &Row) -> Vec<String> {
    let mut violations = Vec::new();
    if row.injected < row.class.least() {
        violations.push(format!("injected {} times, {} would show something", row.injected, row.class.least()));
    }
    if row.class.leaves_gaps() && row.offset_gaps == 0 {
        violations.push("offsets without a record were not noticed".to_owned());
    }
    if row.stuck > 0 {
        violations.push(format!("{} partitions are stuck", row.stuck));
    }
    violations.extend(row.compared.examples.iter().cloned());
    violations
}

fn summary(runs: &[Run]) -> String {
    let rows: Vec<_> = runs.iter().flat_map(|run| &run.rows).collect();
    let header = [
        "fault",
        "injected",
        "records",
        "attempts",
        "failed",
        "twins",
        "adopted",
        "gaps",
        "duplicates",
        "losses",
        "stuck",
        "recovery ms",
    ];
    let cells = |row: &&Row| {
        let Counts { attempts, failed, twins, ranges_adopted, .. } = row.counts;
        let Comparison { duplicates, losses, .. } = row.compared;
        let numbers = [
            row.injected,
            row.records as u64,
            attempts,
            failed,
            twins,
            ranges_adopted,
            row.offset_gaps,
            duplicates,
            losses,
        ];
        let mut cells = vec![row.class.name().to_owned()];
        cells.extend(numbers.map(|n| n.to_string()));
        cells.extend([row.stuck.to_string(), row.recovery.as_millis().to_string()]);
        cells
    };
    let mut text = format!("\n{}", freshet::text::table(&header, &rows.iter().map(cells).collect::<Vec<_>>()));

    // What the proxy did, by operation.
    let mut requests: BTreeMap<&str, BTreeMap<Fault, u64>> = BTreeMap::new();
    for ((fault, operation), times) in runs.iter().flat_map(|run| &run.requests) {
        *requests.entry(operation).or_default().entry(*fault).or_default() += times;
    }
    let columns: Vec<Fault> = Fault::ALL.into_iter().chain([Fault::Slow]).collect();
    let names: Vec<&str> = columns.iter().map(|fault| Class::Request(*fault).name()).collect();
    let header: Vec<&str> = ["request"].into_iter().chain(names).collect();
    let line = |(operation, faults): (&&str, &BTreeMap<Fault, u64>)| {
        let times = columns.iter().map(|fault| faults.get(fault).copied().unwrap_or_default().to_string());
        [(*operation).to_owned()].into_iter().chain(times).collect()
    };
    text.push('\n');
    text + &freshet::text::table(&header, &requests.iter().map(line).collect::<Vec<_>>())
}

/// Also where the output of a test that passes is not shown.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
