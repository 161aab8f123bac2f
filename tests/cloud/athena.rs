//! Athena's API, as a client of it uses it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::aws_api::AwsApi;

pub struct Athena<'a> {
    aws: &'a AwsApi,
    workgroup: &'a str,
    database: &'a str,
}

impl<'a> Athena<'a> {
    pub fn new(aws: &'a AwsApi, workgroup: &'a str, database: &'a str) -> Athena<'a> {
        Athena { aws, workgroup, database }
    }

    /// The rows as text, without the header. The workgroup says where results go.
    pub async fn query(&self, sql: &str) -> Vec<Vec<String>> {
        let query = json!({"QueryString": sql, "WorkGroup": self.workgroup, "QueryExecutionContext": {"Database": self.database}});
        let started = self.aws.json("athena", "AmazonAthena.StartQueryExecution", query).await;
        let id = json!({"QueryExecutionId": started["QueryExecutionId"]});
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                let answer = self.aws.json("athena", "AmazonAthena.GetQueryExecution", id.clone()).await;
                match answer["QueryExecution"]["Status"]["State"].as_str() {
                    Some("SUCCEEDED") => return,
                    Some("QUEUED" | "RUNNING") => tokio::time::sleep(Duration::from_millis(100)).await,
                    _ => panic!("{sql}: {answer}"),
                }
            }
        });
        waited.await.unwrap();
        let results = self.aws.json("athena", "AmazonAthena.GetQueryResults", id).await;
        let text = |cell: &Value| cell["VarCharValue"].as_str().unwrap_or_default().to_owned();
        let rows = results["ResultSet"]["Rows"].as_array().unwrap().iter().skip(1);
        rows.map(|row| row["Data"].as_array().unwrap().iter().map(text).collect()).collect()
    }
}
