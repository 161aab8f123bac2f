//! What the stand-ins and the page share: an HTTP server, on a free port of the loopback unless told otherwise, which goes when its handle goes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long [`Server::stop`] waits for answers that are on their way.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running server. Dropped, it takes no more connections and closes the open ones after the answer they wait for;
/// the task that serves is never joined then, so that dropping does not block.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Sending, or dropping, is the signal to stop. Aborting the task instead would leave the connections open: each is
    /// a task of its own.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1, on the runtime that it is called in.
    pub async fn start(router: Router) -> std::io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), router).await
    }

    /// Listens on this address: in a container, on another than the loopback.
    pub async fn start_at(address: SocketAddr, router: Router) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        // Without it an answer of two packets waits 40 ms for the client's delayed acknowledgement.
        let listener = listener.tap_io(|stream| {
            // A connection that refuses the option is only slower.
            let _ = stream.set_nodelay(true);
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async {
                // Either way, sent or dropped, it is over.
                let _ = stopped.await;
            };
            // `serve` has no error to answer: a connection that fails is its client's.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address, stop: Some(stop), task })
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn stop(mut self) {
        self.stop.take();
        if tokio::time::timeout(PATIENCE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}
