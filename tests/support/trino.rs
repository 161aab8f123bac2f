//! The engine that Athena (version 3) is made of, over a Glue API and an S3: Trino, fetched by `tests/cloud/tools.sh trino`.
//!
//! Where it differs from Athena: an NDJSON partition whose columns stand in another order than its table's is read here by name, and Athena
//! compares by place; views, workgroups and limits are Athena's own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::server::{self, Server};
use super::stack::skip;

const VERSION: &str = "476";
/// It answers some seconds before its catalog is known to have a node that reads it.
const NODE: Duration = Duration::from_secs(60);

pub struct Trino {
    server: Server,
    http: reqwest::Client,
    database: String,
}

impl Trino {
    /// Starts it on a free port of the loopback over a Glue and an S3 that take the keys `test` and `test`; `folder` gets its log and its
    /// configuration. `None`, loudly, where it was not fetched.
    pub async fn start(folder: &Path, glue_endpoint: &str, s3_endpoint: &str, region: &str) -> Option<Trino> {
        let tools = server::root().join("target/tools");
        let (java, trino) = (tools.join("java/bin/java"), tools.join(format!("trino-{VERSION}")));
        if !java.is_file() || !trino.is_dir() {
            return skip("Athena's engine is not there: run `tests/cloud/tools.sh trino`");
        }
        let home = folder.join("trino");
        std::fs::create_dir_all(home.join("etc/catalog")).unwrap();
        std::fs::write(home.join("etc/catalog/lake.properties"), catalog(glue_endpoint, s3_endpoint, region)).unwrap();
        std::fs::write(home.join("etc/log.properties"), "io=WARN\norg=WARN\n").unwrap();
        let arguments = |command: &mut Command, port: u16| {
            let config = home.join("etc/config.properties");
            std::fs::write(&config, configuration(port, &trino.join("plugin"), &home)).unwrap();
            command.arg(&java).args(["-Xmx400M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]);
            // Athena's clock: timestamps of Parquet would shift otherwise.
            command
                .arg("-Duser.timezone=UTC")
                .args(["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]);
            command.arg(format!("-Djava.io.tmpdir={}", home.display())).arg(format!("-Dconfig={}", config.display()));
            command.arg("-cp").arg(trino.join("lib/*")).arg("io.trino.server.TrinoServer").current_dir(&home);
        };
        let http = server::http();
        let ready = async |port: u16| {
            let answer = run(&http, &format!("http://127.0.0.1:{port}"), "", "SELECT 1 AS one").await;
            answer.is_ok_and(|rows| rows == [json!({"one": 1})])
        };
        let server = Server::start(folder.join("trino.log"), arguments, ready).await;
        Some(Trino { server, http: server::http(), database: String::new() })
    }

    /// Names without a database mean this one's from here on.
    pub fn in_database(self, database: &str) -> Trino {
        Trino { database: database.to_owned(), ..self }
    }

    /// Each row as an object by column name: numbers and booleans as such, arrays and structs as arrays, the rest as text.
    ///
    /// # Errors
    /// Trino's own name of the error, and its words.
    pub async fn query(&self, sql: &str) -> Result<Vec<Value>, String> {
        let deadline = Instant::now() + NODE;
        loop {
            match run(&self.http, &self.server.url(), &self.database, sql).await {
                Err(error) if error.starts_with("NO_NODES_AVAILABLE") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                done => return done,
            }
        }
    }
}

/// <https://trino.io/docs/476/develop/client-protocol.html>
async fn run(http: &reqwest::Client, url: &str, database: &str, sql: &str) -> Result<Vec<Value>, String> {
    let send = async |request: reqwest::RequestBuilder| -> Result<Value, String> {
        let headers = [("x-trino-user", "test"), ("x-trino-catalog", "lake"), ("x-trino-time-zone", "UTC")];
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let request = if database.is_empty() { request } else { request.header("x-trino-schema", database) };
        let answer = request.send().await.and_then(reqwest::Response::error_for_status).map_err(|e| e.to_string())?;
        let text = answer.text().await.map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))
    };
    let mut answer = send(http.post(format!("{url}/v1/statement")).body(sql.to_owned())).await?;
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    loop {
        if let Some(error) = answer.get("error") {
            let text = |key: &str| error[key].as_str().unwrap_or_default();
            return Err(format!("{}: {}", text("errorName"), text("message")));
        }
        if let Some(columns) = answer["columns"].as_array() {
            names = columns.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
        }
        for row in answer["data"].as_array().into_iter().flatten() {
            let cells = row.as_array().into_iter().flatten().cloned();
            rows.push(Value::Object(names.iter().cloned().zip(cells).collect::<Map<_, _>>()));
        }
        match answer["nextUri"].as_str() {
            Some(next) => answer = send(http.get(next)).await?,
            None => return Ok(rows),
        }
    }
}

fn configuration(port: u16, plugins: &Path, home: &Path) -> String {
    format!(
        "coordinator=true\nnode-scheduler.include-coordinator=true\nnode.environment=test\nnode.id=only\n\
         node.bind-ip=127.0.0.1\nnode.internal-address=127.0.0.1\nhttp-server.http.port={port}\n\
         discovery.uri=http://127.0.0.1:{port}\nhttp-server.log.enabled=false\nplugin.dir={}\nlog.levels-file={}\n\
         query.max-memory=100MB\nquery.max-memory-per-node=100MB\nmemory.heap-headroom-per-node=50MB\n",
        plugins.display(),
        home.join("etc/log.properties").display(),
    )
}

fn catalog(glue_endpoint: &str, s3_endpoint: &str, region: &str) -> String {
    format!(
        // Nothing is remembered: a partition counts from the moment in which it is registered, as for Athena.
        "connector.name=hive\nhive.metastore=glue\nhive.metastore-cache-ttl=0s\nhive.partition-projection-enabled=true\n\
         hive.metastore.glue.region={region}\nhive.metastore.glue.endpoint-url={glue_endpoint}\n\
         hive.metastore.glue.aws-access-key=test\nhive.metastore.glue.aws-secret-key=test\n\
         fs.native-s3.enabled=true\ns3.endpoint={s3_endpoint}\ns3.region={region}\ns3.path-style-access=true\n\
         s3.aws-access-key=test\ns3.aws-secret-key=test\n"
    )
}
