//! S3 for one machine: the real REST protocol, signed, over a folder whose files are the objects.
//!
//! `<root>/<bucket>/<key>` is the object, a plain file of that name, so that a person can look at a lake with `ls` and
//! any tool can read it. Metadata (user metadata, content type, ETag) lies beside the buckets, in
//! `<root>/.objects/<bucket>/<key>.json`, and never shows up in a listing; a server started over the same folder later
//! serves the same objects with the same metadata. A file put there by hand is an object too, without metadata.
//!
//! What holds, and the tests below show:
//! - Conditional PUTs (`If-None-Match: *`, `If-Match`) are atomic: of any number of them at the same moment one wins.
//!   (The crate s3s-fs checks and then writes, which lets two through; therefore the store is our own, and only the
//!   protocol is s3s's.)
//! - An object is visible whole, with its metadata, or not at all: also after SIGKILL at any moment, and when a client
//!   goes away in the middle of its PUT. (Not after a power failure: nothing is synced to the disk.)
//! - Every key of the lake survives as it is, with `=`, `+` and `%`.
//!
//! What it is not: it knows buckets, and objects by PUT, GET (ranges, conditions), HEAD, DELETE and ListObjectsV2; no
//! multipart uploads, copies, versions or access policies. Because keys are files, a key cannot have an object as its
//! parent, nor empty, `.` or `..` segments. One server at a time may write to a folder: the locks are its own.

mod folder;
mod listing;
mod service;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use crate::server::Server;
use folder::Folder;
use service::Service;

/// The server listens on the loopback alone, so these keep nobody out: they make clients sign as they would on AWS.
const ACCESS_KEY: &str = "freshet";
const SECRET_KEY: &str = "freshet-on-this-machine";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{folder} cannot hold the embedded S3 ({source}): choose a folder that can be written")]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("`{0}` is no bucket name: use 3 to 63 lower-case letters, digits, `-` and `.`")]
    Bucket(String),
    #[error("the embedded S3 found no free port on 127.0.0.1 ({0}): close some programs and try again")]
    Listen(std::io::Error),
}

/// What a test can do to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answer 500 and do nothing.
    Refuse,
    /// Do it, and answer 500: the client cannot know.
    LoseAnswer,
    /// Do it after a while.
    Delay(Duration),
}

/// Sees each operation (`PutObject`, `GetObject`, `HeadObject`, `DeleteObject`, `ListObjectsV2`, …) with its key (of a
/// listing: the prefix), before it is done: to record it, and to say what goes wrong.
pub type Hook = Arc<dyn Fn(&str, &str) -> Option<Fault> + Send + Sync>;

/// A running S3. Dropped, it stops.
pub struct S3Server {
    server: Server,
    hook: Arc<RwLock<Option<Hook>>>,
}

impl S3Server {
    /// Serves a folder on a free port of the loopback, and creates the bucket unless it is there.
    pub async fn start(root: &Path, bucket: &str) -> Result<Self, Error> {
        if !s3s::path::check_bucket_name(bucket) {
            return Err(Error::Bucket(bucket.to_owned()));
        }
        let folder = Folder::open(root).and_then(|folder| folder.create_bucket(bucket).map(|()| folder));
        let folder = Arc::new(folder.map_err(|source| Error::Folder { folder: root.to_owned(), source })?);
        let hook = Arc::new(RwLock::new(None));
        let mut service = S3ServiceBuilder::new(Service { folder, hook: Arc::clone(&hook) });
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        // S3's own errors are answers already; what reaches this is a request that could not be answered at all.
        let service = HandleError::new(service.build(), |error: s3s::HttpError| async move {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}"))
        });
        let server = Server::start(Router::new().fallback_service(service)).await.map_err(Error::Listen)?;
        Ok(Self { server, hook })
    }

    /// `http://127.0.0.1:PORT`, for `S3_ENDPOINT` or `AWS_ENDPOINT_URL_S3`, with path-style access. Any region does.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// Puts a hook in place of the one before; `None` takes it away.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.hook.write().unwrap_or_else(PoisonError::into_inner) = hook;
    }

    pub async fn stop(self) {
        self.server.stop().await;
    }
}

#[cfg(test)]
mod tests;
