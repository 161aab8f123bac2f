//! The consumer's Lambda function: reads the configuration, builds the clients once, and runs.

use std::process::ExitCode;

use consumer::catalog::{GlueCatalog, Partitions};
use consumer::config::Config;
use consumer::handler::{Attempt, Consumer};
use lambda_runtime::{LambdaEvent, service_fn};
use pipeline::config::Env;
use pipeline::lake::S3Store;
use pipeline::{aws, telemetry};
use serde_json::value::RawValue;

// One thread: a function of this size has a part of one processor.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    telemetry::start();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "The consumer cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), lambda_runtime::Error> {
    let env = Env::of_process();
    env.require_lambda()?;
    let config = Config::read(env)?;
    let sdk = aws::sdk_config().await;
    let store = S3Store::new(aws::s3(&sdk, &config.lake.s3), &config.lake.bucket);
    let consumer = Consumer::new(config.choice, &config.lake, store, config.concurrency, |layout| match config.glue {
        Some((database, table)) => {
            let client = aws_sdk_glue::Client::new(&sdk);
            let bucket = config.lake.bucket.clone();
            Partitions::Glue(Box::new(GlueCatalog::new(client, database, table, bucket, layout)))
        }
        None => Partitions::Off,
    });

    lambda_runtime::run(service_fn(async |event: LambdaEvent<Box<RawValue>>| {
        let attempt = Attempt::until(event.context.deadline);
        consumer.handle(event.payload.get().as_bytes(), &attempt).await
    }))
    .await
}
