//! The lake's store on S3.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, SdkError};
use aws_sdk_s3::primitives::ByteStream;

use super::{Condition, Head, Listed, Object, Put, PutRequest, Store, StoreError};

/// How often a 409 (another conditional write of the key is under way) is tried again before it is an error.
const CONFLICT_ATTEMPTS: u32 = 6;

#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    bucket: String,
}

impl S3Store {
    pub fn new(client: Client, bucket: impl Into<String>) -> S3Store {
        S3Store { client, bucket: bucket.into() }
    }

    /// Conditional writes stand on it.
    fn etag(&self, operation: &'static str, key: &str, etag: Option<String>) -> Result<String, StoreError> {
        etag.ok_or_else(|| StoreError {
            operation,
            key: format!("s3://{}/{key}", self.bucket),
            reason: "the answer has no ETag".to_owned(),
            advice: ". The store behind S3_ENDPOINT cannot hold a lake: it must support conditional writes",
        })
    }

    fn error<E>(&self, operation: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let advice = match status(&error) {
            Some(403) => {
                ". The role needs s3:GetObject, s3:PutObject and s3:ListBucket there: check its policy and the bucket's"
            }
            Some(404) => ". Check that the bucket exists: S3_BUCKET, S3_REGION, S3_ENDPOINT",
            Some(_) => "",
            None => ". Check the network, S3_ENDPOINT and the credentials",
        };
        let reason = DisplayErrorContext(error).to_string();
        StoreError { operation, key: format!("s3://{}/{key}", self.bucket), reason, advice }
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

impl Store for S3Store {
    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let answer = match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => answer,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => return Ok(None),
            Err(error) => return Err(self.error("GET", key, error)),
        };
        let etag = self.etag("GET", key, answer.e_tag)?;
        let body = answer.body.collect().await.map_err(|e| StoreError {
            operation: "GET",
            key: format!("s3://{}/{key}", self.bucket),
            reason: e.to_string(),
            advice: "",
        })?;
        Ok(Some(Object { body: body.into_bytes(), etag }))
    }

    async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(answer) => Ok(Some(Head {
                etag: answer.e_tag.unwrap_or_default(),
                size: answer.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or_default(),
                metadata: answer.metadata.unwrap_or_default(),
            })),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(self.error("HEAD", key, error)),
        }
    }

    async fn put(&self, request: PutRequest) -> Result<Put, StoreError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let put = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(&request.key)
                .content_type(request.content_type)
                .set_metadata(Some(request.metadata.clone()))
                .body(ByteStream::from(request.body.clone()));
            let put = match &request.condition {
                Condition::Absent => put.if_none_match("*"),
                Condition::Matches(etag) => put.if_match(etag),
            };
            let error = match put.send().await {
                Ok(answer) => return Ok(Put::Stored { etag: self.etag("PUT", &request.key, answer.e_tag)? }),
                Err(error) => error,
            };
            match status(&error) {
                Some(412) => return Ok(Put::Refused),
                // A missing bucket is a 404 too, whatever the condition.
                Some(404) if matches!(request.condition, Condition::Matches(_)) => return Ok(Put::Missing),
                Some(409) if attempt < CONFLICT_ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
                }
                _ => return Err(self.error("PUT", &request.key, error)),
            }
        }
    }

    async fn list(&self, prefix: &str, limit: Option<usize>) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let missing = limit.map(|limit| limit.saturating_sub(found.len()).min(1000));
            let answer = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_max_keys(missing.and_then(|n| i32::try_from(n).ok()))
                .set_continuation_token(token)
                .send()
                .await
                .map_err(|e| self.error("LIST", prefix, e))?;
            for object in answer.contents.unwrap_or_default() {
                if let Some(key) = object.key {
                    let size = object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
                    found.push(Listed { key, size });
                }
            }
            token = answer.next_continuation_token;
            if token.is_none() || limit.is_some_and(|limit| found.len() >= limit) {
                return Ok(found);
            }
        }
    }
}
