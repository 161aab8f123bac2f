//! Signed requests to an AWS service. For the few calls that are a single request, and whose SDK crate would compile for
//! longer than everything around it: `GetParameter` of SSM, `Invoke` of Lambda; and for requests that are passed on as they are.

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
    sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::Mutex;

/// A caller may wait for an answer for a quarter of an hour, but nobody waits that long for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Credentials that name no end are asked for again after this long, as the SDK's clients do.
const CREDENTIALS_WITHOUT_END: Duration = Duration::from_secs(15 * 60);
/// A request that is signed now must still be good when it arrives.
const CREDENTIALS_MARGIN: Duration = Duration::from_secs(60);

/// A service as the SDK knows it.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its service id, as in `AWS_ENDPOINT_URL_<ID>` and a profile's `services`.
    pub id: &'static str,
    /// Its name in a signature's scope, and in the host of a region's endpoint.
    pub name: &'static str,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no region is known: set AWS_REGION")]
    Region,
    #[error("no credentials for {service}: {reason}. Check the role, AWS_PROFILE or AWS_ACCESS_KEY_ID")]
    Credentials { service: &'static str, reason: String },
    #[error("no request can be made for {url}: {reason}. Check the endpoint")]
    Request { url: String, reason: String },
    #[error("{url} cannot be reached, or broke off: {reason}")]
    Transport { url: String, reason: String },
    #[error("{url} did not answer within {} s", limit.as_secs_f64())]
    Late { url: String, limit: Duration },
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Signs with the ordinary credential chain and keeps its connections.
#[derive(Debug)]
pub struct Client {
    sdk: SdkConfig,
    service: Service,
    region: String,
    endpoint: String,
    connector: Connector,
    /// With the time from which on they are asked for again.
    credentials: Mutex<Option<(Credentials, SystemTime)>>,
}

impl Client {
    /// Asks `AWS_ENDPOINT_URL_<ID>`, else `AWS_ENDPOINT_URL` (or what the profile says), else the region's own endpoint.
    /// `region` wins over the configured one.
    ///
    /// # Errors
    /// When no region is known.
    pub fn new(sdk: &SdkConfig, service: Service, region: Option<&str>) -> Result<Client, Error> {
        let region = region.or(sdk.region().map(AsRef::as_ref)).ok_or(Error::Region)?.to_owned();
        let endpoint = endpoint(sdk, service, &region);
        let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
        let connector =
            Connector::builder().connector_settings(settings).tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
        Ok(Client { sdk: sdk.clone(), service, region, endpoint, connector, credentials: Mutex::default() })
    }

    /// One POST, not retried. `path` begins with `/` and is encoded as it shall be sent.
    ///
    /// # Errors
    /// See [`Error`]; an answer of any status is none.
    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, Error> {
        self.send(Method::POST, path, headers, body, limit).await
    }

    /// One request of any method, otherwise as [`Client::post`].
    ///
    /// # Errors
    /// See [`Error`]; an answer of any status is none.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        limit: Duration,
    ) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.endpoint);
        let exchange = async {
            let request = self.signed(method, &url, headers, body).await?;
            let broken = |reason| Error::Transport { url: url.clone(), reason };
            let answer = self.connector.call(request).await.map_err(|e| broken(DisplayErrorContext(e).to_string()))?;
            let answer = answer.try_into_http1x().map_err(|e| broken(e.to_string()))?;
            let (head, body) = answer.into_parts();
            let body = ByteStream::new(body).collect().await.map_err(|e| broken(DisplayErrorContext(e).to_string()))?;
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.into_bytes() })
        };
        let answer = tokio::time::timeout(limit, exchange).await;
        answer.unwrap_or_else(|_| Err(Error::Late { url: url.clone(), limit }))
    }

    async fn signed(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<HttpRequest, Error> {
        let wrong = |e: &dyn std::fmt::Display| Error::Request { url: url.to_owned(), reason: e.to_string() };
        let identity = self.credentials().await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service.name)
            .time(SystemTime::now())
            .settings(settings(self.service))
            .build()
            .map_err(|e| wrong(&e))?;
        let signable = SignableRequest::new(method.as_str(), url, headers.iter().copied(), SignableBody::Bytes(&body))
            .map_err(|e| wrong(&e))?;
        let (instructions, _) = sign(signable, &params.into()).map_err(|e| wrong(&e))?.into_parts();

        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(SdkBody::from(body)).map_err(|e| wrong(&e))?;
        instructions.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|e| wrong(&e))
    }

    /// Kept until shortly before their end: the chain may ask STS or an SSO portal each time.
    async fn credentials(&self) -> Result<Credentials, Error> {
        let mut kept = self.credentials.lock().await;
        let now = SystemTime::now();
        if let Some((credentials, until)) = &*kept
            && now < *until
        {
            return Ok(credentials.clone());
        }
        let missing = |reason| Error::Credentials { service: self.service.id, reason };
        let provider = self.sdk.credentials_provider().ok_or_else(|| missing("none are configured".to_owned()))?;
        let provided = provider.provide_credentials().await;
        let credentials = provided.map_err(|e| missing(DisplayErrorContext(e).to_string()))?;
        let until = credentials.expiry().map_or(now + CREDENTIALS_WITHOUT_END, |end| end - CREDENTIALS_MARGIN);
        *kept = Some((credentials.clone(), until));
        Ok(credentials)
    }
}

/// S3 takes keys as they are, and wants the body's hash in a header.
fn settings(service: Service) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if service.name == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    settings
}

/// The region in an ARN. What it names lives there, whatever the caller's own region is.
pub fn region_of(arn: &str) -> Option<&str> {
    arn.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)).filter(|region| !region.is_empty())
}

/// Without a slash at the end.
fn endpoint(sdk: &SdkConfig, service: Service, region: &str) -> String {
    let key = ServiceConfigKey::builder().service_id(service.id).env("AWS_ENDPOINT_URL").profile("endpoint_url");
    let of_service = key.build().ok().and_then(|key| sdk.service_config()?.load_config(key));
    let configured = of_service.or_else(|| sdk.endpoint_url().map(str::to_owned));
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = configured.unwrap_or_else(|| format!("https://{}.{region}.{domain}", service.name));
    url.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use aws_config::Region;
    use aws_credential_types::provider::{SharedCredentialsProvider, future};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SSM: Service = Service { id: "SSM", name: "ssm" };

    #[derive(Debug, Clone)]
    struct Provider {
        expires_in: Option<Duration>,
        asked: Arc<AtomicU32>,
    }

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let end = self.expires_in.map(|d| SystemTime::now() + d);
            future::ProvideCredentials::ready(Ok(Credentials::new("AKID", "secret", None, end, "test")))
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_they_end() {
        for (expires_in, asked) in [(Some(3600), 1), (Some(30), 3), (None, 1)] {
            let expires_in = expires_in.map(Duration::from_secs);
            let provider = Provider { expires_in, asked: Arc::default() };
            let shared = SharedCredentialsProvider::new(provider.clone());
            let sdk = SdkConfig::builder().region(Region::new("eu-west-1")).credentials_provider(shared).build();
            let client = Client::new(&sdk, SSM, None).unwrap();
            for _ in 0..3 {
                client.credentials().await.unwrap();
            }
            assert_eq!(provider.asked.load(Ordering::Relaxed), asked, "{expires_in:?}");
        }
    }

    #[tokio::test]
    async fn without_a_region_or_credentials_the_error_says_what_to_set() {
        let error = Client::new(&SdkConfig::builder().build(), SSM, None).unwrap_err();
        assert!(error.to_string().contains("AWS_REGION"), "{error}");
        let client = Client::new(&SdkConfig::builder().build(), SSM, Some("eu-west-1")).unwrap();
        let error = client.post("/", &[], Bytes::new(), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("AWS_PROFILE"), "{error}");
    }

    #[test]
    fn without_an_endpoint_the_regions_own_is_asked() {
        let sdk = SdkConfig::builder().build();
        assert_eq!(endpoint(&sdk, SSM, "eu-west-1"), "https://ssm.eu-west-1.amazonaws.com");
        assert_eq!(endpoint(&sdk, SSM, "cn-north-1"), "https://ssm.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn an_arn_names_its_region_and_a_name_does_not() {
        assert_eq!(region_of("arn:aws:ssm:eu-west-1:1:parameter/k"), Some("eu-west-1"));
        assert_eq!(region_of("arn:aws:s3:::bucket"), None);
        assert_eq!(region_of("/k"), None);
    }
}
