//! `GetParameter` of SSM's Parameter Store. The SDK's crate for SSM compiles for 40 CPU-seconds; this is the one call of
//! it that we need: <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>

use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_types::service_config::ServiceConfigKey;

const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const TARGET: &str = "AmazonSSM.GetParameter";

/// The decrypted value of a parameter, by its name or ARN. The error is a reason in words and never holds the value.
pub async fn get(sdk: &SdkConfig, name: &str) -> Result<String, String> {
    // arn:aws:ssm:<region>:<account>:parameter/<name>: a parameter lives in one region, whatever the function's is.
    let of_arn = name.strip_prefix("arn:").and_then(|arn| arn.split(':').nth(2)).filter(|region| !region.is_empty());
    let region = of_arn.or(sdk.region().map(AsRef::as_ref)).ok_or("no region is known: set AWS_REGION")?;
    let endpoint = endpoint(sdk, region);
    let connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).build();
    let body = serde_json::json!({"Name": name, "WithDecryption": true}).to_string();

    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
        let request = signed(sdk, region, &endpoint, &body).await?;
        let (status, answer) = match tokio::time::timeout(ATTEMPT_TIMEOUT, exchange(&connector, request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failure)) => {
                reason = failure;
                continue;
            }
            Err(_) => {
                reason = format!("{endpoint} did not answer within {} s", ATTEMPT_TIMEOUT.as_secs());
                continue;
            }
        };
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status == 200 {
            return answer["Parameter"]["Value"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| "it has no value".to_owned());
        }
        let kind = answer["__type"].as_str().unwrap_or("no error type");
        reason = format!("SSM answers {status} ({kind})");
        if status < 500 && status != 429 && !kind.contains("Throttling") {
            break;
        }
    }
    Err(reason)
}

/// `AWS_ENDPOINT_URL_SSM`, else `AWS_ENDPOINT_URL` (or what the profile says), else the region's own.
fn endpoint(sdk: &SdkConfig, region: &str) -> String {
    let key = ServiceConfigKey::builder().service_id("SSM").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let of_service = key.ok().and_then(|key| sdk.service_config()?.load_config(key));
    let configured = of_service.or_else(|| sdk.endpoint_url().map(str::to_owned));
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = configured.unwrap_or_else(|| format!("https://ssm.{region}.{domain}"));
    format!("{}/", url.trim_end_matches('/'))
}

async fn signed(sdk: &SdkConfig, region: &str, endpoint: &str, body: &str) -> Result<HttpRequest, String> {
    let provider = sdk.credentials_provider().ok_or("no credentials are configured")?;
    let credentials = provider.provide_credentials().await.map_err(|e| DisplayErrorContext(e).to_string())?;
    let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", TARGET)];
    let identity = credentials.into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("ssm")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|e| e.to_string())?;
    let signable = SignableRequest::new("POST", endpoint, headers.into_iter(), SignableBody::Bytes(body.as_bytes()))
        .map_err(|e| e.to_string())?;
    let (instructions, _) = sign(signable, &params.into()).map_err(|e| e.to_string())?.into_parts();

    let mut request = http::Request::post(endpoint);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let mut request = request.body(SdkBody::from(body)).map_err(|e| format!("{endpoint} is no URL: {e}"))?;
    instructions.apply_to_request_http1x(&mut request);
    HttpRequest::try_from(request).map_err(|e| e.to_string())
}

async fn exchange(connector: &Connector, request: HttpRequest) -> Result<(u16, Vec<u8>), String> {
    let answer = connector.call(request).await.map_err(|e| DisplayErrorContext(e).to_string())?;
    let status = answer.status().as_u16();
    let body = ByteStream::new(answer.into_body()).collect().await.map_err(|e| DisplayErrorContext(e).to_string())?;
    Ok((status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use aws_config::Region;
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    /// Answers each connection once, in order; yields the requests.
    fn server(answers: Vec<(&'static str, &'static str)>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = std::thread::spawn(move || answers.into_iter().map(|(s, b)| serve(&listener, s, b)).collect());
        (url, requests)
    }

    fn serve(listener: &TcpListener, status: &str, body: &str) -> String {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"}") {
            let read = socket.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
        }
        let length = body.len();
        write!(socket, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").unwrap();
        String::from_utf8(request).unwrap()
    }

    fn sdk() -> aws_types::sdk_config::Builder {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session".into()), None, "test");
        SdkConfig::builder()
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
    }

    #[derive(Debug)]
    struct OfService(String);

    impl LoadServiceConfig for OfService {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            (key.service_id() == "SSM" && key.env() == "AWS_ENDPOINT_URL").then(|| self.0.clone())
        }
    }

    #[tokio::test]
    async fn a_parameter_is_asked_for_decrypted_and_signed_for_ssm() {
        let (url, requests) = server(vec![("200 OK", r#"{"Parameter":{"Name":"/k","Value":"hush"}}"#)]);
        let sdk = sdk().endpoint_url(url).build();
        assert_eq!(get(&sdk, "/k").await.unwrap(), "hush");

        let request = requests.join().unwrap().remove(0);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        assert!(head.starts_with("post / http/1.1\r\n"), "{head}");
        assert!(head.contains("x-amz-target: amazonssm.getparameter\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-amz-json-1.1\r\n"), "{head}");
        assert!(head.contains("x-amz-security-token: session"), "{head}");
        let authorization = head.lines().find(|line| line.starts_with("authorization: ")).unwrap();
        let date = head.lines().find_map(|line| line.strip_prefix("x-amz-date: ")).unwrap();
        let scope = format!("credential=akidexample/{}/eu-west-1/ssm/aws4_request", &date[..8]);
        assert!(authorization.starts_with("authorization: aws4-hmac-sha256 ") && authorization.contains(&scope));
        let signed = "signedheaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target";
        assert!(authorization.contains(signed), "{authorization}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, serde_json::json!({"Name": "/k", "WithDecryption": true}));
    }

    #[tokio::test]
    async fn the_endpoint_of_ssm_alone_wins_and_a_5xx_is_tried_again() {
        let (url, requests) =
            server(vec![("503 Service Unavailable", "{}"), ("200 OK", r#"{"Parameter":{"Value":"hush"}}"#)]);
        let sdk = sdk().endpoint_url("http://127.0.0.1:1").service_config(OfService(url)).build();
        assert_eq!(get(&sdk, "/k").await.unwrap(), "hush");
        assert_eq!(requests.join().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_names_its_type() {
        let (url, requests) = server(vec![("400 Bad Request", r#"{"__type":"ParameterNotFound"}"#)]);
        let sdk = sdk().endpoint_url(url).build();
        assert_eq!(get(&sdk, "/k").await.unwrap_err(), "SSM answers 400 (ParameterNotFound)");
        assert_eq!(requests.join().unwrap().len(), 1);
    }

    #[test]
    fn without_an_endpoint_the_regions_own_is_asked() {
        assert_eq!(endpoint(&sdk().build(), "eu-west-1"), "https://ssm.eu-west-1.amazonaws.com/");
        assert_eq!(endpoint(&sdk().build(), "cn-north-1"), "https://ssm.cn-north-1.amazonaws.com.cn/");
    }
}
