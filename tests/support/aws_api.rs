//! What a test asks an AWS emulator beside what the code under test does: looks, and a hand of a second person.
//!
//! Requests name their service as a signature would, which emulators go by; they check no signature.

use std::collections::BTreeMap;

use aws_config::{Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use serde_json::{Value, json};

use super::server;

pub struct AwsApi {
    pub sdk: SdkConfig,
    endpoint: String,
    http: reqwest::Client,
}

impl AwsApi {
    pub async fn new(endpoint: &str, region: &'static str) -> AwsApi {
        let credentials = Credentials::new("test", "test", None, None, "emulator");
        let loader = pipeline::aws::loader().region(Region::from_static(region)).credentials_provider(credentials);
        let sdk = loader.endpoint_url(endpoint).load().await;
        AwsApi { sdk, endpoint: endpoint.to_owned(), http: server::http() }
    }

    /// A service that speaks JSON.
    pub async fn json(&self, service: &str, target: &str, body: Value) -> Value {
        let request = self.http.post(&self.endpoint).header("x-amz-target", target).body(body.to_string());
        let text = self.send(service, request.header("content-type", "application/x-amz-json-1.1")).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{target}: {e}: {text}"))
    }

    async fn query(&self, service: &str, form: &str) -> String {
        let request = self.http.post(&self.endpoint).header("content-type", "application/x-www-form-urlencoded");
        self.send(service, request.body(form.to_owned())).await
    }

    async fn get(&self, service: &str, path: &str) -> Value {
        let text = self.send(service, self.http.get(format!("{}{path}", self.endpoint))).await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}"))
    }

    async fn send(&self, service: &str, request: reqwest::RequestBuilder) -> String {
        let scope = format!("Credential=test/20260101/us-east-1/{service}/aws4_request");
        let authorization = format!("AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=none");
        let answer = request.header("authorization", authorization).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{service} answers {status}: {text}");
        text
    }

    pub async fn code_sha256(&self, function: &str) -> String {
        let answer = self.get("lambda", &format!("/2015-03-31/functions/{function}/configuration")).await;
        answer["CodeSha256"].as_str().unwrap().to_owned()
    }

    /// The values of all secrets whose names begin so.
    pub async fn secrets(&self, prefix: &str) -> Vec<String> {
        let listed = self.json("secretsmanager", "secretsmanager.ListSecrets", json!({})).await;
        let mut values = Vec::new();
        for secret in listed["SecretList"].as_array().unwrap() {
            if secret["Name"].as_str().unwrap().starts_with(prefix) {
                let id = json!({"SecretId": secret["ARN"]});
                let value = self.json("secretsmanager", "secretsmanager.GetSecretValue", id).await;
                values.push(value["SecretString"].as_str().unwrap().to_owned());
            }
        }
        values
    }

    pub async fn table(&self, database: &str, table: &str) -> Value {
        let name = json!({"DatabaseName": database, "Name": table});
        self.json("glue", "AWSGlue.GetTable", name).await["Table"].clone()
    }

    /// Registers a Glue partition where its table says that it would lie.
    pub async fn register(&self, database: &str, table: &str, [dt, hour]: [&str; 2]) {
        let mut descriptor = self.table(database, table).await["StorageDescriptor"].clone();
        let location = descriptor["Location"].as_str().unwrap().to_owned();
        descriptor["Location"] = json!(format!("{location}dt={dt}/hour={hour}/"));
        let input = json!({"Values": [dt, hour], "StorageDescriptor": descriptor});
        let partition = json!({"DatabaseName": database, "TableName": table, "PartitionInput": input});
        self.json("glue", "AWSGlue.CreatePartition", partition).await;
    }

    pub async fn unregister(&self, database: &str, table: &str, values: [&str; 2]) {
        let partition = json!({"DatabaseName": database, "TableName": table, "PartitionValues": values});
        self.json("glue", "AWSGlue.DeletePartition", partition).await;
    }

    /// SQL by name, of a workgroup's saved queries.
    pub async fn saved_queries(&self, workgroup: &str) -> BTreeMap<String, String> {
        let listed = self.json("athena", "AmazonAthena.ListNamedQueries", json!({"WorkGroup": workgroup})).await;
        let mut queries = BTreeMap::new();
        for id in listed["NamedQueryIds"].as_array().unwrap() {
            let query = self.json("athena", "AmazonAthena.GetNamedQuery", json!({"NamedQueryId": id})).await;
            let text = |key: &str| query["NamedQuery"][key].as_str().unwrap().to_owned();
            queries.insert(text("Name"), text("QueryString"));
        }
        queries
    }

    /// What is left of a deployment: everything that bears its name, by every service that `infra/` makes something of.
    pub async fn everything_named(&self, name: &str) -> Vec<String> {
        let s3 = pipeline::aws::s3(&self.sdk, &pipeline::config::S3Config { path_style: true, ..Default::default() });
        let buckets = s3.list_buckets().send().await.unwrap();
        let buckets = buckets.buckets().iter().filter_map(|b| b.name()).collect::<Vec<_>>().join(" ");
        let answers = [
            ("buckets", buckets),
            ("functions", self.get("lambda", "/2015-03-31/functions/").await.to_string()),
            ("mappings", self.get("lambda", "/2015-03-31/event-source-mappings/").await.to_string()),
            ("rules", self.json("events", "AWSEvents.ListRules", json!({})).await.to_string()),
            ("log groups", self.json("logs", "Logs_20140328.DescribeLogGroups", json!({})).await.to_string()),
            ("databases", self.json("glue", "AWSGlue.GetDatabases", json!({})).await.to_string()),
            ("workgroups", self.json("athena", "AmazonAthena.ListWorkGroups", json!({})).await.to_string()),
            ("secrets", self.json("secretsmanager", "secretsmanager.ListSecrets", json!({})).await.to_string()),
            ("roles", self.query("iam", "Action=ListRoles&Version=2010-05-08").await),
            ("topics", self.query("sns", "Action=ListTopics&Version=2010-03-31").await),
            ("alarms", self.query("monitoring", "Action=DescribeAlarms&Version=2010-08-01").await),
            ("dashboards", self.query("monitoring", "Action=ListDashboards&Version=2010-08-01").await),
        ];
        let left = answers.into_iter().filter(|(_, answer)| answer.contains(name));
        left.map(|(what, answer)| format!("{what}: {answer}")).collect()
    }
}
