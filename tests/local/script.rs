//! `localstack/local.sh` with a `docker` that is only played: what a person is told when something is missing, taken or broken.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::server::{free_port, root};
use crate::support::stack::skip;

/// Answers as Docker and Compose do, writes down what it was asked for, and fails where `FAKE_…` says so.
const DOCKER: &str = r#"#!/bin/sh
echo "$*" >>"$FAKE_LOG"
case "$*" in
'compose version --short') [ -z "$FAKE_NO_COMPOSE" ] && echo "${FAKE_VERSION:-2.40.3}" ;;
info) [ -z "$FAKE_NO_DAEMON" ] ;;
*'config --quiet' | *config | *'config --services') shift; exec "$REAL_COMPOSE" --env-file "$FAKE_ENV" "$@" ;;
'compose ps --services --status running') echo "$FAKE_RUNNING" | tr ' ' '\n' ;;
*'ps --all --format {{.Service}}'*) echo "$FAKE_STATES" | tr ' ' '\n' ;;
'compose up'*) [ -z "$FAKE_SLOW" ] || sleep 30; [ -z "$FAKE_STATES" ] ;;
'compose exec -T event-source freshet'*) echo 'ok  lake'; [ -z "$FAKE_NO_ROWS" ] ;;
'ps --all --quiet --filter label=freshet.function=1') echo "$FAKE_LEFT" | tr ' ' '\n' ;;
'rm --force'*) [ -z "$FAKE_RM_FAILS" ] ;;
*) : ;;
esac
"#;

const RUNS: (&str, &str) = ("FAKE_RUNNING", "console event-source localstack page redpanda");

struct Docker {
    folder: tempfile::TempDir,
}

impl Docker {
    fn new() -> Option<Docker> {
        if !root().join("target/tools/docker-compose").is_file() {
            return skip("docker compose is not there: run `tests/cloud/tools.sh compose`");
        }
        let docker = Docker { folder: tempfile::tempdir().unwrap() };
        let program = docker.path("docker");
        std::fs::write(&program, DOCKER).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        // Ports that nobody of this machine has.
        let ports = ["PAGE_PORT", "KAFKA_PORT", "SCHEMA_REGISTRY_PORT", "KAFKA_UI_PORT", "LOCALSTACK_PORT"];
        let ports: String = ports.iter().map(|name| format!("{name}={}\n", free_port())).collect();
        std::fs::write(docker.path("env"), ports).unwrap();
        Some(docker)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, what: &str, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(root().join("localstack/local.sh"));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.folder.path().display());
        command.arg(what).env_clear().env("PATH", path).env("HOME", self.folder.path());
        command.env("FAKE_LOG", self.path("log")).env("FAKE_ENV", self.path("env"));
        command.env("REAL_COMPOSE", root().join("target/tools/docker-compose")).envs(environment.iter().copied());
        command
    }

    fn run(&self, what: &str, environment: &[(&str, &str)]) -> Output {
        self.command(what, environment).output().unwrap()
    }

    /// What it says as it fails.
    fn refused(&self, what: &str, environment: &[(&str, &str)]) -> String {
        let output = self.run(what, environment);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn asked(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

#[test]
fn up_says_what_is_missing_before_it_builds_anything() {
    let Some(docker) = Docker::new() else { return };
    assert!(docker.refused("up", &[("FAKE_NO_COMPOSE", "1")]).contains("install the plug-in"));
    assert!(
        docker.refused("up", &[("FAKE_VERSION", "2.17.1")]).contains("docker compose is 2.17.1: install 2.24 or later")
    );
    let daemon = docker.refused("up", &[("FAKE_NO_DAEMON", "1")]);
    assert!(daemon.contains("start Docker Desktop") && daemon.contains("DOCKER_SOCKET"), "{daemon}");
    std::fs::write(docker.path("env"), "KAFKA_PORT=ninety\n").unwrap();
    assert!(docker.refused("up", &[]).contains(".env.example"));
    assert!(!docker.asked().contains("compose up"));
    let mut without = docker.command("up", &[]);
    let without = without.env("PATH", bare(docker.folder.path())).output().unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("make demo"), "{without:?}");
}

/// A PATH with all that the script needs, but no docker.
fn bare(folder: &Path) -> std::path::PathBuf {
    let bin = folder.join("bare");
    std::fs::create_dir(&bin).unwrap();
    for program in ["bash", "dirname", "sort", "head", "awk", "grep", "sed"] {
        let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program));
        let found = found.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
    }
    bin
}

#[test]
fn up_names_the_port_that_is_taken_unless_the_stack_itself_has_it() {
    let Some(docker) = Docker::new() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let env = std::fs::read_to_string(docker.path("env")).unwrap();
    std::fs::write(docker.path("env"), format!("{env}KAFKA_UI_PORT={port}\n")).unwrap();
    let message = docker.refused("up", &[]);
    assert!(message.contains(&format!("port {port}, which console wants, is taken")), "{message}");
    assert!(!docker.asked().contains("compose up"));
    // A second `local-up`.
    let again = docker.run("up", &[RUNS]);
    assert!(again.status.success(), "{again:?}");
}

#[test]
fn up_waits_for_records_and_says_where_everything_is() {
    let Some(docker) = Docker::new() else { return };
    let up = docker.run("up", &[RUNS]);
    assert!(up.status.success(), "{up:?}");
    let said = String::from_utf8_lossy(&up.stdout).into_owned();
    let ports = std::fs::read_to_string(docker.path("env")).unwrap();
    for port in ports.lines().map(|line| line.split_once('=').unwrap().1) {
        assert!(said.contains(&format!("localhost:{port}")), "{port} is not in: {said}");
    }
    let asked = docker.asked();
    assert!(asked.contains("compose up --detach --build --wait") && asked.contains("freshet status --wait"), "{asked}");
}

#[test]
fn up_names_the_service_that_failed_and_its_log() {
    let Some(docker) = Docker::new() else { return };
    // Sorted by name, as Compose does it.
    let states = |console, localstack, provision, redpanda| {
        format!(
            "console,{console} event-source,created,,0 localstack,{localstack} provision,{provision} redpanda,{redpanda}"
        )
    };
    let (well, ended) = ("running,healthy,0", "exited,,1");
    for (states, culprit) in [
        (states(well, well, ended, well), "provision has ended with exit status 1"),
        (states("created,,0", well, "created,,0", "restarting,,1"), "redpanda is restarting"),
        (states(well, "running,unhealthy,0", "created,,0", well), "localstack is unhealthy"),
    ] {
        let message = docker.refused("up", &[("FAKE_STATES", &states)]);
        let service = culprit.split(' ').next().unwrap();
        assert!(message.contains(&format!("{culprit}: look into make local-logs SERVICE={service};")), "{message}");
    }
    let message = docker.refused("up", &[("FAKE_NO_ROWS", "1"), RUNS]);
    assert!(message.contains("docs/RUNBOOK.md"), "{message}");
}

#[test]
fn an_interrupted_up_says_that_the_stack_goes_on() {
    let Some(docker) = Docker::new() else { return };
    let script = docker.command("up", &[("FAKE_SLOW", "1")]);
    // As from a terminal: a test that was started in the background ignores the signal, and so would the script.
    let mut command = Command::new("perl");
    command.args(["-e", "$SIG{INT} = 'DEFAULT'; exec @ARGV"]).arg(script.get_program()).args(script.get_args());
    command.env_clear().envs(script.get_envs().filter_map(|(name, value)| Some((name, value?))));
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    while !docker.asked().contains("compose up") {
        std::thread::sleep(Duration::from_millis(20));
    }
    // As a terminal's Ctrl-C: everybody in the foreground gets it.
    Command::new("kill").args(["-INT", "--", &format!("-{}", child.id())]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("make local-down ends it"), "{output:?}");
}

#[test]
fn down_and_reset_leave_no_container_and_down_keeps_the_topic() {
    let Some(docker) = Docker::new() else { return };
    let down = docker.run("down", &[("FAKE_LEFT", "c1 c2")]);
    assert!(down.status.success(), "{down:?}");
    let asked = docker.asked();
    let [stop, remove, end] = ["rm --stop --force --volumes localstack", "rm --force c1 c2", "down --remove-orphans"]
        .map(|call| asked.find(call).unwrap_or_else(|| panic!("{call} is missing: {asked}")));
    assert!(stop < remove && remove < end && !asked.contains("orphans --volumes"), "{asked}");
    // Also where nothing runs, and nothing was left.
    assert!(docker.run("reset", &[]).status.success());
    assert!(docker.asked().contains("--profile * down --remove-orphans --volumes"));
    // A .env that is wrong, and containers that go while they are removed.
    std::fs::write(docker.path("env"), "KAFKA_PORT=ninety\n").unwrap();
    assert!(docker.run("reset", &[("FAKE_LEFT", "c1"), ("FAKE_RM_FAILS", "1")]).status.success());
    assert!(docker.refused("reset", &[("FAKE_NO_DAEMON", "1")]).contains("Docker does not answer"));
}

#[test]
fn what_asks_the_stack_says_when_it_does_not_run() {
    let Some(docker) = Docker::new() else { return };
    for what in ["status", "verify", "invoke"] {
        assert!(docker.refused(what, &[("FAKE_RUNNING", "redpanda console")]).contains("make local-up"), "{what}");
    }
    assert!(docker.refused("query", &[]).contains("SQL='SELECT"));
    let sql = ("SQL", "SELECT 'a  b'");
    assert!(docker.run("query", &[("FAKE_RUNNING", "localstack event-source"), sql]).status.success());
    assert!(docker.asked().contains("exec -T event-source freshet query SELECT 'a  b'"), "{}", docker.asked());
    // The consumer is paused.
    assert!(docker.run("query", &[("FAKE_RUNNING", "localstack"), sql]).status.success());
    assert!(docker.asked().contains("run --rm --no-deps -T event-source query SELECT 'a  b'"), "{}", docker.asked());
    assert!(docker.refused("sideways", &[]).contains("say up, down"));
}
