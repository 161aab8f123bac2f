//! An AWS emulator that runs Lambda functions as processes: MiniStack, fetched by `tests/cloud/tools.sh ministack`.
//!
//! Everything that it stores is in its memory. Functions get its environment: MiniStack gives them no `AWS_ENDPOINT_URL` by itself, and what
//! its own environment says wins over what a function's variables say.

use std::path::Path;

use super::server::{self, Server};
use super::stack::skip;

pub struct Ministack {
    server: Server,
}

impl Ministack {
    /// Starts it with this environment, in whose values `{port}` is its own, on a free port of the loopback; `folder` gets its log and the code
    /// of its functions. `None`, loudly, where it was not fetched.
    pub async fn start(folder: &Path, environment: &[(&str, &str)]) -> Option<Ministack> {
        let python = server::root().join("target/tools/venv/bin/python");
        if !python.is_file() {
            return skip("MiniStack is not there: run `tests/cloud/tools.sh ministack`");
        }
        let temporary = folder.join("ministack");
        std::fs::create_dir_all(&temporary).unwrap();
        let arguments = |command: &mut std::process::Command, port: u16| {
            command.arg(&python).arg(server::root().join("tests/cloud/serve_ministack.py"));
            command.current_dir(&temporary).env("TMPDIR", &temporary).env("HOME", &temporary);
            command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string());
            // Its only other listeners.
            command.env("SFTP_ENABLED", "0").env("IOT_MTLS_ENABLED", "0");
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command.envs(environment.iter().map(|(name, value)| (name, value.replace("{port}", &port.to_string()))));
        };
        let http = server::http();
        let ready = async |port: u16| {
            let answer = http.get(format!("http://127.0.0.1:{port}/_ministack/ready")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        };
        Some(Ministack { server: Server::start(folder.join("ministack.log"), arguments, ready).await })
    }

    /// `http://127.0.0.1:PORT`, for every service.
    pub fn endpoint(&self) -> String {
        self.server.url()
    }

    /// Forgets everything, as an emulator does that is started again.
    pub async fn reset(&self) {
        let answer = server::http().post(format!("{}/_ministack/reset", self.endpoint())).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// What it has written so far, what its functions wrote included.
    pub fn log(&self) -> String {
        self.server.log()
    }
}
