//! SQL over a lake in a folder, through the embedded S3: values, in both formats.

use std::io::{Cursor, Write};
use std::sync::Arc;

use datafusion::arrow::json::ReaderBuilder;
use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use pipeline::lake::arrow_schema;
use tempfile::TempDir;

use super::*;

const LINES: [&str; 3] = [
    r#"{"order_id":1,"paid":true,"price":1.5,"note":"é, \"q\"","ordered_at":"2026-11-23 05:06:07.123456","_partition":0,"_offset":0,"_epoch":0,"_timestamp":"2026-11-23 05:00:00.001000","_extra":"{\"x\":1}"}"#,
    r#"{"order_id":9007199254740993,"paid":false,"_partition":0,"_offset":1,"_epoch":0,"_timestamp":"2026-11-23 05:00:01.000000"}"#,
    r#"{"order_id":3,"paid":null,"price":-2,"_partition":0,"_offset":2,"_epoch":0,"_timestamp":"2026-11-23 06:00:00.000000"}"#,
];

const LETTER: &str = r#"{"id":"orders+0+e0+3","dataset":"orders","stage":"decode","error":"is not JSON","topic":"orders","partition":0,"epoch":0,"offset":3,"timestamp":1795410000000,"key":null,"headers":[{"name":"h","value":"AA=="}],"payload":"e30="}"#;

/// A lake in a folder, and the options that name it.
struct Folder {
    folder: TempDir,
    args: LakeArgs,
}

impl Folder {
    fn new(format: &str, codec: &str) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let dataset = folder.path().join("orders.yaml");
        let text = format!(
            "name: orders
source: {{ url: https://example.com/orders, records: data }}
schedule: {{ every_minutes: 5, run_seconds: 120, fetch_every_seconds: 10 }}
topic: {{ name: orders, partitions: 1, replication_factor: 1, retention_hours: 24 }}
lake: {{ prefix: shop/orders, format: {format}, codec: {codec} }}
columns:
  - {{ id: 100, name: order_id, type: integer, required: true, expression: id }}
  - {{ id: 101, name: paid, type: boolean, expression: paid }}
  - {{ id: 102, name: price, type: double, expression: price }}
  - {{ id: 103, name: note, type: string, expression: note }}
  - {{ id: 104, name: ordered_at, type: timestamp, expression: at }}
"
        );
        std::fs::write(&dataset, text).unwrap();
        std::fs::create_dir_all(folder.path().join("s3/lake")).unwrap();
        let args = LakeArgs {
            local: Some(folder.path().to_owned()),
            dataset: Some(dataset.display().to_string()),
            ..LakeArgs::default()
        };
        Folder { folder, args }
    }

    fn place(&self, key: &str, body: &[u8]) {
        let file = self.folder.path().join("s3/lake").join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, body).unwrap();
    }

    async fn ask(&self, sql: &str, format: OutputFormat) -> Result<String, Error> {
        let mut out = Vec::new();
        run(&self.args, &QueryArgs { sql: sql.to_owned(), format }, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    async fn csv(&self, sql: &str) -> String {
        self.ask(sql, OutputFormat::Csv).await.unwrap()
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn encode(folder: &Folder, extension: &str, lines: &[&str]) -> Vec<u8> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    match extension {
        "json" => text.into_bytes(),
        "json.gz" => gzip(&text),
        "json.zst" => zstd::encode_all(text.as_bytes(), 1).unwrap(),
        _ => {
            let dataset = pipeline::datasets::load(folder.args.dataset.as_deref().unwrap()).unwrap();
            let schema = Arc::new(arrow_schema(&dataset));
            let mut writer = ArrowWriter::try_new(Vec::new(), schema.clone(), None).unwrap();
            for batch in ReaderBuilder::new(schema).build(Cursor::new(text)).unwrap() {
                writer.write(&batch.unwrap()).unwrap();
            }
            writer.into_inner().unwrap()
        }
    }
}

/// Two rows at five, one at six, an object without a row, and one dead letter.
fn filled(format: &str, codec: &str, extension: &str) -> Folder {
    let folder = Folder::new(format, codec);
    let objects: [(&str, i64, &[&str]); 3] = [("05", 0, &LINES[..2]), ("06", 2, &LINES[2..]), ("06", 3, &[])];
    for (hour, start, lines) in objects {
        let key = format!("shop/orders/dt=2026-11-23/hour={hour}/orders+0+e0+{start:020}.{extension}");
        folder.place(&key, &encode(&folder, extension, lines));
    }
    let range = format!("{:020}-{:020}", 3, 3);
    let letters = format!("shop/orders_dead_letters/dt=2026-11-23/orders+0+e0+{range}+0123456789abcdef.json.gz");
    folder.place(&letters, &gzip(&format!("{LETTER}\n")));
    folder
}

const FORMATS: [(&str, &str, &str); 4] = [
    ("parquet", "zstd", "parquet"),
    ("ndjson", "gzip", "json.gz"),
    ("ndjson", "zstd", "json.zst"),
    ("ndjson", "none", "json"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_read_alike_from_every_format() {
    for (format, codec, extension) in FORMATS {
        let folder = filled(format, codec, extension);
        let csv = folder.csv("SELECT * FROM orders ORDER BY _offset").await;
        let expected = r#"_partition,_offset,_epoch,_timestamp,_extra,order_id,paid,price,note,ordered_at,dt,hour
0,0,0,2026-11-23T05:00:00.001Z,"{""x"":1}",1,true,1.5,"é, ""q""",2026-11-23T05:06:07.123456Z,2026-11-23,05
0,1,0,2026-11-23T05:00:01Z,,9007199254740993,false,,,,2026-11-23,05
0,2,0,2026-11-23T06:00:00Z,,3,,-2.0,,,2026-11-23,06
"#;
        assert_eq!(csv, expected, "{extension}");
        let at_six = folder.csv("SELECT order_id FROM orders WHERE dt = '2026-11-23' AND hour = '06'").await;
        assert_eq!(at_six, "order_id\n3\n", "{extension}");
        let late = folder.csv("SELECT order_id FROM orders WHERE ordered_at > '2026-11-23 05:00:00'").await;
        assert_eq!(late, "order_id\n1\n", "{extension}");
        let sums =
            folder.csv("SELECT hour, count(*) AS n, sum(price) AS total FROM orders GROUP BY hour ORDER BY hour").await;
        assert_eq!(sums, "hour,n,total\n05,2,1.5\n06,1,-2.0\n", "{extension}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_written_as_a_table_and_as_json() {
    let folder = filled("parquet", "zstd", "parquet");
    let sql = "SELECT _offset, paid, hour FROM orders ORDER BY _offset DESC LIMIT 2";
    let table = "\
+---------+-------+------+
| _offset | paid  | hour |
+---------+-------+------+
| 2       |       | 06   |
| 1       | false | 05   |
+---------+-------+------+
";
    assert_eq!(folder.ask(sql, OutputFormat::Table).await.unwrap(), table);
    let json: serde_json::Value = serde_json::from_str(&folder.ask(sql, OutputFormat::Json).await.unwrap()).unwrap();
    let expected =
        serde_json::json!([{"_offset": 2, "paid": null, "hour": "06"}, {"_offset": 1, "paid": false, "hour": "05"}]);
    assert_eq!(json, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_a_table_beside_it() {
    let folder = filled("ndjson", "gzip", "json.gz");
    let sql =
        r#"SELECT id, error, "partition", "offset", "timestamp", key, headers, payload, dt FROM orders_dead_letters"#;
    let json: serde_json::Value = serde_json::from_str(&folder.ask(sql, OutputFormat::Json).await.unwrap()).unwrap();
    let expected = serde_json::json!([{
        "id": "orders+0+e0+3", "error": "is not JSON", "partition": 0, "offset": 3, "timestamp": 1_795_410_000_000_i64,
        "key": null, "headers": [{"name": "h", "value": "AA=="}], "payload": "e30=", "dt": "2026-11-23"
    }]);
    assert_eq!(json, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_objects_has_no_rows_and_is_no_error() {
    for (format, codec, _) in FORMATS {
        let folder = Folder::new(format, codec);
        assert_eq!(folder.csv("SELECT count(*) AS n FROM orders").await, "n\n0\n");
        assert_eq!(folder.csv("SELECT order_id, dt FROM orders").await, "order_id,dt\n");
        assert_eq!(folder.csv("SELECT id FROM orders_dead_letters").await, "id\n");
        assert_eq!(folder.ask("SELECT order_id FROM orders", OutputFormat::Json).await.unwrap(), "[]\n");
        let table = folder.ask("SELECT order_id FROM orders", OutputFormat::Table).await.unwrap();
        assert!(table.contains("| order_id |"), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_without_a_row_alone_are_no_rows() {
    for (format, codec, extension) in FORMATS {
        let folder = Folder::new(format, codec);
        let key = format!("shop/orders/dt=2026-11-23/hour=05/orders+0+e0+{:020}.{extension}", 0);
        folder.place(&key, &encode(&folder, extension, &[]));
        assert_eq!(folder.csv("SELECT count(*) AS n FROM orders WHERE paid").await, "n\n0\n", "{extension}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_not_read() {
    let folder = filled("parquet", "zstd", "parquet");
    folder.place("shop/orders/dt=2026-11-23/hour=05/part-0.parquet", b"not Parquet");
    folder.place("shop/orders/dt=2026-11-23/hour=05/copy/x.parquet", b"not Parquet");
    folder.place(&format!("shop/orders/dt=2026-11-23/hour=06/orders+0+e0+{:020}.json.gz", 4), b"");
    assert_eq!(folder.csv("SELECT count(*) AS n FROM orders").await, "n\n3\n");
    let lake = Lake::open(&folder.args).await.unwrap();
    let session = Session::open(&lake).unwrap();
    session.plan("SELECT paid FROM orders").await.unwrap().collect().await.unwrap();
    assert!(session.unread().unwrap().starts_with("3 objects under the prefix are not .parquet"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_do_not_only_read_are_refused() {
    let folder = filled("parquet", "zstd", "parquet");
    for sql in [
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE orders",
        "INSERT INTO orders SELECT * FROM orders",
        "DELETE FROM orders",
        "COPY orders TO 'file.csv'",
        "SET datafusion.execution.batch_size = 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
    ] {
        let message = folder.ask(sql, OutputFormat::Csv).await.unwrap_err().to_string();
        assert!(message.starts_with("freshet query only reads"), "{sql}: {message}");
    }
    let message = folder.ask("SELECT * FROM '/etc/passwd'", OutputFormat::Csv).await.unwrap_err().to_string();
    assert!(message.contains("not found"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_statement_is_answered_with_what_there_is() {
    let folder = filled("parquet", "zstd", "parquet");
    for sql in ["SELECT nope FROM orders", "SELECT 1 FROM ordres", "SELEC 1", ""] {
        let message = folder.ask(sql, OutputFormat::Csv).await.unwrap_err().to_string();
        assert!(message.contains("  orders(_partition, _offset, _epoch,"), "{sql}: {message}");
        assert!(
            message.contains("ordered_at, dt, hour)") && message.contains("  orders_dead_letters(id, "),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_cannot_be_read_fails_the_query_and_says_what_names_it() {
    for (format, codec, extension) in [("parquet", "zstd", "parquet"), ("ndjson", "gzip", "json.gz")] {
        let folder = filled(format, codec, extension);
        let mut body = encode(&folder, extension, &LINES);
        body.truncate(body.len() / 2);
        folder.place(&format!("shop/orders/dt=2026-11-23/hour=06/orders+0+e0+{:020}.{extension}", 4), &body);
        let message = folder.ask("SELECT paid FROM orders", OutputFormat::Csv).await.unwrap_err().to_string();
        assert!(message.contains("verify --deep"), "{message}");
    }
}
