//! The functions' code as `make build` packs it, and the command that ships it.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::server::root;
use super::stack::skip;

/// This machine's, as Lambda names it.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// The folder with this machine's `producer/bootstrap.zip` and `consumer/bootstrap.zip`.
pub fn folder() -> Option<PathBuf> {
    let folder = root().join("target/lambda").join(architecture());
    match ["producer", "consumer"].iter().find(|f| !folder.join(f).join("bootstrap.zip").is_file()) {
        None => Some(folder),
        Some(function) => skip(&format!(
            "the {function}'s zip is not built: run `make build ARCH={}`, which needs cargo-lambda",
            architecture()
        )),
    }
}

/// `cargo lambda deploy` as the README has it, from a folder with `<function>/bootstrap`.
pub async fn deploy(name: &str, function: &str, folder: &Path, endpoint: &str, region: &str) {
    let cargo_lambda = std::env::var_os("CARGO_LAMBDA")
        .map_or_else(|| root().join("target/tools/cargo-lambda/bin/cargo-lambda"), PathBuf::from);
    let mut command = Command::new(cargo_lambda);
    command.args(["lambda", "deploy", name, "--binary-name", function, "--lambda-dir"]).arg(folder);
    command.args(["--region", region, "--endpoint-url", endpoint]);
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test").env_remove("AWS_PROFILE");
    let output = command.current_dir(root()).kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
