//! The producer's Lambda function: reads the configuration, builds the clients once, and runs.
//!
//! No handler for SIGTERM: every delivery is awaited before an invocation is answered, so between two of them there is
//! nothing to flush, and Lambda sends the signal only then.

use std::process::ExitCode;

use lambda_runtime::{LambdaEvent, service_fn};
use pipeline::config::Env;
use pipeline::lake::S3Store;
use pipeline::{aws, telemetry};
use producer::config::Config;
use producer::handler::{Invocation, Producer};
use serde_json::Value;

// One thread: the work between two waits is small, and rdkafka has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::start();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "The producer cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), lambda_runtime::Error> {
    let env = Env::of_process();
    env.require_lambda()?;
    let config = Config::read(env)?;
    let sdk = aws::sdk_config().await;
    let store = S3Store::new(aws::s3(&sdk, &config.lake.s3), config.lake.bucket.clone());
    let producer = Producer::new(config, sdk, store)?;
    lambda_runtime::run(service_fn(async |event: LambdaEvent<Value>| {
        let invocation = Invocation { request_id: event.context.request_id, deadline_ms: event.context.deadline };
        // Boxed: the compiler gives up on the layout of the two nested futures.
        Box::pin(producer.handle(event.payload, &invocation)).await
    }))
    .await
}
