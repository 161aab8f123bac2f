use std::time::Duration;

use localstack::{runtime::Function, schedule::Schedule};
use serde_json::Value;

use crate::runtime::config;

#[tokio::test]
async fn ticks_fire_the_function_with_a_scheduled_event_until_the_schedule_stops() {
    let function = Function::start(config()).unwrap();
    let schedule = Schedule::start(Duration::from_millis(400), function.clone());
    while schedule.stats().runs < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(schedule.stats().next.is_some());
    let stats = schedule.stats();
    let last = stats.last.unwrap().result.unwrap();
    let last: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(last["payload"]["source"], "aws.events");
    assert_eq!(last["payload"]["detail-type"], "Scheduled Event");
    assert_eq!(stats.failures, 0);
    schedule.stop().await;
    let runs = function.stats().invocations;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(function.stats().invocations, runs);
    function.stop().await;
}

#[tokio::test]
async fn a_tick_during_a_run_is_skipped_and_not_caught_up_on() {
    let function = Function::start(config()).unwrap();
    // The function is halted: its runs are alive for as long as we like.
    function.invoke("{}".into()).await.unwrap();
    function.pause();
    let later = tokio::time::Instant::now() + Duration::from_secs(3_600);
    let schedule = Schedule::start_at(Duration::from_secs(3_600), later, function.clone());
    let (first, ()) = tokio::join!(schedule.fire_now(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(schedule.stats().running);
        assert!(schedule.fire_now().await.is_none());
        assert!(schedule.fire_now().await.is_none());
        function.resume();
    });
    assert!(first.unwrap().is_ok());
    let stats = schedule.stats();
    assert_eq!((stats.runs, stats.skipped, stats.running), (1, 2, false));
    assert!(schedule.fire_now().await.unwrap().is_ok());
    assert_eq!(schedule.stats().runs, 2);
    schedule.stop().await;
    function.stop().await;
}
