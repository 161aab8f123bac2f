//! `freshet page`: the whole pipeline on one page, alive, and a small JSON API behind it. docs/PAGE.md describes both.
//!
//! [`live`] keeps what is shown up to date while somebody looks, [`view`] draws it, [`api`] serves it.

mod api;
mod chart;
mod format;
mod guard;
mod letters;
mod live;
pub mod of_demo;
mod sql;
#[cfg(test)]
mod tests;
mod view;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use localstack::server::Server;
use pipeline::dataset::Dataset;

use self::guard::Hosts;
use self::live::Live;
use self::view::View;
use crate::event_source::until_stopped;
use crate::status::deployed::Deployed;
use crate::status::look::Looker;
use crate::status::source::Source;
use crate::{Error, LakeArgs};

/// Serve one page that shows a deployment: schedule, producer, topic, consumer, lake, SQL
///
/// Asks AWS, or the emulator of AWS_ENDPOINT_URL, the brokers and the bucket, while somebody looks. It can start runs and read the
/// lake, and asks nobody for a password: leave it on the loopback.
#[derive(Debug, Args)]
pub struct PageArgs {
    /// Address to listen on; in a container 0.0.0.0:PORT
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Another name by which it is reached, besides localhost; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// What `terraform output -json` prints. Waited for, and followed when it changes
    #[arg(long, value_name = "OUTPUTS.json", env = "FRESHET_OUTPUTS")]
    outputs: PathBuf,
    /// The file that `freshet event-source --status-file` writes; without it the event source is not asked
    #[arg(long, value_name = "FILE", env = "FRESHET_STATUS_FILE")]
    status_file: Option<PathBuf>,
}

pub async fn run(lake: &LakeArgs, args: &PageArgs, out: &mut dyn Write) -> Result<ExitCode, Error> {
    let deployed = Deployed::new(lake, &args.outputs, args.status_file.as_deref());
    let dataset = lake.dataset()?;
    let server = serve(args.listen, &args.hosts, &dataset, Arc::new(deployed)).await?;
    writeln!(out, "The page is at {}", url(&server))?;
    if !args.outputs.exists() {
        writeln!(out, "Waiting for {}: it is written when the stack is provisioned.", args.outputs.display())?;
    }
    out.flush()?;
    until_stopped().await?;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Serves until the returned value is dropped.
pub async fn serve(
    listen: SocketAddr,
    hosts: &[String],
    dataset: &Dataset,
    source: Arc<dyn Source>,
) -> Result<Server, Error> {
    let view = View::new(sql::saved(dataset), api::version())?;
    let live = Live::new(Looker::new(source), dataset.name.clone(), view);
    let router = api::router(live, Hosts::new(hosts));
    Server::start_at(listen, router).await.map_err(|error| taken(listen, &error))
}

/// Whether nobody else listens there now.
pub fn is_free(listen: SocketAddr) -> Result<(), Error> {
    std::net::TcpListener::bind(listen).map(drop).map_err(|error| taken(listen, &error))
}

fn taken(listen: SocketAddr, error: &std::io::Error) -> Error {
    Error::stopped(format!(
        "cannot listen on {listen}: {error}. Give another address with --listen 127.0.0.1:PORT (make demo: PAGE_PORT=8090)"
    ))
}

/// For a browser on this machine.
pub fn url(server: &Server) -> String {
    server.url().replace("0.0.0.0", "localhost").replace("127.0.0.1", "localhost")
}
