//! The consumer takes a full event (6 MB) in a process that is limited to 128 MB of memory.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use base64_simd::STANDARD;
use localstack::process::Log;
use localstack::runtime::{Function, FunctionConfig, MAX_PAYLOAD};
use localstack::s3::S3Server;

use crate::support::stack::binaries;

/// As many people over 8 partitions as fit into one invocation.
fn full_event() -> (Vec<u8>, u64) {
    let mut event = br#"{"eventSource":"aws:kafka","eventSourceArn":"arn","bootstrapServers":"b","records":{"#.to_vec();
    let (mut people, now) = (0, pipeline::telemetry::now_ms());
    for partition in 0..8 {
        let separator = if partition == 0 { "" } else { "," };
        event.extend_from_slice(format!("{separator}\"names_topic-{partition}\":[").as_bytes());
        for offset in 0.. {
            let value = format!(
                r#"{{"name":"Ms. Person Number{people}","gender":"female","address":"{people}, Long Street","city":"Town {}","nation":"Norway","zip":"{:064x}","latitude":{},"longitude":-131.0133,"email":"person.{people}@example.com"}}"#,
                people % 977,
                people * 7919,
                (people % 18000) as f64 / 100.0 - 90.0,
            );
            let record = format!(
                r#"{}{{"topic":"names_topic","partition":{partition},"offset":{offset},"timestamp":{},"timestampType":"LOG_APPEND_TIME","value":"{}","headers":[]}}"#,
                if offset == 0 { "" } else { "," },
                now,
                STANDARD.encode_to_string(value),
            );
            if event.len() + record.len() > MAX_PAYLOAD / 8 * (partition + 1) - 100 {
                break;
            }
            event.extend_from_slice(record.as_bytes());
            people += 1;
        }
        event.push(b']');
    }
    event.extend_from_slice(b"}}");
    (event, people)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_event_fits_into_128_mb_in_both_formats() {
    let Some((binaries, _)) = binaries() else { return };
    let (event, people) = full_event();
    assert!(event.len() > 6_200_000 && event.len() <= MAX_PAYLOAD, "{}", event.len());
    for format in ["parquet", "ndjson"] {
        let folder = tempfile::tempdir().unwrap();
        let s3 = S3Server::start(folder.path(), "lake").await.unwrap();
        let dataset = folder.path().join("names.yaml");
        let codec = if format == "parquet" { "zstd" } else { "gzip" };
        let text = include_str!("../datasets/names.yaml")
            .replace("format: parquet", &format!("format: {format}"))
            .replace("codec: zstd", &format!("codec: {codec}"));
        std::fs::write(&dataset, text).unwrap();
        // The limit counts all that the process may write to: heap, stacks, buffers. Its own number goes to a file.
        let limited = folder.path().join("limited");
        let (pid, consumer) = (folder.path().join("pid"), binaries.join("consumer"));
        let script = format!("#!/bin/sh\nulimit -d 131072\necho $$ > {}\nexec {}\n", pid.display(), consumer.display());
        std::fs::write(&limited, script).unwrap();
        std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = [
            ("DATASET", dataset.display().to_string()),
            ("S3_BUCKET", "lake".to_owned()),
            ("S3_ENDPOINT", s3.endpoint()),
            ("S3_PATH_STYLE_ACCESS", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", s3.access_key().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", s3.secret_key().to_owned()),
        ];
        let function = Function::start(FunctionConfig {
            environment: environment.map(|(k, v)| (k.to_owned(), v)).to_vec(),
            timeout: Duration::from_secs(60),
            log: Log::Null,
            ..FunctionConfig::new("consumer", limited)
        })
        .unwrap();
        let answer = function.invoke(event.clone().into()).await.unwrap();
        let report: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(report["rows"].as_u64(), Some(people), "{report}");
        let pid = std::fs::read_to_string(pid).unwrap();
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())) {
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
            println!("{format}: {people} records in one event of {} bytes, {peak_kb} kB resident at most", event.len());
            assert!(peak_kb < 131_072, "{peak_kb} kB");
        }
        function.stop().await;
        s3.stop().await;
    }
}
