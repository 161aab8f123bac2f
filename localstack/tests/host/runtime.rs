use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use localstack::runtime::{Function, FunctionConfig, InvocationEvent, InvokeError, Log, MAX_PAYLOAD, Outcome, Payload};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

/// `examples/test_function.rs`, which `cargo test` builds along.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples/test_function");
    assert!(path.exists(), "{path:?} is missing: run `cargo build -p localstack --examples` first");
    path
}

pub fn config() -> FunctionConfig {
    FunctionConfig { timeout: Duration::from_secs(20), ..FunctionConfig::new("test", binary()) }
}

async fn invoke(function: &Function, payload: Value) -> Result<Value, InvokeError> {
    let response = function.invoke(Bytes::from(payload.to_string())).await?;
    Ok(serde_json::from_slice(&response).unwrap())
}

async fn pid(function: &Function) -> u64 {
    invoke(function, json!({})).await.unwrap()["pid"].as_u64().unwrap()
}

fn is_alive(pid: u64) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // A zombie has ended; it only waits for its parent, and the parent of an orphan may take its time.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !stat.contains(") Z ")
}

async fn ends(pid: u64, within: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < within {
        if !is_alive(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn an_invocation_carries_payload_and_context_and_its_process_takes_the_next_one() {
    let function = Function::start(config()).unwrap();
    let mut events = function.events();
    let answer = invoke(&function, json!({ "do": "echo", "a": [1, "ü"] })).await.unwrap();
    assert_eq!(answer["payload"], json!({ "do": "echo", "a": [1, "ü"] }));
    assert_eq!(answer["arn"], "arn:aws:lambda:us-east-1:000000000000:function:test");
    assert!(answer["trace"].as_str().unwrap().starts_with("Root=1-"));
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let left = answer["deadline"].as_u64().unwrap() - now;
    assert!((15_000..=20_000).contains(&left), "{left}");
    assert_eq!(pid(&function).await, answer["pid"].as_u64().unwrap());

    let request_id = answer["request_id"].as_str().unwrap().to_owned();
    assert!(
        matches!(events.recv().await.unwrap(), InvocationEvent::Started { request_id: id, .. } if id == request_id)
    );
    assert!(matches!(
        events.recv().await.unwrap(),
        InvocationEvent::Ended { request_id: id, outcome: Outcome::Success, .. } if id == request_id
    ));
    let stats = function.stats();
    assert_eq!((stats.invocations, stats.succeeded, stats.cold_starts, stats.processes), (2, 2, 1, 1));
    function.stop().await;
}

#[tokio::test]
async fn a_function_sees_lambdas_environment_and_nothing_of_the_hosts() {
    let mut config = config();
    config.memory_mb = 512;
    config.environment = vec![("MINE".to_owned(), "yes".to_owned()), ("AWS_REGION".to_owned(), "eu-west-1".to_owned())];
    let function = Function::start(config).unwrap();
    let seen = invoke(&function, json!({ "do": "environment" })).await.unwrap();
    assert_eq!(seen["AWS_LAMBDA_FUNCTION_NAME"], "test");
    assert_eq!(seen["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"], "512");
    assert_eq!(seen["AWS_LAMBDA_FUNCTION_VERSION"], "$LATEST");
    assert_eq!(seen["AWS_LAMBDA_LOG_GROUP_NAME"], "/aws/lambda/test");
    assert_eq!(seen["AWS_LAMBDA_LOG_FORMAT"], "JSON");
    assert_eq!(seen["AWS_REGION"], "eu-west-1");
    assert_eq!(seen["TZ"], ":UTC");
    assert_eq!(seen["MINE"], "yes");
    assert_eq!(seen["AWS_DEFAULT_REGION"], "eu-west-1");
    let known = ["HOME", "LAMBDA_TASK_ROOT", "LANG", "MINE", "PATH", "TMPDIR", "TZ", "_HANDLER", "_X_AMZN_TRACE_ID"];
    let foreign = |name: &&String| !name.starts_with("AWS_") && !known.contains(&name.as_str());
    assert_eq!(seen.as_object().unwrap().keys().find(foreign), None);
    assert_eq!(function.arn(), "arn:aws:lambda:eu-west-1:000000000000:function:test");
    function.stop().await;
}

#[tokio::test]
async fn an_error_of_the_handler_is_told_and_the_process_lives_on() {
    let function = Function::start(config()).unwrap();
    let before = pid(&function).await;
    match invoke(&function, json!({ "do": "fail" })).await {
        Err(InvokeError::FunctionError { message, .. }) => assert_eq!(message, "it went wrong"),
        other => panic!("{other:?}"),
    }
    assert_eq!(pid(&function).await, before);
    function.stop().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_is_told_with_the_last_words_and_the_next_invocation_has_a_new_process() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let function = Function::start(FunctionConfig { log: Log::File(log.path().to_owned()), ..config() }).unwrap();
    let before = pid(&function).await;
    match invoke(&function, json!({ "do": "crash" })).await {
        Err(InvokeError::Crashed { status, stderr }) => {
            assert!(status.contains("SIGABRT"), "{status}");
            assert!(stderr.contains("these are my last words"), "{stderr}");
        }
        other => panic!("{other:?}"),
    }
    assert_ne!(pid(&function).await, before);
    assert!(std::fs::read_to_string(log.path()).unwrap().contains("these are my last words"));
    assert_eq!(function.stats().crashes, 1);
    function.stop().await;
}

#[tokio::test]
async fn a_function_past_its_time_out_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written");
    let timeout = Duration::from_secs(2);
    let function = Function::start(FunctionConfig { timeout, ..config() }).unwrap();
    let before = pid(&function).await;
    let late = invoke(&function, json!({ "do": "sleep", "millis": 4_000, "then_write": file })).await;
    assert_eq!(late, Err(InvokeError::Timeout(timeout)));
    assert!(!is_alive(before));
    assert_ne!(pid(&function).await, before);
    tokio::time::sleep(Duration::from_millis(2_800)).await;
    assert!(!file.exists());
    function.stop().await;
}

#[tokio::test]
async fn an_abandoned_invocation_goes_on_beside_the_next_one_and_its_process_then_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("written");
    let timeout = Duration::from_secs(2);
    let config = FunctionConfig { timeout, abandon_on_timeout: true, max_concurrency: 1, ..config() };
    let function = Function::start(config).unwrap();
    let before = pid(&function).await;
    let late = invoke(&function, json!({ "do": "sleep", "millis": 6_000, "then_write": file })).await;
    assert_eq!(late, Err(InvokeError::Timeout(timeout)));
    assert_ne!(pid(&function).await, before);
    assert!(is_alive(before) && !file.exists());
    assert!(ends(before, Duration::from_secs(20)).await);
    assert!(file.exists());
    function.stop().await;
}

#[tokio::test]
async fn a_halted_process_meets_its_time_out_and_one_that_goes_on_in_time_answers() {
    let function = Function::start(FunctionConfig { timeout: Duration::from_secs(3), ..config() }).unwrap();
    let before = pid(&function).await;
    assert_eq!(function.pause(), 1);
    let (answer, ()) = tokio::join!(invoke(&function, json!({})), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(function.resume(), 1);
    });
    assert_eq!(answer.unwrap()["pid"], before);
    function.pause();
    assert!(matches!(invoke(&function, json!({})).await, Err(InvokeError::Timeout(_))));
    assert!(!is_alive(before));
    function.stop().await;
}

#[tokio::test]
async fn killing_an_idle_process_costs_no_invocation_and_killing_a_busy_one_is_told() {
    let function = Function::start(config()).unwrap();
    assert_eq!(function.kill_one().await, None);
    let before = pid(&function).await;
    let killed = function.kill_one().await.unwrap();
    assert_eq!((u64::from(killed.pid), killed.busy), (before, false));
    let after = pid(&function).await;
    assert_ne!(after, before);

    let (answer, killed) = tokio::join!(invoke(&function, json!({ "do": "sleep", "millis": 10_000 })), async {
        // Long enough for the process to fetch it: before that it would go to another one.
        tokio::time::sleep(Duration::from_secs(2)).await;
        function.kill_one().await.unwrap()
    });
    assert_eq!((u64::from(killed.pid), killed.busy), (after, true));
    assert!(matches!(answer, Err(InvokeError::Crashed { status, .. }) if status.contains("SIGKILL")));
    assert_eq!(function.stats().killed, 2);
    function.stop().await;
}

#[tokio::test]
async fn no_more_processes_work_at_once_than_the_concurrency_allows() {
    let function = Function::start(FunctionConfig { max_concurrency: 2, ..config() }).unwrap();
    let sleep = || invoke(&function, json!({ "do": "sleep", "millis": 300 }));
    let start = Instant::now();
    let (a, b, c, d) = tokio::join!(sleep(), sleep(), sleep(), sleep());
    assert!(start.elapsed() >= Duration::from_millis(600));
    let pids: std::collections::HashSet<_> = [a, b, c, d].map(|answer| answer.unwrap()["pid"].as_u64()).into();
    assert_eq!(pids.len(), 2);
    assert_eq!(function.stats().cold_starts, 2);
    function.stop().await;
}

#[tokio::test]
async fn a_process_that_ends_before_its_first_invocation_has_failed_to_start() {
    let mut config = config();
    config.environment = vec![("INIT".to_owned(), "exit".to_owned())];
    let function = Function::start(config).unwrap();
    match invoke(&function, json!({})).await {
        Err(InvokeError::InitFailed { reason }) => {
            assert!(reason.contains("exit status: 3") && reason.contains("the configuration is wrong"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(function.stats().processes, 0);
    function.stop().await;
}

#[tokio::test]
async fn payloads_over_six_megabytes_are_refused_both_ways_and_the_process_lives_on() {
    let function = Function::start(config()).unwrap();
    let before = pid(&function).await;
    let most = json!("x".repeat(MAX_PAYLOAD - 2)).to_string();
    assert_eq!(most.len(), MAX_PAYLOAD);
    let request = function.invoke(Bytes::from(most + " ")).await;
    let bytes = MAX_PAYLOAD + 1;
    assert_eq!(request, Err(InvokeError::PayloadTooLarge { payload: Payload::Request, bytes }));
    let response = invoke(&function, json!({ "do": "large" })).await;
    let bytes = 7_000_002;
    assert_eq!(response, Err(InvokeError::PayloadTooLarge { payload: Payload::Response, bytes }));
    assert_eq!(pid(&function).await, before);
    function.stop().await;
}

#[tokio::test]
async fn a_full_payload_of_six_megabytes_goes_through() {
    let function = Function::start(config()).unwrap();
    let payload = json!({ "do": "sleep", "millis": 0, "filler": "x".repeat(MAX_PAYLOAD - 50) });
    assert!(payload.to_string().len() <= MAX_PAYLOAD);
    invoke(&function, payload).await.unwrap();
    function.stop().await;
}

#[tokio::test]
async fn stopping_lets_a_graceful_function_say_farewell_and_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farewell");
    let mut config = config();
    config.environment =
        vec![("INIT".to_owned(), "graceful".to_owned()), ("FAREWELL".to_owned(), file.to_string_lossy().into_owned())];
    let said = || std::fs::read_to_string(&file).unwrap_or_default();
    // The half second between SIGTERM and SIGKILL may be too short for any process on a busy machine: one of three is in time.
    for _ in 0..3 {
        let function = Function::start(config.clone()).unwrap();
        let running = pid(&function).await;
        function.stop().await;
        assert!(!is_alive(running));
        assert_eq!(invoke(&function, json!({})).await, Err(InvokeError::Stopped));
        if said() == "farewell" {
            break;
        }
    }
    assert_eq!(said(), "farewell");
}

#[tokio::test]
async fn stopping_ends_what_runs_and_what_waits_and_halted_processes_too() {
    let function = Function::start(FunctionConfig { max_concurrency: 1, ..config() }).unwrap();
    let running = pid(&function).await;
    let sleep = || invoke(&function, json!({ "do": "sleep", "millis": 10_000 }));
    let (first, second, ()) = tokio::join!(sleep(), sleep(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        function.pause();
        function.stop().await;
    });
    assert_eq!((first, second), (Err(InvokeError::Stopped), Err(InvokeError::Stopped)));
    assert!(!is_alive(running));
}

#[tokio::test]
async fn dropping_the_last_handle_kills_the_processes() {
    let function = Function::start(config()).unwrap();
    let running = pid(&function).await;
    drop(function);
    assert!(ends(running, Duration::from_secs(5)).await);
}

const HOST: &str = "FRESHET_TEST_HOST";

/// Not a test by itself: the host that the next one kills, in a process of its own.
#[test]
fn host_to_be_killed() {
    if std::env::var_os(HOST).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let function = Function::start(config()).unwrap();
        // Three at once, so that there are three processes.
        let sleep = |millis| invoke(&function, json!({ "do": "sleep", "millis": millis }));
        let (idle, halted, busy) = tokio::join!(sleep(300), sleep(300), sleep(300));
        let pids = [idle, halted, busy].map(|answer| answer.unwrap()["pid"].as_u64().unwrap());
        println!("pids {} {} {}", pids[0], pids[1], pids[2]);
        sleep(2_000).await.unwrap();
        // The next one kills the host: it is there for that also when the machine is slow.
        tokio::time::sleep(Duration::from_secs(20)).await;
    });
}

/// A process of `lambda_runtime` ends when the Runtime API is gone: an idle one at once, a busy one when it wants to
/// answer, a halted one because the kernel lets orphaned process groups go on.
#[tokio::test]
async fn no_process_outlives_a_host_that_was_killed() {
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::host_to_be_killed", "--nocapture"])
        .env(HOST, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let pids: Vec<u64> = lines
        .map(Result::unwrap)
        .find_map(|line| Some(line.split_once("pids ")?.1.split(' ').map(|pid| pid.parse().unwrap()).collect()))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let halted = Pid::from_raw(i32::try_from(pids[0]).unwrap()).unwrap();
    kill_process(halted, Signal::STOP).unwrap();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    host.kill().unwrap();
    host.wait().unwrap();
    for pid in pids {
        assert!(ends(pid, Duration::from_secs(10)).await, "{pid} is still alive");
    }
}
