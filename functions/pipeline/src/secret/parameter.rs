//! `GetParameter` of SSM's Parameter Store. The SDK's crate for SSM compiles for 40 CPU-seconds; this is the one call of
//! it that we need: <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>

use std::time::Duration;

use aws_config::SdkConfig;

use crate::aws::signed::{Client, Error, Service, region_of};

const SERVICE: Service = Service { id: "SSM", name: "ssm" };
const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "AmazonSSM.GetParameter")];
const ATTEMPTS: u32 = 3;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The decrypted value of a parameter, by its name or ARN. The error is a reason in words and never holds the value.
pub async fn get(sdk: &SdkConfig, name: &str) -> Result<String, String> {
    let client = Client::new(sdk, SERVICE, region_of(name)).map_err(|e| e.to_string())?;
    let body = serde_json::json!({"Name": name, "WithDecryption": true}).to_string();

    let mut reason = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
        }
        let answer = match client.post("/", &HEADERS, body.clone().into(), ATTEMPT_TIMEOUT).await {
            Ok(answer) => answer,
            Err(failure @ (Error::Transport { .. } | Error::Late { .. })) => {
                reason = failure.to_string();
                continue;
            }
            Err(failure) => return Err(failure.to_string()),
        };
        let status = answer.status;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use aws_config::Region;
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

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
}
