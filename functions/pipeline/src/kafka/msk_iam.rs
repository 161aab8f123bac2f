//! Sign-in to Amazon MSK with IAM: SASL/OAUTHBEARER with a presigned URL as the token, after AWS's own signer libraries
//! (<https://github.com/aws/aws-msk-iam-sasl-signer-python>).

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use rdkafka::client::OAuthToken;

/// MSK takes no token that lives longer.
const LIFETIME: Duration = Duration::from_secs(900);
/// How long the credential chain may take: metadata services and STS answer in a second or two, or not at all.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(15);
/// Brokers log it; it names who signed in.
const USER_AGENT: &str = "freshet";

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("no AWS credentials for MSK's IAM sign-in: {0}. Check the role or AWS_PROFILE")]
    Credentials(String),
    #[error("cannot sign MSK's IAM token: {0}. Check AWS_REGION")]
    Signing(String),
    #[error("cannot start the thread that signs in to MSK: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the thread that signs in to MSK panicked: please report it")]
    Panic,
}

/// Makes tokens for one region's clusters, with the credentials of the ordinary chain.
#[derive(Debug, Clone)]
pub struct MskIam {
    region: String,
    /// Given by tests; else the ordinary chain.
    provider: Option<SharedCredentialsProvider>,
}

impl MskIam {
    pub fn new(region: impl Into<String>) -> MskIam {
        MskIam { region: region.into(), provider: None }
    }

    #[cfg(test)]
    pub fn with_provider(region: &str, provider: impl ProvideCredentials + 'static) -> MskIam {
        MskIam { region: region.to_owned(), provider: Some(SharedCredentialsProvider::new(provider)) }
    }

    /// A new token. Blocks, also for requests to a metadata service or STS.
    ///
    /// librdkafka calls this from any thread that polls: rdkafka's own, or one that runs an async runtime, where blocking on
    /// a future is forbidden and a connection kept by that runtime would never answer. So each call has a thread and a
    /// runtime of its own, which leave nothing behind. It happens once in 12 minutes.
    pub fn token(&self) -> Result<OAuthToken, TokenError> {
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("msk-iam".to_owned()).spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let credentials = runtime.block_on(self.credentials())?;
                sign_token(credentials, &self.region, SystemTime::now())
            })?;
            worker.join().map_err(|_| TokenError::Panic)?
        })
    }

    async fn credentials(&self) -> Result<Credentials, TokenError> {
        let provide = async {
            let provider = match &self.provider {
                Some(provider) => Some(provider.clone()),
                None => crate::aws::sdk_config().await.credentials_provider(),
            };
            let provider = provider.ok_or_else(|| TokenError::Credentials("none are configured".to_owned()))?;
            let provided = provider.provide_credentials().await;
            provided.map_err(|e| TokenError::Credentials(DisplayErrorContext(e).to_string()))
        };
        let late = || TokenError::Credentials(format!("no answer within {} s", CREDENTIALS_TIMEOUT.as_secs()));
        tokio::time::timeout(CREDENTIALS_TIMEOUT, provide).await.map_err(|_| late())?
    }
}

fn sign_token(credentials: Credentials, region: &str, now: SystemTime) -> Result<OAuthToken, TokenError> {
    let wrong = |e: &dyn std::fmt::Display| TokenError::Signing(e.to_string());
    let expiry = credentials.expiry();
    let url = presigned(credentials, region, now).map_err(|e| wrong(&e))?;
    // After signing: the signature must not cover it.
    let url = format!("{url}&User-Agent={USER_AGENT}");
    // What the URL says with X-Amz-Date and X-Amz-Expires, in whole seconds, unless the credentials end before that.
    let issued = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|e| wrong(&e))?.as_secs();
    let end = Duration::from_secs(issued) + LIFETIME;
    let end = expiry.and_then(|e| e.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(end, |e| e.min(end));
    Ok(OAuthToken {
        token: base64_simd::URL_SAFE_NO_PAD.encode_to_string(url),
        principal_name: USER_AGENT.to_owned(),
        lifetime_ms: i64::try_from(end.as_millis()).map_err(|e| wrong(&e))?,
    })
}

fn presigned(
    credentials: Credentials,
    region: &str,
    now: SystemTime,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let url = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(now)
        .settings(settings)
        .build()?;
    let signable = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(b""))?;
    let (instructions, _) = sign(signable, &params.into())?.into_parts();
    let mut request = http::Request::get(&url).body(())?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    // Computed by other means, botocore 1.44.5:
    //
    //   import datetime, botocore.auth as auth
    //   from botocore.awsrequest import AWSRequest
    //   from botocore.credentials import Credentials
    //   auth.get_current_datetime = lambda *a, **k: datetime.datetime(2026, 11, 23, 5, 6, 7)
    //   for token in (None, "a+session/token=="):
    //       credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    //       request = AWSRequest("GET", "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    //       auth.SigV4QueryAuth(credentials, "kafka-cluster", "eu-west-1", expires=900).add_auth(request)
    //       print(request.url)
    const NOW: Duration = Duration::from_secs(1_795_410_367);
    const PLAIN: &str = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Feu-west-1%2Fkafka-cluster%2Faws4_request&X-Amz-Date=20261123T050607Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=f16eb07ab67941bae3a72d5cdd6036630b076aff44e498a3dc8aba9c6b16a5ad";
    const WITH_SESSION: &str = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20261123%2Feu-west-1%2Fkafka-cluster%2Faws4_request&X-Amz-Date=20261123T050607Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Security-Token=a%2Bsession%2Ftoken%3D%3D&X-Amz-Signature=ef39582e53c8d45ca3f56f6066c927b3bb85279d30c48db4a8c0c65de4a567ab";

    fn credentials(session: Option<&str>, expiry: Option<SystemTime>) -> Credentials {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        Credentials::new("AKIDEXAMPLE", secret, session.map(str::to_owned), expiry, "test")
    }

    /// The order of a query's parameters means nothing: brokers sort them to check the signature.
    fn parts(url: &str) -> (&str, BTreeMap<&str, &str>) {
        let (base, query) = url.split_once('?').unwrap();
        (base, query.split('&').map(|pair| pair.split_once('=').unwrap()).collect())
    }

    #[test]
    fn a_token_is_what_botocore_signs_with_the_user_agent_behind_it() {
        for (session, expected) in [(None, PLAIN), (Some("a+session/token=="), WITH_SESSION)] {
            let token = sign_token(credentials(session, None), "eu-west-1", SystemTime::UNIX_EPOCH + NOW).unwrap();
            assert!(!token.token.contains(['=', '+', '/']), "not base64url without padding: {}", token.token);
            let url = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(token.token).unwrap();
            let url = String::from_utf8(url).unwrap();
            let signed = url.strip_suffix("&User-Agent=freshet").unwrap();
            assert_eq!(parts(signed), parts(expected));
        }
    }

    #[test]
    fn a_token_lives_900_seconds_or_as_long_as_its_credentials() {
        let now = SystemTime::UNIX_EPOCH + NOW + Duration::from_millis(999);
        let token = sign_token(credentials(None, None), "eu-west-1", now).unwrap();
        assert_eq!(token.lifetime_ms, 1_795_411_267_000);
        let soon = credentials(None, Some(now + Duration::from_secs(60)));
        assert_eq!(sign_token(soon, "eu-west-1", now).unwrap().lifetime_ms, 1_795_410_427_999);
    }

    #[test]
    fn a_token_is_made_without_a_runtime() {
        assert!(MskIam::with_provider("eu-west-1", credentials(None, None)).token().is_ok());
    }

    #[tokio::test]
    async fn a_token_is_made_on_the_thread_of_a_current_thread_runtime() {
        assert!(MskIam::with_provider("eu-west-1", credentials(None, None)).token().is_ok());
    }
}
