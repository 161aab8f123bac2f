//! The lake's objects as DataFusion reads them: through the same S3 client as everything else, read-only, and nothing
//! but objects of ours. (object_store's own S3 brings a second HTTP client, TLS stack and credential chain.)

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::DisplayErrorContext;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use pipeline::lake::Layout;

use crate::Lake;

#[derive(Debug, Clone)]
pub struct LakeObjects {
    client: Client,
    bucket: String,
    layout: Layout,
    extension: String,
    /// Objects under the data prefix that a listing left out because they are of another format, or not ours.
    pub others: Arc<AtomicU64>,
}

impl LakeObjects {
    pub fn new(lake: &Lake) -> LakeObjects {
        LakeObjects {
            client: lake.client.clone(),
            bucket: lake.target.bucket.clone(),
            layout: lake.target.layout.clone(),
            extension: lake.target.extension.clone(),
            others: Arc::default(),
        }
    }

    /// Whether an object belongs to one of the tables.
    fn is_ours(&self, key: &str) -> bool {
        if key.starts_with(&self.layout.dead_letters_prefix()) {
            return key.ends_with(".json.gz");
        }
        self.layout.parse_data(key).is_some_and(|parsed| parsed.extension == self.extension)
    }

    async fn list_all(self, prefix: String) -> Result<Vec<ObjectMeta>> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).into_paginator().send();
        let mut found = Vec::new();
        let mut others = 0;
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| failed(&prefix, DisplayErrorContext(e)))?;
            for object in page.contents.unwrap_or_default() {
                let Some(key) = object.key.filter(|key| self.is_ours(key)) else {
                    others += 1;
                    continue;
                };
                found.push(ObjectMeta {
                    location: Path::parse(&key)?,
                    last_modified: time(object.last_modified),
                    size: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
                    e_tag: object.e_tag,
                    version: None,
                });
            }
        }
        // A query may list the prefix more than once.
        self.others.fetch_max(others, Ordering::Relaxed);
        Ok(found)
    }

    async fn head(&self, location: &Path) -> Result<GetResult> {
        let sent = self.client.head_object().bucket(&self.bucket).key(location.as_ref()).send().await;
        let answer = sent.map_err(|e| missing_or_failed(location, e))?;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: time(answer.last_modified),
            size: answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
            e_tag: answer.e_tag,
            version: None,
        };
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::empty().boxed()),
            range: 0..meta.size,
            meta,
            attributes: Default::default(),
        })
    }
}

#[async_trait]
impl ObjectStore for LakeObjects {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.head(location).await;
        }
        let range = options.range.as_ref().map(|range| match range {
            GetRange::Bounded(r) => format!("bytes={}-{}", r.start, r.end.saturating_sub(1)),
            GetRange::Offset(start) => format!("bytes={start}-"),
            GetRange::Suffix(length) => format!("bytes=-{length}"),
        });
        let sent = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(location.as_ref())
            .set_range(range)
            .set_if_match(options.if_match)
            .send()
            .await;
        let answer = sent.map_err(|e| missing_or_failed(location, e))?;
        let content_range = answer.content_range.clone();
        let (e_tag, last_modified) = (answer.e_tag.clone(), time(answer.last_modified));
        let body = answer.body.collect().await.map_err(|e| failed(location.as_ref(), e))?.into_bytes();
        let length = body.len() as u64;
        // Without a range, or where the store ignores it, the body is the whole object.
        let (range, size) = match content_range.as_deref().and_then(parse_content_range) {
            Some((start, size)) => (start..start + length, size),
            None => (0..length, length),
        };
        let meta = ObjectMeta { location: location.clone(), last_modified, size, e_tag, version: None };
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // A prefix of this trait is a folder: `names` does not mean `names2/…`.
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let objects = self.clone();
        let listed = async move { objects.list_all(prefix).await.map(|found| stream::iter(found.into_iter().map(Ok))) };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(read_only("list_with_delimiter"))
    }

    async fn put_opts(&self, _location: &Path, _payload: PutPayload, _opts: PutOptions) -> Result<PutResult> {
        Err(read_only("put"))
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("put_multipart"))
    }

    fn delete_stream(&self, _locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(read_only("delete")) }).boxed()
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}

impl fmt::Display for LakeObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)
    }
}

/// `bytes 5-9/100` is (5, 100).
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

/// chrono's type, which only ObjectMeta asks for.
fn time<T: From<SystemTime>>(time: Option<aws_sdk_s3::primitives::DateTime>) -> T {
    let seconds = time.and_then(|t| u64::try_from(t.secs()).ok()).unwrap_or_default();
    (SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).into()
}

fn failed(key: &str, error: impl fmt::Display) -> Error {
    Error::Generic { store: "S3", source: format!("{key}: {error}").into() }
}

fn missing_or_failed<E>(location: &Path, error: aws_sdk_s3::error::SdkError<E>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    let status = error.raw_response().map(|answer| answer.status().as_u16());
    let source = DisplayErrorContext(error).to_string();
    match status {
        Some(404) => Error::NotFound { path: location.to_string(), source: source.into() },
        _ => failed(location.as_ref(), source),
    }
}

fn read_only(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "freshet query, which only reads".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_tells_the_start_and_the_whole_size() {
        assert_eq!(parse_content_range("bytes 5-9/100"), Some((5, 100)));
        assert_eq!(parse_content_range("bytes */100"), None);
    }
}
