//! The environment, read once and checked as a whole: every wrong variable is named in one error.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use crate::dataset::{Dataset, check_prefix};
use crate::datasets;
use crate::lake::REPLAYS;

#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n{}\ndocs/CONFIGURATION.md explains each variable", .0.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Reads variables and collects what is wrong with them. An empty variable counts as absent.
pub struct Env {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

impl Env {
    /// The environment of this process.
    pub fn of_process() -> Env {
        // A variable that is not UTF-8 cannot be one of ours.
        let text =
            |(k, v): (std::ffi::OsString, std::ffi::OsString)| Some((k.into_string().ok()?, v.into_string().ok()?));
        Env::new(std::env::vars_os().filter_map(text))
    }

    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Env {
        let variables = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Env { variables, problems: Vec::new() }
    }

    /// Whether this process runs inside Lambda, or something that hosts functions as Lambda does. The runtime library would
    /// panic elsewhere.
    pub fn require_lambda(&self) -> Result<(), ConfigError> {
        let needed = ["RUNTIME_API", "FUNCTION_NAME", "FUNCTION_MEMORY_SIZE", "FUNCTION_VERSION"];
        let missing =
            needed.map(|name| format!("AWS_LAMBDA_{name}")).into_iter().find(|name| self.optional(name).is_none());
        match missing {
            None => Ok(()),
            Some(name) => Err(ConfigError(vec![format!(
                "{name} is not set: this program runs inside AWS Lambda, `cargo lambda watch` or `make demo`"
            )])),
        }
    }

    pub fn optional(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    pub fn or(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    /// The variable's value; where it is absent, a problem and an empty text.
    pub fn required(&mut self, name: &str, expected: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.problem(name, format!("is not set; expected {expected}"));
            String::new()
        })
    }

    /// Parses a variable; `expected` says in words what would have been right, with its unit.
    pub fn parse<T: FromStr>(&mut self, name: &str, default: T, expected: &str) -> T {
        match self.optional(name).map(|text| text.parse().map_err(|_| text)) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(text)) => {
                self.problem(name, format!("is `{text}`; expected {expected}"));
                default
            }
        }
    }

    pub fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parse(name, default, "true or false")
    }

    pub fn problem(&mut self, name: &str, problem: impl Display) {
        self.problems.push(format!("{name} {problem}"));
    }

    /// What was built from the variables, unless one of them was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError(self.problems)) }
    }
}

/// The dataset that `DATASET` names (default `names`), and whether the deployed definition is the embedded one.
pub struct DatasetChoice {
    pub dataset: Dataset,
    /// `DATASET_SHA256` is set by the deployment and differs from the embedded file: old code runs with a new definition,
    /// or the other way round.
    pub mismatch: bool,
}

impl DatasetChoice {
    /// `None` only together with a problem in `env`.
    pub fn read(env: &mut Env) -> Option<DatasetChoice> {
        match datasets::load(&env.or("DATASET", "names")) {
            Ok(dataset) => {
                let deployed = env.optional("DATASET_SHA256");
                let mismatch = deployed.is_some_and(|sha256| sha256 != dataset.sha256);
                Some(DatasetChoice { dataset, mismatch })
            }
            Err(error) => {
                env.problem("DATASET", format!("cannot be used: {error}"));
                None
            }
        }
    }
}

/// The bucket and the prefixes of one lake.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    pub bucket: String,
    /// Prefix of the data objects: `S3_OUTPUT_PREFIX`, else the dataset's.
    pub prefix: String,
    /// Prefix of the ledgers: `S3_CHECKPOINT_PREFIX`, else `_ledger`.
    pub ledger_prefix: String,
    pub s3: S3Config,
}

/// How S3 is reached. Credentials come from the ordinary chain.
#[derive(Debug, Clone, Default)]
pub struct S3Config {
    pub region: Option<String>,
    pub endpoint: Option<String>,
    pub path_style: bool,
}

impl LakeConfig {
    pub fn read(env: &mut Env, dataset: Option<&Dataset>) -> LakeConfig {
        let default_prefix = dataset.map_or("", |d| d.lake.prefix.as_str());
        let prefix = env.or("S3_OUTPUT_PREFIX", default_prefix);
        let prefix = prefix.trim_end_matches('/').to_owned();
        if dataset.is_some()
            && let Err(reason) = check_prefix(&prefix)
        {
            env.problem("S3_OUTPUT_PREFIX", format!("is wrong: {reason}"));
        }
        let ledger_prefix = env.or("S3_CHECKPOINT_PREFIX", "_ledger").trim_end_matches('/').to_owned();
        // Neither among the table's files, nor where a lifecycle rule deletes, nor among what replays keep.
        let beside = [format!("{prefix}/"), format!("{prefix}_dead_letters/"), REPLAYS.to_owned()];
        if ledger_prefix.is_empty() || beside.iter().any(|taken| format!("{ledger_prefix}/").starts_with(taken)) {
            let reason = format!(
                "is `{ledger_prefix}`, inside `{prefix}`, its dead letters or `_replay`; expected a prefix beside them"
            );
            env.problem("S3_CHECKPOINT_PREFIX", reason);
        }
        LakeConfig {
            bucket: env.required("S3_BUCKET", "the name of the lake's bucket"),
            prefix,
            ledger_prefix,
            s3: S3Config {
                region: env.optional("S3_REGION"),
                endpoint: env.optional("S3_ENDPOINT"),
                path_style: env.flag("S3_PATH_STYLE_ACCESS", false),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn every_wrong_variable_is_named_in_one_error_with_what_was_expected() {
        let mut env = env(&[("DATASET", "nope"), ("S3_PATH_STYLE_ACCESS", "yes"), ("S3_OUTPUT_PREFIX", "")]);
        let choice = DatasetChoice::read(&mut env);
        LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
        let message = env.finish(()).unwrap_err().to_string();
        for part in [
            "DATASET cannot be used: no dataset is named `nope`",
            "S3_BUCKET is not set",
            "S3_PATH_STYLE_ACCESS is `yes`; expected true or false",
        ] {
            assert!(message.contains(part), "{part} is not in\n{message}");
        }
    }

    #[test]
    fn ledgers_inside_the_tables_prefix_or_among_replays_are_refused() {
        for prefix in ["names/_ledger", "_replay"] {
            let mut env = env(&[("S3_BUCKET", "b"), ("S3_CHECKPOINT_PREFIX", prefix)]);
            let choice = DatasetChoice::read(&mut env);
            LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
            assert!(env.finish(()).unwrap_err().to_string().contains("S3_CHECKPOINT_PREFIX"));
        }
    }
}
