//! `freshet api` and `freshet s3-gateway`: servers of the stack on one machine, each for as long as its command runs.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use localstack::api::{Api, ApiOptions};
use localstack::s3_gateway::S3Gateway;

use crate::event_source::until_stopped;
use crate::{Error, LakeArgs};

/// Stand in for the Random User API, with recorded and made-up people that are all different
#[derive(Debug, Args)]
pub struct ApiArgs {
    /// Address to listen on; in a container 0.0.0.0:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Another number makes other people
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub async fn api(args: &ApiArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let options = ApiOptions { distinct: true, seed: args.seed, ..ApiOptions::default() };
    let api = Api::start_at(args.listen, options).await.map_err(|e| Error::stopped(e.to_string()))?;
    serve(&format!("People at {}?results=10", api.url()), out).await?;
    api.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Pass requests on to one real bucket, signed by the ordinary credential chain
///
/// For functions in an emulator, which have the emulator's credentials: the real ones stay in this process. Whoever reaches it can
/// read and write the bucket. `--bucket` and `--region` say which; `AWS_PROFILE` and its likes say who.
#[derive(Debug, Args)]
pub struct S3GatewayArgs {
    /// Address to listen on; in a container 0.0.0.0:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4570")]
    listen: SocketAddr,
}

pub async fn s3_gateway(lake: &LakeArgs, args: &S3GatewayArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let bucket = lake.bucket.clone().or_else(|| variable("S3_BUCKET"));
    let bucket = bucket.ok_or_else(|| Error::stopped("no bucket is named: set --bucket or S3_BUCKET"))?;
    let region = lake.region.clone().or_else(|| variable("S3_REGION"));
    let sdk = pipeline::aws::sdk_config().await;
    let gateway = S3Gateway::start(args.listen, &sdk, region.as_deref(), &bucket).await;
    let gateway = gateway.map_err(|e| Error::stopped(e.to_string()))?;
    serve(&format!("s3://{bucket} at {}/{bucket}", gateway.endpoint()), out).await?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(what: &str, out: &mut dyn Write) -> Result<(), Error> {
    writeln!(out, "{what}")?;
    out.flush()?;
    until_stopped().await
}
