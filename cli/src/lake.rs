//! Which lake a command works on: options over environment, or a folder that the demo left behind.

use std::path::{Path, PathBuf};

use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use clap::Args;
use localstack::glue::GlueServer;
use localstack::s3::S3Server;
use localstack::stack::{BUCKET, DATABASE};
use pipeline::config::{DatasetChoice, Env, LakeConfig};
use pipeline::dataset::Dataset;
use pipeline::lake::{Layout, S3Store};

use crate::Error;
use crate::catalog::Catalog;

/// An option that is absent leaves its environment variable in force; the same names and rules as in the functions.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The lake")]
pub struct LakeArgs {
    /// Dataset: one of this build, or the path of a .yaml file [env: DATASET] [default: names]
    #[arg(long, global = true, value_name = "NAME|FILE.yaml")]
    pub dataset: Option<String>,
    /// Read a lake that the demo left in this folder, without AWS
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["bucket", "region", "endpoint", "path_style"])]
    pub local: Option<PathBuf>,
    /// Bucket of the lake [env: S3_BUCKET]
    #[arg(long, global = true)]
    pub bucket: Option<String>,
    /// Prefix of the data objects [env: S3_OUTPUT_PREFIX] [default: the dataset's]
    #[arg(long, global = true)]
    pub prefix: Option<String>,
    /// Prefix of the ledgers [env: S3_CHECKPOINT_PREFIX] [default: _ledger]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub checkpoint_prefix: Option<String>,
    /// Region of the bucket [env: S3_REGION] [default: the profile's]
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// URL of another S3 than AWS's [env: S3_ENDPOINT]
    #[arg(long, global = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Put the bucket into the path, as most other S3s want it [env: S3_PATH_STYLE_ACCESS]
    #[arg(long, global = true)]
    pub path_style: bool,
    /// Glue database of the table; without it the catalog is left alone [env: GLUE_DATABASE]
    #[arg(long, global = true, value_name = "NAME")]
    pub glue_database: Option<String>,
    /// Glue table [env: GLUE_TABLE] [default: the dataset's name]
    #[arg(long, global = true, value_name = "NAME")]
    pub glue_table: Option<String>,
}

impl LakeArgs {
    /// The dataset's name or path, for commands that need not know what is in it.
    pub fn dataset_name(&self) -> String {
        let dataset = self.dataset.clone().or_else(|| std::env::var("DATASET").ok());
        dataset.filter(|name| !name.is_empty()).unwrap_or_else(|| "names".to_owned())
    }

    /// The dataset itself.
    pub fn dataset(&self) -> Result<Dataset, Error> {
        pipeline::datasets::load(&self.dataset_name()).map_err(|e| Error::stopped(e.to_string()))
    }

    /// The environment with the options laid over it.
    fn over(&self, environment: impl IntoIterator<Item = (String, String)>) -> Env {
        let options = [
            ("DATASET", &self.dataset),
            ("S3_BUCKET", &self.bucket),
            ("S3_OUTPUT_PREFIX", &self.prefix),
            ("S3_CHECKPOINT_PREFIX", &self.checkpoint_prefix),
            ("S3_REGION", &self.region),
            ("S3_ENDPOINT", &self.endpoint),
            ("GLUE_DATABASE", &self.glue_database),
            ("GLUE_TABLE", &self.glue_table),
        ];
        let given = options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let path_style = self.path_style.then(|| ("S3_PATH_STYLE_ACCESS".to_owned(), "true".to_owned()));
        Env::new(environment.into_iter().chain(given).chain(path_style))
    }
}

/// What a lake is called and how it is laid out: all that checks and ledgers need to know of it.
#[derive(Debug, Clone)]
pub struct Target {
    pub bucket: String,
    pub layout: Layout,
    pub dataset: String,
    pub topic: String,
    /// File extension of the data objects by the dataset file.
    pub extension: String,
}

impl Target {
    pub fn new(dataset: &Dataset, config: &LakeConfig) -> Target {
        Target {
            bucket: config.bucket.clone(),
            layout: Layout { prefix: config.prefix.clone(), ledger_prefix: config.ledger_prefix.clone() },
            dataset: dataset.name.clone(),
            topic: dataset.topic.name.clone(),
            extension: dataset.lake.format.extension().to_owned(),
        }
    }
}

/// One lake, opened. The lake in a folder has its objects in `DIR/s3` and its catalog in `DIR/catalog.json`, as the stack of
/// the crate `localstack` leaves them.
pub struct Lake {
    pub dataset: Dataset,
    pub target: Target,
    pub sdk: SdkConfig,
    pub client: aws_sdk_s3::Client,
    pub catalog: Option<Catalog>,
    // The embedded servers of a lake in a folder; they stop when the lake is dropped.
    servers: Option<Servers>,
}

struct Servers {
    s3: S3Server,
    glue: Option<GlueServer>,
}

impl Lake {
    /// A lake by configuration that was read already.
    pub fn new(dataset: Dataset, config: &LakeConfig, sdk: SdkConfig, catalog: Option<Catalog>) -> Lake {
        let client = pipeline::aws::s3(&sdk, &config.s3);
        Lake { target: Target::new(&dataset, config), dataset, sdk, client, catalog, servers: None }
    }

    /// The lake that the options and the environment name.
    pub async fn open(args: &LakeArgs) -> Result<Lake, Error> {
        // A variable that is not UTF-8 cannot be one of ours.
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut env = match &args.local {
            None => args.over(environment),
            // A folder is reached by its own servers, whatever the environment says of S3.
            Some(_) => {
                let local = [("S3_BUCKET", BUCKET), ("S3_REGION", "us-east-1"), ("S3_PATH_STYLE_ACCESS", "true")];
                let others = environment.filter(|(name, _)| name != "S3_ENDPOINT" && name != "GLUE_DATABASE");
                args.over(others.chain(local.map(|(k, v)| (k.to_owned(), v.to_owned()))))
            }
        };
        let choice = DatasetChoice::read(&mut env);
        let mut config = LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
        let database = env.optional("GLUE_DATABASE");
        let table = env.optional("GLUE_TABLE");
        let choice = env.finish(choice)?;
        // `finish` has answered with the problem that goes with a missing dataset.
        let Some(DatasetChoice { dataset, .. }) = choice else {
            return Err(Error::stopped("no dataset: set --dataset"));
        };
        let table = table.unwrap_or_else(|| dataset.name.clone());

        let Some(folder) = &args.local else {
            let sdk = pipeline::aws::loader().load().await;
            let catalog = database.map(|database| Catalog { client: aws_sdk_glue::Client::new(&sdk), database, table });
            return Ok(Lake::new(dataset, &config, sdk, catalog));
        };
        let servers = Servers::start(folder).await?;
        let sdk = servers.sdk().await;
        config.s3.endpoint = Some(servers.s3.endpoint());
        let catalog = servers.glue.as_ref().map(|glue| {
            let glue = aws_sdk_glue::config::Builder::from(&sdk).endpoint_url(glue.endpoint()).build();
            let database = database.unwrap_or_else(|| DATABASE.to_owned());
            Catalog { client: aws_sdk_glue::Client::from_conf(glue), database, table }
        });
        Ok(Lake { servers: Some(servers), ..Lake::new(dataset, &config, sdk, catalog) })
    }

    pub fn store(&self) -> S3Store {
        S3Store::new(self.client.clone(), &self.target.bucket)
    }

    /// Whether this lake lies in a folder and is read through the embedded servers.
    pub fn is_local(&self) -> bool {
        self.servers.is_some()
    }
}

impl Servers {
    async fn start(folder: &Path) -> Result<Servers, Error> {
        let objects = folder.join("s3");
        if !objects.join(BUCKET).is_dir() {
            let found = objects.join(BUCKET).display().to_string();
            return Err(Error::stopped(format!(
                "{found} is no folder, so {} holds no lake: give the folder that the last lines of `make demo` name",
                folder.display()
            )));
        }
        let s3 = S3Server::start(&objects, BUCKET).await.map_err(|e| Error::stopped(e.to_string()))?;
        let file = folder.join("catalog.json");
        let glue = match file.is_file() {
            true => Some(GlueServer::start(&file).await.map_err(|e| Error::stopped(e.to_string()))?),
            false => None,
        };
        Ok(Servers { s3, glue })
    }

    async fn sdk(&self) -> SdkConfig {
        let credentials = Credentials::new(self.s3.access_key(), self.s3.secret_key(), None, None, "embedded");
        pipeline::aws::loader().region(Region::from_static("us-east-1")).credentials_provider(credentials).load().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn options_win_over_the_environment_and_absent_ones_leave_it() {
        let args = LakeArgs { bucket: Some("mine".into()), path_style: true, ..LakeArgs::default() };
        let mut env = args.over(variables(&[
            ("S3_BUCKET", "theirs"),
            ("S3_OUTPUT_PREFIX", "people/"),
            ("S3_REGION", "eu-west-1"),
        ]));
        let choice = DatasetChoice::read(&mut env);
        let config = LakeConfig::read(&mut env, choice.as_ref().map(|c| &c.dataset));
        env.finish(()).unwrap();
        assert_eq!((config.bucket.as_str(), config.prefix.as_str()), ("mine", "people"));
        assert_eq!((config.s3.region.as_deref(), config.s3.path_style), (Some("eu-west-1"), true));
    }

    #[tokio::test]
    async fn a_folder_without_a_lake_is_refused_with_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let args = LakeArgs { local: Some(folder.path().to_owned()), ..LakeArgs::default() };
        let message = Lake::open(&args).await.err().unwrap().to_string();
        assert!(message.contains("holds no lake") && message.contains("make demo"), "{message}");
    }
}
