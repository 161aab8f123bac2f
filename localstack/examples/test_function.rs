//! A real Lambda function for the tests of the runtime host. The payload says what it does: `{"do": "echo"}`.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    match std::env::var("INIT").as_deref() {
        Ok("exit") => {
            eprintln!("the configuration is wrong");
            std::process::exit(3);
        }
        Ok("hang") => std::future::pending().await,
        Ok("graceful") => {
            let file = std::env::var("FAREWELL")?;
            let farewell = async move || {
                let _ = std::fs::write(file, "farewell");
            };
            lambda_runtime::spawn_graceful_shutdown_handler(farewell).await;
        }
        _ => {}
    }
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (payload, context) = event.into_parts();
    match payload["do"].as_str() {
        Some("fail") => Err("it went wrong".into()),
        Some("crash") => {
            eprintln!("these are my last words");
            std::process::abort();
        }
        Some("sleep") => {
            let millis = payload["millis"].as_u64().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if let Some(file) = payload["then_write"].as_str() {
                std::fs::write(file, "done")?;
            }
            Ok(json!({ "pid": std::process::id() }))
        }
        Some("large") => Ok(Value::String("x".repeat(7_000_000))),
        Some("environment") => Ok(std::env::vars().map(|(name, value)| (name, Value::String(value))).collect()),
        _ => Ok(json!({
            "pid": std::process::id(),
            "payload": payload,
            "request_id": context.request_id,
            "deadline": context.deadline,
            "arn": context.invoked_function_arn,
            "trace": context.xray_trace_id,
        })),
    }
}
