//! The consumer's environment.

use pipeline::config::{ConfigError, DatasetChoice, Env, LakeConfig};

pub struct Config {
    pub choice: DatasetChoice,
    pub lake: LakeConfig,
    /// Database and table; `None` leaves the catalog alone.
    pub glue: Option<(String, String)>,
    /// Topic-partitions of an event that are worked on at the same time.
    pub concurrency: usize,
}

impl Config {
    pub fn read(mut env: Env) -> Result<Config, ConfigError> {
        let choice = DatasetChoice::read(&mut env);
        let lake = LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
        let table = env.or("GLUE_TABLE", choice.as_ref().map_or("", |c| &c.dataset.name));
        let glue = env.optional("GLUE_DATABASE").map(|database| (database, table));
        if glue.is_none() && env.optional("GLUE_TABLE").is_some() {
            env.problem("GLUE_DATABASE", "is not set, and GLUE_TABLE is; expected both, or neither for no catalog");
        }
        let concurrency = env.parse("CONSUMER_CONCURRENCY", 4, "a number of partitions, 1 or more");
        if concurrency == 0 {
            env.problem("CONSUMER_CONCURRENCY", "is 0; expected 1 or more");
        }
        match choice {
            Some(choice) => env.finish(Config { choice, lake, glue, concurrency }),
            // The missing dataset is a problem in `env`, so `finish` can only be an error.
            None => Err(env.finish(()).err().unwrap_or(ConfigError(Vec::new()))),
        }
    }
}
