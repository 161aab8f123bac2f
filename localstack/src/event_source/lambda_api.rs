//! A function of AWS Lambda, or of an emulator, behind the Invoke API:
//! <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html>
//!
//! AWS's own event source mapping invokes functions synchronously too, and takes the same answers for failures: an error
//! of the function comes with status 200 and a header, one that kept the function from running with another status.
//! Nothing is retried here: the event source does that, with its back-off.

use std::{sync::Arc, time::Duration};

use aws_config::SdkConfig;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pipeline::aws::signed::{self, Answer, Client, Service, region_of};
use serde_json::Value;

use super::Invoker;
use crate::runtime::{InvokeError, MAX_PAYLOAD, Payload};

const SERVICE: Service = Service { id: "Lambda", name: "lambda" };
/// Set where a function failed, to `Unhandled` or `Handled`.
const FUNCTION_ERROR: &str = "x-amz-function-error";
/// RFC 3986 leaves these as they are, and so does a signature's canonical path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A function may run for 15 minutes; the rest is for the way there and back, and for a cold start.
pub const TIME_LIMIT: Duration = Duration::from_secs(15 * 60 + 60);

/// Why a function cannot be invoked at all.
#[derive(Debug, thiserror::Error)]
pub enum LambdaFunctionError {
    #[error("`{0}` names no Lambda function: give a name, name:qualifier, or the function's ARN")]
    Name(String),
    #[error(transparent)]
    Client(#[from] signed::Error),
}

/// A function, and how it is reached.
#[derive(Debug)]
pub struct LambdaFunction {
    client: Client,
    path: String,
    time_limit: Duration,
}

impl LambdaFunction {
    /// `name` as the API takes it: a name, an ARN or a part of one, each with a qualifier behind it or without. An ARN's
    /// region wins over the configured one. The endpoint is `AWS_ENDPOINT_URL_LAMBDA`, else `AWS_ENDPOINT_URL` (or what
    /// the profile says), else the region's own.
    ///
    /// # Errors
    /// When it is no such name, or no region is known.
    pub fn new(sdk: &SdkConfig, name: &str) -> Result<LambdaFunction, LambdaFunctionError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '$');
        let of_lambda = !name.starts_with("arn:") || (name.contains(":lambda:") && name.contains(":function:"));
        if name.is_empty() || name.len() > 256 || !name.chars().all(legal) || !of_lambda {
            return Err(LambdaFunctionError::Name(name.to_owned()));
        }
        let client = Client::new(sdk, SERVICE, region_of(name))?;
        let path = format!("/2015-03-31/functions/{}/invocations", utf8_percent_encode(name, SEGMENT));
        Ok(LambdaFunction { client, path, time_limit: TIME_LIMIT })
    }

    /// How long an answer is waited for, instead of [`TIME_LIMIT`]. Less than the function's own time-out would leave
    /// attempts alive behind the retry.
    pub fn time_limit(self, time_limit: Duration) -> LambdaFunction {
        LambdaFunction { time_limit, ..self }
    }

    pub fn invoker(self) -> Invoker {
        let function = Arc::new(self);
        Arc::new(move |event| {
            let function = function.clone();
            Box::pin(async move { function.invoke(event).await })
        })
    }

    /// Invokes the function and waits for its response. The invocation goes on when the returned future is dropped and
    /// the request was already sent, as with every caller that hangs up.
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke(&self, event: Bytes) -> Result<Bytes, InvokeError> {
        let answer = self.call("RequestResponse", 200, event).await?;
        if answer.headers.contains_key(FUNCTION_ERROR) {
            return Err(failed(&answer.body));
        }
        if answer.body.len() > MAX_PAYLOAD {
            return Err(InvokeError::PayloadTooLarge { payload: Payload::Response, bytes: answer.body.len() });
        }
        Ok(answer.body)
    }

    /// Has the function invoked, and waits for nothing but that this was accepted (invocation type `Event`).
    ///
    /// # Errors
    /// See [`InvokeError`]; none of them is the function's own.
    pub async fn start(&self, event: Bytes) -> Result<(), InvokeError> {
        self.call("Event", 202, event).await.map(drop)
    }

    async fn call(&self, invocation_type: &str, accepted: u16, event: Bytes) -> Result<Answer, InvokeError> {
        if event.len() > MAX_PAYLOAD {
            return Err(InvokeError::PayloadTooLarge { payload: Payload::Request, bytes: event.len() });
        }
        let headers = [("content-type", "application/json"), ("x-amz-invocation-type", invocation_type)];
        match self.client.post(&self.path, &headers, event, self.time_limit).await {
            Ok(answer) if answer.status == accepted => Ok(answer),
            Ok(answer) => Err(refused(&answer)),
            Err(signed::Error::Late { limit, .. }) => Err(InvokeError::Timeout(limit)),
            Err(error) => Err(InvokeError::Unreachable { message: error.to_string() }),
        }
    }
}

/// The function's own error, or what Lambda says of a function that gave none: a time-out, a process that ended.
fn failed(body: &[u8]) -> InvokeError {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    let (error_type, message) = (text("errorType"), text("errorMessage"));
    // `2026-11-23T05:00:03.000Z <request id> Task timed out after 3.00 seconds`, since 2023 with the type Sandbox.Timedout.
    let seconds = message.split_once("Task timed out after ").and_then(|(_, rest)| rest.strip_suffix(" seconds"));
    if let Some(limit) = seconds.and_then(|s| s.parse().ok()).and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        return InvokeError::Timeout(limit);
    }
    match error_type.is_empty() && message.is_empty() {
        // A handler that fails with a value of its own; the log has the rest.
        true => InvokeError::FunctionError { error_type: "no error type".to_owned(), message: excerpt(body) },
        false => InvokeError::FunctionError { error_type, message },
    }
}

/// The service's error. The type stands in a header, `Name:http://…`, or in the body, `prefix#Name`.
fn refused(answer: &Answer) -> InvokeError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let header = answer.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let error_type = header.or(body["__type"].as_str()).or(body["code"].as_str()).unwrap_or("no error type");
    let error_type = error_type.rsplit('#').next().unwrap_or_default();
    let error_type = error_type.split(':').next().unwrap_or_default().to_owned();
    let message = body["message"].as_str().or(body["Message"].as_str());
    let message = message.map_or_else(|| excerpt(&answer.body), str::to_owned);
    InvokeError::Refused { status: answer.status, error_type, message }
}

/// Enough to recognise a proxy's page by.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().chars().take(200).collect()
}
