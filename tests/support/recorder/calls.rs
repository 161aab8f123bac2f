//! Which permissions a request to AWS needs: its actions and resources in IAM's words.
//!
//! Only what the functions are meant to ask for is known here; everything else is unknown, and said to be. The actions
//! and resources are those of <https://docs.aws.amazon.com/service-authorization/latest/reference/>.

use axum::http::Method;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::support::iam::Request;

/// `AKID/20261123/eu-west-1/s3/aws4_request`
pub struct Scope {
    pub region: String,
    pub service: String,
}

/// Of the signature in the headers. A request that is signed in its URL, or not at all, has none.
pub fn scope(head: &Parts) -> Option<Scope> {
    let authorization = head.headers.get("authorization")?.to_str().ok()?;
    let (_, credential) = authorization.split_once("Credential=")?;
    let credential = credential.split([',', ' ']).next()?;
    // From the end: an access key may hold a slash.
    let mut parts = credential.rsplit('/');
    let (end, service, region) = (parts.next()?, parts.next()?, parts.next()?);
    (end == "aws4_request").then(|| Scope { region: region.to_owned(), service: service.to_owned() })
}

/// All that must be allowed for the request to succeed, or `None` for a request that is not known. The body counts for
/// services that speak JSON.
pub fn calls(head: &Parts, body: &[u8], account: &str) -> Option<Vec<Request>> {
    let scope = scope(head)?;
    if scope.service == "s3" {
        return s3(head);
    }
    let target = head.headers.get("x-amz-target")?.to_str().ok()?;
    let (prefix, operation) = target.split_once('.')?;
    let input = serde_json::from_slice(body).ok()?;
    let place = format!("{}:{account}", scope.region);
    match (scope.service.as_str(), prefix) {
        ("glue", "AWSGlue") => glue(operation, &input, &place),
        ("secretsmanager", "secretsmanager") => secrets(operation, &input, &place),
        ("ssm", "AmazonSSM") => ssm(operation, &input, &place),
        _ => None,
    }
}

/// What S3 asks for besides, once it is known that the object is not there: without `s3:ListBucket` it answers 403
/// instead of 404, and who relies on the 404 fails.
pub fn to_be_told_that_it_is_missing(head: &Parts) -> Option<Request> {
    let (bucket, key) = bucket_and_key(head)?;
    let reads = head.method == Method::GET || head.method == Method::HEAD;
    (scope(head)?.service == "s3" && reads && !key.is_empty()).then(|| Request::new("s3:ListBucket", bucket))
}

/// Path-style: bucket as an ARN, and key.
fn bucket_and_key(head: &Parts) -> Option<(String, String)> {
    let path = head.uri.path().strip_prefix('/')?;
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let decoded = |text| percent_decode_str(text).decode_utf8().ok();
    (!bucket.is_empty()).then_some(())?;
    Some((format!("arn:aws:s3:::{}", decoded(bucket)?), decoded(key)?.into_owned()))
}

fn query(head: &Parts) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8().ok().map(|t| t.into_owned());
    let pairs = head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    // The SDKs write the operation's name there; S3 does not look at it.
    pairs.filter(|(name, _)| *name != "x-id").map(|(name, value)| Some((decoded(name)?, decoded(value)?))).collect()
}

fn s3(head: &Parts) -> Option<Vec<Request>> {
    let (bucket, key) = bucket_and_key(head)?;
    let query = query(head)?;
    let only = |known: &[&str]| query.iter().all(|(name, _)| known.contains(&name.as_str()));
    if key.is_empty() {
        const LIST: [&str; 9] = [
            "list-type",
            "prefix",
            "delimiter",
            "max-keys",
            "continuation-token",
            "start-after",
            "fetch-owner",
            "encoding-type",
            "marker",
        ];
        return match head.method {
            Method::GET if only(&LIST) => {
                let mut list = Request::new("s3:ListBucket", bucket);
                for (name, value) in &query {
                    if ["prefix", "delimiter", "max-keys"].contains(&name.as_str()) {
                        list = list.with(&format!("s3:{name}"), value);
                    }
                }
                Some(vec![list])
            }
            Method::HEAD if only(&[]) => Some(vec![Request::new("s3:ListBucket", bucket)]),
            _ => None,
        };
    }
    // Each of them asks for a permission of its own, and none of ours sends one.
    let unknown = ["x-amz-copy-source", "x-amz-tagging", "x-amz-acl", "x-amz-object-lock-", "x-amz-grant-"];
    if head.headers.keys().any(|name| unknown.iter().any(|unknown| name.as_str().starts_with(unknown))) {
        return None;
    }
    let object = format!("{bucket}/{key}");
    match head.method {
        // HeadObject has no action of its own.
        Method::GET | Method::HEAD if only(&["partNumber"]) => Some(vec![Request::new("s3:GetObject", object)]),
        Method::PUT if only(&[]) => {
            let mut put = Request::new("s3:PutObject", object);
            for condition in ["if-none-match", "if-match"] {
                if let Some(value) = head.headers.get(condition) {
                    put = put.with(&format!("s3:{condition}"), value.to_str().ok()?);
                }
            }
            Some(vec![put])
        }
        Method::DELETE if only(&[]) => Some(vec![Request::new("s3:DeleteObject", object)]),
        _ => None,
    }
}

/// Glue wants an action on the catalog, the database and the table, each.
fn glue(operation: &str, input: &Value, place: &str) -> Option<Vec<Request>> {
    // `CatalogId` is the account of the catalog, where it is another one.
    let place = match (input["CatalogId"].as_str(), place.split_once(':')) {
        (Some(account), Some((region, _))) => format!("{region}:{account}"),
        _ => place.to_owned(),
    };
    let table = match operation {
        "GetDatabase" => None,
        "GetTable" | "DeleteTable" => Some(input["Name"].as_str()?),
        "CreateTable" | "UpdateTable" => Some(input["TableInput"]["Name"].as_str()?),
        "CreatePartition"
        | "BatchCreatePartition"
        | "GetPartition"
        | "GetPartitions"
        | "BatchGetPartition"
        | "UpdatePartition"
        | "DeletePartition"
        | "BatchDeletePartition" => Some(input["TableName"].as_str()?),
        _ => return None,
    };
    let database = input[if table.is_none() { "Name" } else { "DatabaseName" }].as_str()?;
    let table = table.map(|table| format!("table/{database}/{table}"));
    let resources = [Some("catalog".to_owned()), Some(format!("database/{database}")), table];
    let action = format!("glue:{operation}");
    let request = |resource| Request::new(&action, format!("arn:aws:glue:{place}:{resource}"));
    Some(resources.into_iter().flatten().map(request).collect())
}

fn secrets(operation: &str, input: &Value, place: &str) -> Option<Vec<Request>> {
    let id = input["SecretId"].as_str()?;
    let arn = match id.starts_with("arn:") {
        true => id.to_owned(),
        // The ARN ends in six characters that only AWS knows: a policy must hold for any.
        false => format!("arn:aws:secretsmanager:{place}:secret:{id}-??????"),
    };
    (operation == "GetSecretValue").then(|| vec![Request::new("secretsmanager:GetSecretValue", arn)])
}

fn ssm(operation: &str, input: &Value, place: &str) -> Option<Vec<Request>> {
    let name = input["Name"].as_str()?;
    let arn = match name.starts_with("arn:") {
        true => name.to_owned(),
        // A version or a label may stand behind the name.
        false => {
            let name = name.split(':').next().unwrap_or_default();
            format!("arn:aws:ssm:{place}:parameter/{}", name.trim_start_matches('/'))
        }
    };
    (operation == "GetParameter").then(|| vec![Request::new("ssm:GetParameter", arn)])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn head(method: &str, uri: &str, service: &str, headers: &[(&str, &str)]) -> Parts {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKID/20261123/eu-west-1/{service}/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123"
        );
        let mut request = axum::http::Request::builder().method(method).uri(uri).header("authorization", authorization);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn json_calls(service: &str, target: &str, input: Value) -> Option<Vec<Request>> {
        let head = head("POST", "/", service, &[("x-amz-target", target)]);
        calls(&head, input.to_string().as_bytes(), "123456789012")
    }

    fn s3_calls(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<Vec<Request>> {
        calls(&head(method, uri, "s3", headers), b"", "123456789012")
    }

    fn one(action: &str, resource: &str) -> Option<Vec<Request>> {
        Some(vec![Request::new(action, resource)])
    }

    #[test]
    fn objects_are_named_as_iam_names_them_whatever_their_url_looks_like() {
        let object = "arn:aws:s3:::lake/names/dt=2026-11-23/hour=05/names+0+e0+1.parquet";
        let uri = "/lake/names/dt%3D2026-11-23/hour=05/names%2B0%2Be0%2B1.parquet";
        assert_eq!(s3_calls("GET", &format!("{uri}?x-id=GetObject"), &[]), one("s3:GetObject", object));
        assert_eq!(s3_calls("HEAD", uri, &[]), one("s3:GetObject", object));
        assert_eq!(s3_calls("DELETE", &format!("{uri}?x-id=DeleteObject"), &[]), one("s3:DeleteObject", object));
        let put = s3_calls("PUT", &format!("{uri}?x-id=PutObject"), &[("if-none-match", "*")]);
        assert_eq!(put, Some(vec![Request::new("s3:PutObject", object).with("s3:if-none-match", "*")]));
        // In a path a plus is a plus.
        assert_eq!(s3_calls("GET", "/lake/a+b", &[]), one("s3:GetObject", "arn:aws:s3:::lake/a+b"));
    }

    #[test]
    fn a_list_asks_for_the_bucket_and_tells_the_prefix() {
        let list = s3_calls("GET", "/lake/?list-type=2&prefix=names%2Fdt%3D2026&max-keys=1", &[]);
        let expected = Request::new("s3:ListBucket", "arn:aws:s3:::lake");
        assert_eq!(list, Some(vec![expected.with("s3:prefix", "names/dt=2026").with("s3:max-keys", "1")]));
        assert_eq!(s3_calls("HEAD", "/lake", &[]), one("s3:ListBucket", "arn:aws:s3:::lake"));
    }

    #[test]
    fn only_the_read_of_an_object_needs_the_list_to_be_told_that_it_is_missing() {
        let told = |method, uri| to_be_told_that_it_is_missing(&head(method, uri, "s3", &[]));
        for method in ["GET", "HEAD"] {
            assert_eq!(told(method, "/lake/k"), Some(Request::new("s3:ListBucket", "arn:aws:s3:::lake")));
        }
        assert_eq!((told("PUT", "/lake/k"), told("GET", "/lake")), (None, None));
    }

    #[test]
    fn glue_wants_catalog_database_and_table() {
        let arn = |resource: &str| format!("arn:aws:glue:eu-west-1:123456789012:{resource}");
        let all = |action: &str| {
            ["catalog", "database/freshet", "table/freshet/names"].map(|r| Request::new(action, arn(r))).to_vec()
        };
        let input = json!({"DatabaseName": "freshet", "Name": "names"});
        assert_eq!(json_calls("glue", "AWSGlue.GetTable", input), Some(all("glue:GetTable")));
        let input = json!({"DatabaseName": "freshet", "TableName": "names", "PartitionInputList": []});
        let batch = json_calls("glue", "AWSGlue.BatchCreatePartition", input);
        assert_eq!(batch, Some(all("glue:BatchCreatePartition")));
        let database = json_calls("glue", "AWSGlue.GetDatabase", json!({"Name": "freshet"}));
        assert_eq!(database, Some(all("glue:GetDatabase")[..2].to_vec()));
        let elsewhere = json!({"CatalogId": "999999999999", "Name": "freshet"});
        let elsewhere = json_calls("glue", "AWSGlue.GetDatabase", elsewhere).unwrap();
        assert_eq!(elsewhere[0].resource, "arn:aws:glue:eu-west-1:999999999999:catalog");
    }

    #[test]
    fn a_secret_is_its_arn_or_any_that_its_name_may_have() {
        let get = |id: &str| json_calls("secretsmanager", "secretsmanager.GetSecretValue", json!({"SecretId": id}));
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:freshet-hash-key-AbCdEf";
        assert_eq!(get(arn), one("secretsmanager:GetSecretValue", arn));
        let any = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:freshet-hash-key-??????";
        assert_eq!(get("freshet-hash-key"), one("secretsmanager:GetSecretValue", any));
    }

    #[test]
    fn a_parameter_is_its_arn_or_made_of_its_name() {
        let get = |name: &str| json_calls("ssm", "AmazonSSM.GetParameter", json!({"Name": name}));
        for name in ["/freshet/key", "/freshet/key:3", "arn:aws:ssm:eu-west-1:123456789012:parameter/freshet/key"] {
            let arn = "arn:aws:ssm:eu-west-1:123456789012:parameter/freshet/key";
            assert_eq!(get(name), one("ssm:GetParameter", arn), "{name}");
        }
        assert_eq!(get("key").unwrap()[0].resource, "arn:aws:ssm:eu-west-1:123456789012:parameter/key");
    }

    #[test]
    fn what_is_not_known_is_never_taken_for_something_else() {
        for (method, uri, header) in [
            ("GET", "/", ""),
            ("PUT", "/lake", ""),
            ("DELETE", "/lake", ""),
            ("GET", "/lake?policy", ""),
            ("GET", "/lake?list-type=2&versions", ""),
            ("POST", "/lake?delete", ""),
            ("GET", "/lake/k?acl", ""),
            ("GET", "/lake/k?versionId=1", ""),
            ("PUT", "/lake/k?tagging", ""),
            ("PUT", "/lake/k?partNumber=1&uploadId=2", ""),
            ("POST", "/lake/k?uploads", ""),
            ("PUT", "/lake/k", "x-amz-copy-source"),
            ("PUT", "/lake/k", "x-amz-grant-read"),
            ("PUT", "/lake/k", "x-amz-object-lock-mode"),
        ] {
            let headers = [(header, "x")];
            let headers = if header.is_empty() { &[][..] } else { &headers[..] };
            assert_eq!(s3_calls(method, uri, headers), None, "{method} {uri} {header}");
        }
        for (service, target) in [
            ("glue", "AWSGlue.DeleteDatabase"),
            ("glue", "AmazonSSM.GetParameter"),
            ("secretsmanager", "secretsmanager.PutSecretValue"),
            ("ssm", "AmazonSSM.PutParameter"),
            ("dynamodb", "DynamoDB_20120810.GetItem"),
            ("glue", "GetTable"),
        ] {
            let input = json!({"Name": "n", "DatabaseName": "d", "SecretId": "s"});
            assert_eq!(json_calls(service, target, input), None, "{service} {target}");
        }
        assert_eq!(json_calls("glue", "AWSGlue.GetTable", json!({"Name": "names"})), None, "no database");
    }

    #[test]
    fn a_request_without_a_signature_in_its_headers_is_not_known() {
        let unsigned = axum::http::Request::get("/lake/k?X-Amz-Credential=AKID").body(()).unwrap().into_parts().0;
        assert_eq!(calls(&unsigned, b"", "123456789012"), None);
    }
}
