//! What an invocation asks for.

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Fetch and publish for one run.
    Run,
    /// Make the topic, or look at it, and nothing else.
    EnsureTopic,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the event is refused: {0}. Invoke the producer with a scheduled event of EventBridge, or with {{\"ensure_topic\": true}} for the topic alone"
)]
pub struct EventError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    ensure_topic: bool,
}

impl Request {
    /// A scheduled event's content says nothing that a run needs.
    pub fn of(event: Value) -> Result<Request, EventError> {
        if event.get("ensure_topic").is_some() {
            return match Order::deserialize(event) {
                Ok(Order { ensure_topic: true }) => Ok(Request::EnsureTopic),
                Ok(Order { ensure_topic: false }) => Err(EventError("`ensure_topic` is false".to_owned())),
                Err(error) => Err(EventError(error.to_string())),
            };
        }
        let event: EventBridgeEvent<Value> = EventBridgeEvent::deserialize(event)
            .map_err(|error| EventError(format!("it is no event of EventBridge ({error})")))?;
        match event.detail_type.as_str() {
            "Scheduled Event" => Ok(Request::Run),
            other => Err(EventError(format!("its detail-type is `{other}`, not `Scheduled Event`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_and_schedules_of_eventbridge_start_a_run() {
        let rule = json!({
            "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event",
            "source": "aws.events", "account": "123456789012", "time": "2026-11-23T05:05:00Z", "region": "eu-west-1",
            "resources": ["arn:aws:events:eu-west-1:123456789012:rule/freshet"], "detail": {}
        });
        assert_eq!(Request::of(rule.clone()).unwrap(), Request::Run);
        let mut scheduler = rule;
        scheduler["source"] = json!("aws.scheduler");
        scheduler["detail"] = json!("{}");
        assert_eq!(Request::of(scheduler).unwrap(), Request::Run);
    }

    #[test]
    fn the_topic_can_be_asked_for_alone() {
        assert_eq!(Request::of(json!({"ensure_topic": true})).unwrap(), Request::EnsureTopic);
    }

    #[test]
    fn any_other_event_is_refused_with_what_to_send() {
        for event in [
            json!(null),
            json!([]),
            json!({}),
            json!("run"),
            json!({"ensure_topic": false}),
            json!({"ensure_topic": 1}),
            json!({"ensure_topic": true, "force": true}),
            json!({"detail-type": "EC2 Instance State-change Notification", "source": "aws.ec2", "detail": {}}),
            json!({"eventSource": "aws:kafka", "records": {}}),
        ] {
            let message = Request::of(event.clone()).unwrap_err().to_string();
            assert!(message.contains("Invoke the producer with"), "{event}: {message}");
        }
    }
}
