//! The page of `freshet demo --page` in a real browser: what it shows is what there is, what it offers works, and everybody can use it.

mod demo;
mod looks;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::browser::{Browser, Sent, keys};
use demo::Demo;

const NOTHING: [String; 0] = [];

/// Everything that a person would see and do, one after the other on one demo.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_pipeline_at_work() {
    let Some(browser) = Browser::start().await else { return };
    let Some(demo) = Demo::start().await else { return };
    browser.open(&demo.url()).await;
    browser.until("rows have reached the lake", &format!("{} > 0", number("lake.rows"))).await;

    let report = demo.at_rest().await;
    println!("• numbers are those of `freshet verify --json`");
    numbers_are_those_of_verify(&browser, &demo, &report).await;
    println!("• every number is the API's");
    every_number_is_the_apis(&browser, &demo).await;
    each_row_in_the_lake_is_one_that_the_consumer_has_stored(&browser, &report).await;
    println!("• SQL reads the lake and cannot write");
    sql_reads_the_lake_and_cannot_write(&browser, &report).await;
    demo.signal("producer", "-CONT");

    let mut sent = browser.sent().await;
    println!("• a run is started by the button");
    sent.extend(a_run_is_started_from_the_page(&browser).await);
    println!("• a poison record is a dead letter with reason and payload");
    a_poison_record_is_a_dead_letter_with_reason_and_payload(&browser, &demo).await;
    println!("• a consumer that is killed fails, and its records are tried again");
    a_consumer_that_is_killed_is_seen_to_fail_and_to_be_tried_again(&browser, &demo).await;

    let report = demo.at_rest().await;
    numbers_are_those_of_verify(&browser, &demo, &report).await;
    // What was asked stays as it was answered: asked again, it is of the same moment as the rest.
    println!("• verify finds the lake clean");
    verify_finds_the_lake_clean(&browser).await;
    sql_counts_the_rows(&browser, &report).await;
    // The next run stays under way, so that this is how it is looked at, each time.
    println!("• a run beside another one is refused");
    a_run_beside_another_one_is_refused(&browser).await;
    println!("• what is drawn anew keeps its focus");
    what_is_drawn_anew_keeps_its_focus(&browser).await;
    println!("• everybody can read and reach everything");
    looks::everybody_can_read_and_reach_everything(&browser).await;
    println!("• no errors on the console, no request to anybody else");
    // The browser notes each request that was refused: writing SQL, and a run beside another one.
    let refused = |entry: &String| {
        entry.contains("/api/query") && entry.contains("400") || entry.contains("/api/runs") && entry.contains("409")
    };
    let console: Vec<_> = browser.console().await.into_iter().filter(|entry| !refused(entry)).collect();
    assert_eq!(console, NOTHING, "the console has errors");
    let url = demo.url();
    sent.extend(browser.sent().await);
    assert!(sent.iter().any(|sent| sent.url.ends_with("/api/events")), "{sent:?}");
    let elsewhere: Vec<_> = sent.iter().filter(|sent| !sent.url.starts_with(&format!("{url}/"))).collect();
    assert!(elsewhere.is_empty(), "the page asks others: {elsewhere:?}");
    let failed: Vec<_> = sent.iter().filter(|sent| sent.status.is_some_and(|status| status >= 500)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_backend_is_gone_says_so_and_comes_back_by_itself() {
    let Some(browser) = Browser::start().await else { return };
    let Some(mut demo) = Demo::start().await else { return };
    browser.open(&demo.url()).await;
    browser.until("rows have reached the lake", &format!("{} > 0", number("lake.rows"))).await;
    browser.until("the page is connected", "document.querySelector('#connection').textContent === ''").await;
    assert_eq!(browser.console().await, NOTHING);
    // A page that is loaded again has forgotten it.
    browser.run("window.notLoadedAgain = true", &[]).await;

    demo.stop();
    browser.until("the page says that it is not connected", "document.querySelector('#connection').textContent").await;
    let banner = browser.text("#connection").await;
    assert!(banner.to_lowercase().contains("not connected since"), "{banner}");
    looks::axe_finds_nothing(&browser, "'#connection'", "not connected").await;
    demo.start_again().await;
    browser.until("the page is connected again", "document.querySelector('#connection').textContent === ''").await;
    let report = demo.at_rest().await;
    // Of the new lake: the old one is gone.
    numbers_are_those_of_verify(&browser, &demo, &report).await;
    assert_eq!(browser.run("return window.notLoadedAgain", &[]).await, true, "the page was loaded again");
    // The browser itself notes each request that nobody answered.
    let other: Vec<_> = browser.console().await.into_iter().filter(|entry| !entry.contains("net::ERR_")).collect();
    assert_eq!(other, NOTHING);
}

/// A JavaScript expression for a number of the page, as the API has it; NaN while the page has none.
fn number(path: &str) -> String {
    format!("Number(document.querySelector('[data-value=\"{path}\"]')?.dataset.raw)")
}

async fn shown(browser: &Browser, path: &str) -> u64 {
    let raw = format!("document.querySelector('[data-value=\"{path}\"]')?.dataset.raw");
    let value = browser.until(&format!("{path} is shown"), &raw).await;
    value.as_str().unwrap().parse().unwrap()
}

/// Of all partitions.
fn sum(report: &Value, key: &str) -> u64 {
    report["partitions"].as_array().unwrap().iter().map(|partition| partition[key].as_u64().unwrap()).sum()
}

fn rows(report: &Value) -> u64 {
    sum(report, "rows")
}

/// The pipeline is at rest: what is shown changes no more, once the page has looked again.
async fn numbers_are_those_of_verify(browser: &Browser, demo: &Demo, report: &Value) {
    assert_eq!(report["clean"], true, "{report:#}");
    let mut expected = vec![
        ("lake.rows".to_owned(), rows(report)),
        ("lake.objects".to_owned(), sum(report, "ranges")),
        ("lake.dead_letters".to_owned(), sum(report, "dead_letters")),
    ];
    // Each partition that has records; verify and the page have them in the same order.
    let status = demo.status().await;
    for (index, partition) in status["topic"]["partitions"].as_array().unwrap().iter().enumerate() {
        let of_report =
            report["partitions"].as_array().unwrap().iter().find(|p| p["partition"] == partition["partition"]);
        let Some(of_report) = of_report else { continue };
        // One that has no record yet has no ledger, and nothing is committed.
        let next = of_report["next_offset"].as_u64();
        let path = |name: &str| format!("topic.partitions.{index}.{name}");
        expected.extend([(path("end_offset"), next.unwrap_or_default()), (path("lag"), 0)]);
        expected.extend(next.map(|next| (path("committed"), next)));
    }
    for (path, value) in &expected {
        let equal = format!("{} === {value}", number(path));
        browser.until(&format!("{path} is {value}, as verify says"), &equal).await;
    }
    // What is read is what the API has, too: digits are grouped, and nothing else.
    for (path, value) in &expected {
        let text = browser.text(&format!("[data-value=\"{path}\"]")).await;
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(digits, value.to_string(), "{path} reads {text}");
    }
}

/// Each number of the page stands in the document that the API answers, at the path that it bears.
async fn every_number_is_the_apis(browser: &Browser, demo: &Demo) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let script = "return Object.fromEntries([...document.querySelectorAll('[data-value]')].map(e => [e.dataset.value, Number(e.dataset.raw)]))";
        let shown = browser.run(script, &[]).await;
        let status = demo.status().await;
        let shown = shown.as_object().unwrap();
        assert!(shown.len() > 20, "{shown:?}");
        // Of what is never at rest, the age of the newest row alone is shown as a number.
        let differs = |(path, value): &(&String, &Value)| {
            *path != "lake.freshness_seconds" && status.pointer(&format!("/{}", path.replace('.', "/"))) != Some(*value)
        };
        let differing: Vec<_> = shown.iter().filter(differs).collect();
        if differing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "the page shows {differing:?}, the API says {status:#}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Nothing has failed yet: the functions' own numbers tell the same story as the lake.
async fn each_row_in_the_lake_is_one_that_the_consumer_has_stored(browser: &Browser, report: &Value) {
    let all = format!("{} === {}", number("consumer.RowsStored"), rows(report));
    browser.until("the consumer has stored each row", &all).await;
    assert_eq!(shown(browser, "consumer.retries").await, 0);
    let attempts = "#consumer [data-attempt][data-outcome=\"ok\"]";
    assert!(browser.run("return document.querySelectorAll(arguments[0]).length", &[json!(attempts)]).await != json!(0));
}

async fn sql_counts_the_rows(browser: &Browser, report: &Value) {
    empty_result(browser).await;
    browser.fill("#sql-text", "SELECT count(*) AS people, count(DISTINCT email) AS emails FROM names").await;
    browser.click("#sql-run").await;
    browser.until("SQL has counted the rows", "document.querySelector('#sql-result td')").await;
    assert_eq!(browser.text("#sql-result td").await, rows(report).to_string());
}

async fn sql_reads_the_lake_and_cannot_write(browser: &Browser, report: &Value) {
    sql_counts_the_rows(browser, report).await;

    for write in [
        "DROP TABLE names",
        "DELETE FROM names",
        "COPY names TO 'stolen.csv'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let why = answer_to(browser, write, ".trouble").await;
        println!("  {write}: {why}");
    }
    // As deep as a statement may be, and deeper.
    let deep = |levels| format!("SELECT 1{}", "+1".repeat(levels));
    assert_eq!(answer_to(browser, &deep(299), "td").await, "300");
    assert!(answer_to(browser, &deep(2_000), ".trouble").await.contains("600 words and signs"));
    looks::axe_finds_nothing(browser, "document", "a refused query").await;
    // Of two that are chosen in one moment, as with the arrow keys, the later one is answered.
    let both = "const s = document.querySelector('#sql-saved');
        for (const chosen of [s.options.length - 1, 0]) { s.selectedIndex = chosen; s.dispatchEvent(new Event('change', {bubbles: true})); }";
    empty_result(browser).await;
    browser.run(both, &[]).await;
    browser.until("the later query is answered", "document.querySelector('#sql-result th')?.innerText === 'dt'").await;
    // A choice is a query that runs; the keyboard runs it again.
    let choices =
        browser.run("return document.querySelectorAll('#sql-saved option').length", &[]).await.as_u64().unwrap();
    assert!(choices >= 4, "{choices} saved queries");
    for choice in 0..choices {
        empty_result(browser).await;
        let choose = "const s = document.querySelector('#sql-saved'); s.selectedIndex = arguments[0]; s.dispatchEvent(new Event('change', {bubbles: true}));";
        browser.run(choose, &[json!(choice)]).await;
        let answered = "document.querySelector('#sql-result table, #sql-result .trouble')";
        browser.until(&format!("the saved query {choice} is answered"), answered).await;
        let trouble = browser.run("return document.querySelector('#sql-result .trouble')?.innerText", &[]).await;
        assert_eq!(
            trouble,
            Value::Null,
            "{}",
            browser.run("return document.querySelector('#sql-text').value", &[]).await
        );
    }
}

/// What the SQL box shows for a query that is typed and sent off with Ctrl+Enter.
async fn answer_to(browser: &Browser, sql: &str, selector: &str) -> String {
    empty_result(browser).await;
    browser.fill("#sql-text", sql).await;
    browser.press(&[keys::CONTROL, keys::ENTER]).await;
    let answered = format!("document.querySelector('#sql-result {selector}')");
    browser.until(&format!("{sql} is answered"), &answered).await;
    browser.text(&format!("#sql-result {selector}")).await
}

async fn empty_result(browser: &Browser) {
    browser.until("the last query has ended", "document.querySelector('#sql-run').ariaBusy !== 'true'").await;
    browser.run("document.querySelector('#sql-result').textContent = ''", &[]).await;
}

/// Returns what the browser has asked for meanwhile.
async fn a_run_is_started_from_the_page(browser: &Browser) -> Vec<Sent> {
    let mut all = Vec::new();
    let published = loop {
        browser.until("no run is under way", "document.querySelector('#run-now').ariaDisabled !== 'true'").await;
        let before = shown(browser, "schedule.runs").await;
        let published = shown(browser, "producer.RecordsPublished").await;
        browser.click("#run-now").await;
        browser.until("the run is counted", &format!("{} > {before}", number("schedule.runs"))).await;
        let sent = browser.sent().await;
        let asked = sent.iter().find(|sent| sent.method == "POST" && sent.url.ends_with("/api/runs"));
        let status = asked.and_then(|asked| asked.status);
        all.extend(sent);
        if status == Some(202) {
            break published;
        }
        // The schedule was quicker by a moment.
        assert!(status.is_none_or(|status| status == 409), "{status:?}");
    };
    browser.until("the run has published", &format!("{} > {published}", number("producer.RecordsPublished"))).await;
    all
}

async fn a_run_beside_another_one_is_refused(browser: &Browser) {
    browser.until("a run is under way", "document.querySelector('#run-now').ariaDisabled === 'true'").await;
    browser.click("#run-now").await;
    browser
        .until("the page says why not", "document.querySelector('#run-message').innerText.includes('under way')")
        .await;
}

/// A line that comes or goes before a button, as an error does, leaves the button that one is on.
async fn what_is_drawn_anew_keeps_its_focus(browser: &Browser) {
    let script = r#"
        const old = document.body.appendChild(document.createElement("div"));
        const drawn = (html) => {
            const wanted = document.createElement("template");
            wanted.innerHTML = html;
            become(old, wanted.content);
            return old.innerHTML === html;
        };
        const list = ` <div data-key="list">items</div>`, button = ` <div data-key="foot"><button>Run</button></div>`;
        const right = [drawn(`<h2>t</h2> <dl></dl>${list}${button}`)];
        const focused = old.querySelector("button");
        focused.focus();
        for (const next of [
            `<h2>t</h2><p class="trouble">failed</p> <dl></dl>${list}${button}`,
            `<h2>t</h2> <dl></dl>${list}${button}`,
            `<h2>t</h2><p class="trouble">unknown</p>${button}`,
            `<h2>u</h2> <dl></dl> <dl></dl>${list}<p>last</p>${button}`,
        ]) right.push(drawn(next), document.activeElement === focused);
        old.remove();
        return right;"#;
    assert_eq!(browser.run(script, &[]).await, json!(vec![true; 9]));
}

async fn a_poison_record_is_a_dead_letter_with_reason_and_payload(browser: &Browser, demo: &Demo) {
    let before = shown(browser, "lake.dead_letters").await;
    // Were it taken for HTML, it would be seen, too.
    let payload = r#"{"name":"<img src=x onerror=window.hacked=1>","#;
    let (partition, offset) = demo.publish(payload.as_bytes()).await;
    browser.until("the dead letter is counted", &format!("{} === {}", number("lake.dead_letters"), before + 1)).await;
    let letter = format!("#dead-letters [data-letter=\"names_topic+{partition}+e0+{offset}\"]");
    browser.until("the dead letter is listed", &format!("document.querySelector({})", json!(letter))).await;
    let said = browser.text(&letter).await;
    for expected in ["decode", "EOF while parsing", &format!("names_topic {partition}:{offset}")] {
        assert!(said.contains(expected), "the dead letter lacks {expected}: {said}");
    }
    browser.click(&format!("{letter} summary")).await;
    assert_eq!(browser.text(&format!("{letter} pre")).await, payload);
    assert_eq!(browser.run("return window.hacked === undefined", &[]).await, true);
}

async fn a_consumer_that_is_killed_is_seen_to_fail_and_to_be_tried_again(browser: &Browser, demo: &Demo) {
    let rows = "document.querySelectorAll('#consumer [data-attempt]";
    let retries = shown(browser, "consumer.retries").await;
    // Halted, it is at work when it is killed.
    assert!(demo.signal("consumer", "-STOP") > 0);
    browser.until("an invocation is under way", &format!("{rows}[data-outcome=\"running\"]').length > 0")).await;
    assert!(demo.signal("consumer", "-KILL") > 0);
    browser.until("the invocation has failed", &format!("{rows}[data-outcome=\"failed\"]').length > 0")).await;
    browser.until("it is tried again", &format!("{} > {retries}", number("consumer.retries"))).await;
    let again = format!("[...{rows}[data-outcome=\"ok\"]')].some(row => row.dataset.attempt > 1)");
    browser.until("another attempt has succeeded", &again).await;
}

async fn verify_finds_the_lake_clean(browser: &Browser) {
    browser.click("#verify-now").await;
    browser.until("verify has ended", "document.querySelector('#verify-result').dataset.clean").await;
    let result = browser.text("#verify-result").await;
    assert!(result.contains("clean"), "{result}");
    println!("  {result}");
}
