//! S3's operations, translated to the folder's.

use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::folder::{self, Attributes, Condition, Entry, Folder};
use super::listing::{self, Item, Query};
use super::{Fault, Hook};

/// S3's own limit for a page of a listing.
const MOST_KEYS: usize = 1000;

#[derive(Clone)]
pub(super) struct Service {
    pub folder: Arc<Folder>,
    pub hook: Arc<RwLock<Option<Hook>>>,
}

impl Service {
    /// Does an operation on the folder where blocking is allowed. It runs to its end even when the client is gone, so
    /// that a connection cut in two never leaves half of an operation.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Folder) -> Result<T, S3Error> + Send + 'static,
    ) -> S3Result<T> {
        let hook = self.hook.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fault = hook.and_then(|hook| hook(operation, key));
        match fault {
            Some(Fault::Refuse) => return Err(s3_error!(InternalError, "a test refused this request: retry it")),
            Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::LoseAnswer) | None => {}
        }
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || work(&folder))
            .await
            .map_err(|error| s3_error!(error, InternalError, "the operation panicked: see stderr"))?;
        match fault {
            Some(Fault::LoseAnswer) => Err(s3_error!(InternalError, "a test lost this answer: retry the request")),
            _ => done,
        }
    }
}

#[async_trait::async_trait]
impl S3 for Service {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = req.input.bucket;
        self.run("CreateBucket", "", move |folder| {
            if folder.has_bucket(&bucket) {
                return Err(s3_error!(BucketAlreadyOwnedByYou));
            }
            Ok(folder.create_bucket(&bucket).map_err(folder::Error::from)?)
        })
        .await?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let there = self.run("HeadBucket", "", move |folder| Ok(folder.has_bucket(&req.input.bucket))).await?;
        if there { Ok(S3Response::new(HeadBucketOutput::default())) } else { Err(s3_error!(NoSuchBucket)) }
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let S3Request { mut input, trailing_headers, .. } = req;
        let mut checksum = checksums_wanted(&input)?;
        let content = collect(input.body.take(), input.content_length).await?;
        checksum.update(&content);
        let checksum = checksum.finalize();
        let trailers = trailing_headers.and_then(|trailers| trailers.take());
        let stated = |header: Option<String>, name: &str| {
            header.or_else(|| Some(trailers.as_ref()?.get(name)?.to_str().ok()?.to_owned()))
        };
        for (name, stated, computed) in [
            ("crc32", stated(input.checksum_crc32, "x-amz-checksum-crc32"), &checksum.checksum_crc32),
            ("crc32c", stated(input.checksum_crc32c, "x-amz-checksum-crc32c"), &checksum.checksum_crc32c),
            ("sha1", stated(input.checksum_sha1, "x-amz-checksum-sha1"), &checksum.checksum_sha1),
            ("sha256", stated(input.checksum_sha256, "x-amz-checksum-sha256"), &checksum.checksum_sha256),
            ("crc64nvme", stated(input.checksum_crc64nvme, "x-amz-checksum-crc64nvme"), &checksum.checksum_crc64nvme),
        ] {
            if stated.is_some() && stated != *computed {
                return Err(s3_error!(BadDigest, "the {name} checksum does not match the content: send it again"));
            }
        }
        let condition = condition(input.if_none_match, input.if_match)?;
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            user: input.metadata.unwrap_or_default().into_iter().collect(),
        };
        let (bucket, key) = (input.bucket, input.key.clone());
        let etag =
            self.run("PutObject", &input.key, move |folder| {
                Ok(folder.put(&bucket, &key, &condition, &content, attributes)?)
            })
            .await?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        let (bucket, key) = (input.bucket, input.key.clone());
        let entry = self.run("HeadObject", &input.key, move |folder| Ok(folder.head(&bucket, &key)?)).await?;
        check(&entry, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(entry.size)?),
            content_type: entry.attributes.content_type,
            content_encoding: entry.attributes.content_encoding,
            e_tag: Some(ETag::Strong(entry.etag)),
            last_modified: Some(entry.modified.into()),
            metadata: Some(entry.attributes.user.into_iter().collect()),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let (bucket, key, wanted) = (input.bucket, input.key.clone(), input.range);
        let (entry, range, content) = self
            .run("GetObject", &input.key, move |folder| {
                let (entry, mut file) = folder.open_object(&bucket, &key)?;
                check(&entry, input.if_match.as_ref(), input.if_none_match.as_ref())?;
                let range = match wanted {
                    Some(range) => range.check(entry.size)?,
                    None => 0..entry.size,
                };
                let content = folder::read(&mut file, range.clone()).map_err(folder::Error::from)?;
                Ok((entry, range, content))
            })
            .await?;
        let content_range = wanted.map(|_| format!("bytes {}-{}/{}", range.start, range.end - 1, entry.size));
        Ok(S3Response::new(GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(length(range.end - range.start)?),
            content_range,
            content_type: entry.attributes.content_type,
            content_encoding: entry.attributes.content_encoding,
            e_tag: Some(ETag::Strong(entry.etag)),
            last_modified: Some(entry.modified.into()),
            metadata: Some(entry.attributes.user.into_iter().collect()),
            body: Some(s3s::Body::from(content).into()),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let (bucket, key) = (req.input.bucket, req.input.key.clone());
        self.run("DeleteObject", &req.input.key, move |folder| Ok(folder.delete(&bucket, &key)?)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let input = req.input;
        let mut output = DeleteObjectsOutput::default();
        for object in input.delete.objects {
            let (bucket, key) = (input.bucket.clone(), object.key.clone());
            match self.run("DeleteObject", &object.key, move |folder| Ok(folder.delete(&bucket, &key)?)).await {
                Ok(()) => output
                    .deleted
                    .get_or_insert_default()
                    .push(DeletedObject { key: Some(object.key), ..Default::default() }),
                Err(error) => output.errors.get_or_insert_default().push(s3s::dto::Error {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(object.key),
                    message: error.message().map(ToOwned::to_owned),
                    ..Default::default()
                }),
            }
        }
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let max_items = match input.max_keys {
            None => MOST_KEYS,
            Some(max_keys) => usize::try_from(max_keys)
                .map_err(|_| s3_error!(InvalidArgument, "max-keys is negative: ask for 0 to {MOST_KEYS}"))?
                .min(MOST_KEYS),
        };
        let (bucket, prefix) = (input.bucket.clone(), input.prefix.clone().unwrap_or_default());
        let (delimiter, start_after, token) =
            (input.delimiter.clone(), input.start_after.clone(), input.continuation_token.clone());
        let hook_key = prefix.clone();
        let (items, next) = self
            .run("ListObjectsV2", &hook_key, move |folder| {
                if !folder.has_bucket(&bucket) {
                    return Err(s3_error!(NoSuchBucket));
                }
                let query = Query {
                    prefix: &prefix,
                    delimiter: delimiter.as_deref(),
                    start_after: start_after.as_deref(),
                    token: token.as_deref(),
                    max_items,
                };
                let page = listing::page(&folder.bucket_path(&bucket), &query).map_err(folder::Error::from)?;
                let mut items = Vec::with_capacity(page.items.len());
                for item in page.items {
                    match &item {
                        Item::CommonPrefix(_) => items.push((item, None)),
                        Item::Key(key) => match folder.head(&bucket, key) {
                            Ok(entry) => items.push((item, Some(entry))),
                            // Deleted since the folder was read.
                            Err(folder::Error::NoSuchKey) => {}
                            Err(error) => return Err(error.into()),
                        },
                    }
                }
                Ok((items, page.next))
            })
            .await?;

        let encode = |text: String| match &input.encoding_type {
            Some(encoding) if encoding.as_str() == EncodingType::URL => url_encode(&text),
            _ => text,
        };
        let key_count = i32::try_from(items.len()).ok();
        let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
        for (item, entry) in items {
            match (item, entry) {
                (Item::Key(key), Some(entry)) => contents.push(Object {
                    key: Some(encode(key)),
                    size: Some(length(entry.size)?),
                    e_tag: Some(ETag::Strong(entry.etag)),
                    last_modified: Some(entry.modified.into()),
                    storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                    ..Default::default()
                }),
                (Item::Key(_), None) => {}
                (Item::CommonPrefix(prefix), _) => common_prefixes.push(CommonPrefix { prefix: Some(encode(prefix)) }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix.map(encode),
            delimiter: input.delimiter.map(encode),
            start_after: input.start_after.map(encode),
            encoding_type: input.encoding_type.clone(),
            continuation_token: input.continuation_token,
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            key_count,
            max_keys: i32::try_from(max_items).ok(),
            contents: Some(contents),
            common_prefixes: Some(common_prefixes),
            ..Default::default()
        }))
    }
}

impl From<folder::Error> for S3Error {
    fn from(error: folder::Error) -> Self {
        let message = error.to_string();
        match error {
            folder::Error::NoSuchBucket => s3_error!(NoSuchBucket, "{message}"),
            folder::Error::NoSuchKey => s3_error!(NoSuchKey, "{message}"),
            folder::Error::Precondition => s3_error!(PreconditionFailed, "{message}"),
            folder::Error::Unstorable(_) => s3_error!(InvalidArgument, "{message}"),
            folder::Error::Io(_) => s3_error!(InternalError, "{message}"),
        }
    }
}

fn length(size: u64) -> S3Result<i64> {
    i64::try_from(size).map_err(|error| s3_error!(error, InternalError))
}

/// The whole body: an object becomes visible when all of it is there, so all of it has to be there first.
async fn collect(body: Option<StreamingBlob>, length: Option<i64>) -> S3Result<Vec<u8>> {
    let mut content = Vec::with_capacity(length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0));
    let Some(mut body) = body else { return Ok(content) };
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            s3_error!(IncompleteBody, "the body ended early or is not what was signed ({error}): send it again")
        })?;
        content.extend_from_slice(&chunk);
    }
    match length {
        Some(length) if usize::try_from(length) != Ok(content.len()) => {
            Err(s3_error!(IncompleteBody, "the body is not as long as its header says: send it again"))
        }
        _ => Ok(content),
    }
}

/// The checksums that the request states, in its headers or in the trailers that come behind its body.
fn checksums_wanted(input: &PutObjectInput) -> S3Result<ChecksumHasher> {
    let mut hasher = ChecksumHasher::default();
    let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
    let wanted = |stated: &Option<String>, name| stated.is_some() || algorithm == Some(name);
    hasher.crc32 = wanted(&input.checksum_crc32, ChecksumAlgorithm::CRC32).then(Default::default);
    hasher.crc32c = wanted(&input.checksum_crc32c, ChecksumAlgorithm::CRC32C).then(Default::default);
    hasher.sha1 = wanted(&input.checksum_sha1, ChecksumAlgorithm::SHA1).then(Default::default);
    hasher.sha256 = wanted(&input.checksum_sha256, ChecksumAlgorithm::SHA256).then(Default::default);
    hasher.crc64nvme = wanted(&input.checksum_crc64nvme, ChecksumAlgorithm::CRC64NVME).then(Default::default);
    Ok(hasher)
}

fn condition(none_match: Option<IfNoneMatch>, matches: Option<IfMatch>) -> S3Result<Condition> {
    match (none_match, matches) {
        (None, None) => Ok(Condition::None),
        (Some(ETagCondition::Any), None) => Ok(Condition::Absent),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Present),
        (None, Some(ETagCondition::ETag(etag))) => Ok(Condition::Etag(etag.into_value())),
        // As the real one answers.
        (Some(_), _) => Err(s3_error!(NotImplemented, "a PUT knows If-None-Match: * or If-Match: use one of them")),
    }
}

/// The conditions of a read.
fn check(entry: &Entry, matches: Option<&IfMatch>, none_match: Option<&IfNoneMatch>) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == entry.etag,
    };
    if matches.is_some_and(|condition| !is(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

/// As S3 encodes keys in a listing that asks for it, because XML cannot hold every character of a key.
fn url_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.*/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
