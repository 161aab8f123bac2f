//! The consumer's Lambda function: reads the configuration, builds the clients once, and runs.

use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use consumer::catalog::{GlueCatalog, Partitions};
use consumer::config::Config;
use consumer::handler::{Attempt, Consumer};
use lambda_runtime::layers::TracingLayer;
use lambda_runtime::tower::util::MapRequestLayer;
use lambda_runtime::{LambdaEvent, LambdaInvocation, Runtime, service_fn};
use pipeline::config::Env;
use pipeline::lake::S3Store;
use pipeline::memory::keep_what_is_freed;
use pipeline::{aws, telemetry};
use serde::de::IgnoredAny;

// One thread: a function of this size has a part of one processor.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keep_what_is_freed();
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

    // The payload goes past the runtime's deserializer, which would scan and copy its six megabytes before they are parsed.
    let payload = Rc::new(Cell::new(Bytes::new()));
    let taken = payload.clone();
    let take_payload = MapRequestLayer::new(move |mut invocation: LambdaInvocation| {
        taken.set(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null")));
        invocation
    });
    let handler = service_fn(async |event: LambdaEvent<IgnoredAny>| {
        let attempt = Attempt::until(event.context.deadline);
        consumer.handle(&payload.take(), &attempt).await
    });
    Runtime::new(handler).layer(take_payload).layer(TracingLayer::new()).run().await
}
