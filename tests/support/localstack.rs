//! LocalStack without Docker, fetched by `tests/cloud/tools.sh localstack`. Whatever needs containers does not work: no function runs.

use std::path::Path;

use super::server::{self, Server};
use super::stack::skip;

pub struct LocalStack {
    server: Server,
}

impl LocalStack {
    /// Starts it with this environment, on a free port of the loopback; everything that it writes is in `folder`. `None`, loudly, where it
    /// was not fetched.
    ///
    /// A `docker` that does nothing and a runtime that seems to be there make functions `Active`, which nobody can invoke. One that failed
    /// to become that could not be deleted again.
    pub async fn start(folder: &Path, environment: &[(String, String)]) -> Option<LocalStack> {
        let python = server::root().join("target/tools/localstack/bin/python");
        if !python.is_file() {
            return skip("LocalStack is not there: run `tests/cloud/tools.sh localstack`");
        }
        let files = folder.join("localstack");
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        let runtime =
            files.join("var/lib/localstack/lib/lambda-runtime/v0.1.41-pre").join(architecture).join("var/rapid");
        std::fs::create_dir_all(&runtime).unwrap();
        std::fs::write(runtime.join("init"), "").unwrap();
        let arguments = |command: &mut std::process::Command, port: u16| {
            command.arg(&python).args(["-m", "localstack.runtime.main"]).current_dir(&files);
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command.env("HOME", &files).env("TMPDIR", &files).env("FILESYSTEM_ROOT", &files);
            // The default server listens beyond the loopback whatever it is told, and so does its DNS.
            command.env("GATEWAY_LISTEN", format!("127.0.0.1:{port}")).env("GATEWAY_SERVER", "hypercorn");
            command.env("DNS_ADDRESS", "0").env("OVERRIDE_IN_DOCKER", "0").env("DOCKER_CMD", "/bin/true");
            command.env("SKIP_SSL_CERT_DOWNLOAD", "1");
        };
        let http = server::http();
        let ready = async |port: u16| {
            let answer = http.get(format!("http://127.0.0.1:{port}/_localstack/init/ready")).send().await;
            let Ok(answer) = answer else { return false };
            answer.text().await.is_ok_and(|text| text.contains("\"completed\": true"))
        };
        Some(LocalStack { server: Server::start(folder.join("localstack.log"), arguments, ready).await })
    }

    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    pub fn log(&self) -> String {
        self.server.log()
    }
}
