//! `infra/` applied from a copy of its own, with a state of its own.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::server::root;
use super::stack::skip;

/// A provider waits for ever for a bucket that an emulator cannot empty.
const PATIENCE: Duration = Duration::from_secs(600);

pub struct Terraform {
    /// The copy of `infra/`, beside one of `datasets/`.
    folder: PathBuf,
}

impl Terraform {
    /// Copies `infra/` into `folder`, writes the variables, and initialises it. `None`, loudly, where Terraform or its provider is not to
    /// be had.
    pub async fn init(folder: &Path, variables: &Value) -> Option<Terraform> {
        let root = root();
        let terraform = Terraform { folder: folder.join("infra") };
        copy(&root.join("infra"), &terraform.folder).unwrap();
        let text = serde_json::to_string_pretty(variables).unwrap();
        std::fs::write(terraform.folder.join("test.auto.tfvars.json"), text).unwrap();
        let init = Command::new(root.join("infra/init.sh")).env("TERRAFORM_FOLDER", &terraform.folder).output().await;
        let init = init.unwrap();
        if !init.status.success() {
            return skip(&format!("terraform cannot be initialised: {}", String::from_utf8_lossy(&init.stderr).trim()));
        }
        Some(terraform)
    }

    /// Writes one variable over those of [`Terraform::init`].
    pub fn set(&self, name: &str, value: &Value) {
        // Files are read in the order of their names, and later ones win.
        let file = self.folder.join(format!("zz-{name}.auto.tfvars.json"));
        std::fs::write(file, serde_json::json!({ name: value }).to_string()).unwrap();
    }

    pub async fn apply(&self) {
        self.succeed(&["apply", "-auto-approve", "-input=false", "-no-color"]).await;
    }

    pub async fn destroy(&self) {
        self.succeed(&["destroy", "-auto-approve", "-input=false", "-no-color"]).await;
    }

    /// Panics with the plan, unless it is empty. Returns it as JSON.
    pub async fn plan_is_empty(&self) -> Value {
        let plan = self.run(&["plan", "-detailed-exitcode", "-input=false", "-no-color", "-out=plan"]).await;
        assert_eq!(plan.status.code(), Some(0), "the plan is not empty:\n{}", text(&plan));
        serde_json::from_slice(&self.succeed(&["show", "-json", "plan"]).await.stdout).unwrap()
    }

    pub async fn outputs(&self) -> Value {
        serde_json::from_slice(&self.succeed(&["output", "-json"]).await.stdout).unwrap()
    }

    /// The state as Terraform shows it, one entry a resource instance, modules included.
    pub async fn resources(&self) -> Vec<Value> {
        let shown: Value = serde_json::from_slice(&self.succeed(&["show", "-json"]).await.stdout).unwrap();
        let mut resources = Vec::new();
        collect(&shown["values"]["root_module"], &mut resources);
        resources
    }

    /// The state file itself.
    pub fn state(&self) -> String {
        std::fs::read_to_string(self.folder.join("terraform.tfstate")).unwrap()
    }

    async fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "terraform {arguments:?} failed:\n{}", text(&output));
        output
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("terraform");
        command.arg(format!("-chdir={}", self.folder.display())).args(arguments);
        // No account can be reached by mistake, and no configuration of the machine is read.
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"] {
            command.env_remove(name);
        }
        command
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("TF_CLI_CONFIG_FILE", "/dev/null");
        let run = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
        run.unwrap_or_else(|_| panic!("terraform {arguments:?} did not end within {PATIENCE:?}")).unwrap()
    }
}

fn collect(module: &Value, resources: &mut Vec<Value>) {
    let empty = Vec::new();
    resources.extend(module["resources"].as_array().unwrap_or(&empty).iter().cloned());
    for child in module["child_modules"].as_array().unwrap_or(&empty) {
        collect(child, resources);
    }
}

fn text(output: &Output) -> String {
    // The end says what is wrong; the beginning is the plan.
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    let lines: Vec<_> = both.lines().collect();
    lines[lines.len().saturating_sub(80)..].join("\n")
}

/// Without what an earlier `terraform` or a person left there.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let left_behind =
            name == ".terraform" || name.contains(".tfstate") || name.contains(".tfvars") || name == "tests";
        match entry.file_type()? {
            _ if left_behind => {}
            kind if kind.is_dir() => copy(&entry.path(), &to.join(&name))?,
            _ => drop(std::fs::copy(entry.path(), to.join(&name))?),
        }
    }
    Ok(())
}
