//! docker-compose.yaml as the real `docker compose` reads it, and its services as processes of this machine.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::{Child, Command};

use super::server::root;
use super::stack::skip;

/// The file, with every profile, and with these variables in the place of `.env`.
pub struct Compose {
    pub config: Value,
}

impl Compose {
    /// `None`, loudly, where there is no `docker compose`, which `tests/cloud/tools.sh compose` fetches.
    pub async fn read(variables: &[(&str, &str)]) -> Option<Compose> {
        let program = root().join("target/tools/docker-compose");
        if !program.is_file() {
            return skip("docker compose is not there: run `tests/cloud/tools.sh compose`");
        }
        let mut command = Command::new(program);
        // Nothing of this machine: neither its .env nor its variables.
        command.args(["--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"]).current_dir(root());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", "/nobody");
        let output = command.envs(variables.iter().copied()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "docker compose warns");
        Some(Compose { config: serde_json::from_slice(&output.stdout).unwrap() })
    }

    pub fn services(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.config["services"].as_object().unwrap().iter()
    }

    pub fn service(&self, name: &str) -> &Value {
        let service = &self.config["services"][name];
        assert!(service.is_object(), "docker-compose.yaml has no service {name}");
        service
    }
}

/// Where things are on this machine that are elsewhere in a container: each first text is replaced by the second.
pub struct Places<'a> {
    pub names: Vec<(&'a str, String)>,
    pub freshet: &'a Path,
}

impl Places<'_> {
    fn here(&self, text: &str) -> String {
        // `$$` is Compose's way to write `$`.
        self.names.iter().fold(text.replace("$$", "$"), |text, (there, here)| text.replace(there, here))
    }

    fn environment(&self, service: &Value) -> Vec<(String, String)> {
        let pairs = service["environment"].as_object().into_iter().flatten();
        pairs.filter_map(|(name, value)| Some((name.clone(), self.here(value.as_str()?)))).collect()
    }

    /// The program that the service's image has as its entry point, with the service's environment and nothing else.
    pub fn command(&self, service: &Value, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.freshet);
        command.args(arguments).current_dir(root()).env_clear().envs(self.environment(service));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn arguments(&self, service: &Value) -> Vec<String> {
        service["command"].as_array().unwrap().iter().map(|word| self.here(word.as_str().unwrap())).collect()
    }

    /// The service as it is, its output in `log`.
    pub fn start(&self, service: &Value, log: &Path) -> Child {
        let arguments = self.arguments(service);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = std::fs::File::create(log).unwrap();
        let mut command = self.command(service, &arguments);
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// A service whose command is a program of its own, to its end.
    pub async fn run(&self, service: &Value, environment: &[(&str, &str)]) -> Output {
        let arguments = self.arguments(service);
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).current_dir(root()).env_clear().envs(self.environment(service));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null()).kill_on_drop(true);
        command.envs(environment.iter().copied()).output().await.unwrap()
    }

    /// What the service's health check says.
    pub async fn is_healthy(&self, service: &Value) -> bool {
        let test: Vec<String> =
            service["healthcheck"]["test"].as_array().unwrap().iter().map(|w| self.here(w.as_str().unwrap())).collect();
        let mut command = match test[0].as_str() {
            "CMD" => Command::new(&test[1]),
            "CMD-SHELL" => Command::new("/bin/sh"),
            other => panic!("what is a health check of the kind {other}?"),
        };
        match test[0].as_str() {
            "CMD" => command.args(&test[2..]),
            _ => command.args(["-c", &test[1]]),
        };
        command.output().await.unwrap().status.success()
    }

    /// Waits until its health check is content, and says how it ended where it ended before.
    pub async fn until_healthy(&self, service: &Value, child: &mut Child, log: &Path) {
        for _ in 0..600 {
            if self.is_healthy(service).await {
                return;
            }
            let text = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "ended before it was healthy:\n{}", text());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("not healthy within a minute:\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
}
