//! How Kafka is reached: brokers, TLS and SASL by configuration.
//!
//! [`KafkaSettings::read`] checks the environment, [`KafkaSettings::resolve`] fetches a secret where one is named, and the
//! [`KafkaConfig`] that comes of it makes clients: `config.client_config().create_with_context(config.context())`.

mod context;
mod msk_iam;

use std::fmt::Debug;

use aws_config::SdkConfig;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaError;

pub use context::KafkaContext;
pub use msk_iam::{MskIam, TokenError};

use crate::config::Env;
use crate::secret::{Secret, SecretError};

/// What `KAFKA_*` say, checked together.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    brokers: String,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
}

#[derive(Debug, Clone)]
struct Tls {
    ca_location: String,
}

#[derive(Debug, Clone)]
enum Sasl {
    Password { mechanism: &'static str, credentials: Credentials },
    MskIam,
}

#[derive(Clone)]
enum Credentials {
    Here(UserAndPassword),
    /// `{"username": …, "password": …}`, the form that MSK prescribes for SCRAM.
    Secret(Secret),
}

#[derive(Clone, serde::Deserialize)]
struct UserAndPassword {
    username: String,
    password: String,
}

impl Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Here(pair) => write!(f, "{} with a password", pair.username),
            Credentials::Secret(secret) => secret.fmt(f),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "the secret that KAFKA_SASL_CREDENTIALS_SECRET names is not of the form {{\"username\": \"…\", \"password\": \"…\"}}: correct it"
    )]
    SecretForm,
    #[error("MSK's IAM sign-in needs the cluster's region: set AWS_REGION")]
    NoRegion,
    #[error("Kafka refuses the sign-in token: {0}. Check that this build has the feature `tls`")]
    Refused(String),
    #[error(transparent)]
    Token(#[from] TokenError),
}

const PROTOCOLS: &str = "plaintext, ssl, sasl_plaintext or sasl_ssl";
const MECHANISMS: &str = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or AWS_MSK_IAM";

impl KafkaSettings {
    /// Reads `KAFKA_BOOTSTRAP_SERVERS`, `KAFKA_SECURITY_PROTOCOL`, `KAFKA_SASL_*` and `KAFKA_SSL_CA_LOCATION`. What is wrong
    /// is a problem in `env`; the value is of use only without one.
    pub fn read(env: &mut Env) -> KafkaSettings {
        KafkaSettings::read_for_build(env, cfg!(feature = "tls"))
    }

    fn read_for_build(env: &mut Env, build_has_tls: bool) -> KafkaSettings {
        let brokers = env.required("KAFKA_BOOTSTRAP_SERVERS", "the brokers as host:port,host:port");
        let protocol = env.or("KAFKA_SECURITY_PROTOCOL", "plaintext").to_lowercase();
        let (tls, sasl) = match protocol.as_str() {
            "plaintext" => (false, false),
            "ssl" => (true, false),
            "sasl_plaintext" => (false, true),
            "sasl_ssl" => (true, true),
            other => {
                env.problem("KAFKA_SECURITY_PROTOCOL", format!("is `{other}`; expected {PROTOCOLS}"));
                return KafkaSettings { brokers, tls: None, sasl: None };
            }
        };
        let sasl = read_sasl(env, &protocol, sasl);
        if matches!(sasl, Some(Sasl::MskIam)) && !tls {
            env.problem("KAFKA_SECURITY_PROTOCOL", format!("is `{protocol}`; MSK's IAM sign-in expects sasl_ssl"));
        }
        // SCRAM and OAUTHBEARER live in OpenSSL too; PLAIN does not.
        let needs_tls = tls
            || matches!(sasl, Some(Sasl::MskIam | Sasl::Password { mechanism: "SCRAM-SHA-256" | "SCRAM-SHA-512", .. }));
        if needs_tls && !build_has_tls {
            let name = if tls { "KAFKA_SECURITY_PROTOCOL" } else { "KAFKA_SASL_MECHANISM" };
            env.problem(
                name,
                "asks for TLS or SCRAM, and this program was built without: build it with `--features tls`",
            );
        }
        let tls = tls.then(|| Tls { ca_location: env.or("KAFKA_SSL_CA_LOCATION", "probe") });
        KafkaSettings { brokers, tls, sasl }
    }

    /// Fetches the credentials from Secrets Manager where a secret is named; asks AWS for nothing otherwise.
    pub async fn resolve(&self, sdk: &SdkConfig) -> Result<KafkaConfig, SignInError> {
        let mut config = KafkaConfig { properties: Vec::new(), iam: None };
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "freshet");
        // Brokers and NAT gateways close idle connections: no event.
        config.set("log.connection.close", "false");
        config.set("socket.keepalive.enable", "true");
        config.set("reconnect.backoff.max.ms", "2000");
        // A topic that a broker makes up has none of the settings that the pipeline rests on.
        config.set("allow.auto.create.topics", "false");
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            // Always set: a vendored OpenSSL would look for certificates where none are.
            config.set("ssl.ca.location", &tls.ca_location);
        }
        match &self.sasl {
            None => {}
            Some(Sasl::Password { mechanism, credentials }) => {
                let pair = match credentials {
                    Credentials::Here(pair) => pair.clone(),
                    Credentials::Secret(secret) => {
                        let text = secret.fetch(sdk).await?;
                        // The parser's error could quote the secret.
                        serde_json::from_str(&text).map_err(|_| SignInError::SecretForm)?
                    }
                };
                config.set("sasl.mechanism", mechanism);
                config.set("sasl.username", &pair.username);
                config.set("sasl.password", &pair.password);
            }
            Some(Sasl::MskIam) => {
                let region = sdk.region().ok_or(SignInError::NoRegion)?;
                config.set("sasl.mechanism", "OAUTHBEARER");
                config.iam = Some(MskIam::new(region.to_string()));
            }
        }
        Ok(config)
    }
}

fn read_sasl(env: &mut Env, protocol: &str, expected: bool) -> Option<Sasl> {
    const NAMES: [&str; 4] =
        ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SASL_CREDENTIALS_SECRET"];
    if !expected {
        let problem =
            format!("is set, but KAFKA_SECURITY_PROTOCOL is `{protocol}`; expected sasl_ssl or sasl_plaintext there");
        refuse(env, &NAMES, &problem);
        return None;
    }
    let mechanism = env.required("KAFKA_SASL_MECHANISM", MECHANISMS);
    let mechanism = match mechanism.as_str() {
        "PLAIN" => "PLAIN",
        "SCRAM-SHA-256" => "SCRAM-SHA-256",
        "SCRAM-SHA-512" => "SCRAM-SHA-512",
        "AWS_MSK_IAM" => {
            let problem =
                "is set, but AWS_MSK_IAM signs in with the role; expected it unset, or another KAFKA_SASL_MECHANISM";
            refuse(env, &NAMES[1..], problem);
            return Some(Sasl::MskIam);
        }
        "" => return None,
        other => {
            env.problem("KAFKA_SASL_MECHANISM", format!("is `{other}`; expected {MECHANISMS}"));
            return None;
        }
    };
    let credentials = match env.optional("KAFKA_SASL_CREDENTIALS_SECRET") {
        Some(place) => {
            let problem = "is set beside KAFKA_SASL_CREDENTIALS_SECRET; expected one or the other";
            refuse(env, &["KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"], problem);
            Credentials::Secret(Secret::at(place))
        }
        None => {
            let username = env.required("KAFKA_SASL_USERNAME", "the user, or KAFKA_SASL_CREDENTIALS_SECRET");
            let password = env.required("KAFKA_SASL_PASSWORD", "the password, or KAFKA_SASL_CREDENTIALS_SECRET");
            Credentials::Here(UserAndPassword { username, password })
        }
    };
    Some(Sasl::Password { mechanism, credentials })
}

/// Each of these variables that is set is a problem.
fn refuse(env: &mut Env, names: &[&str], problem: &str) {
    for name in names {
        if env.optional(name).is_some() {
            env.problem(name, problem);
        }
    }
}

/// All that a client needs to reach and enter the cluster.
#[derive(Clone)]
pub struct KafkaConfig {
    properties: Vec<(&'static str, String)>,
    iam: Option<MskIam>,
}

impl Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.properties.iter().filter(|(name, _)| *name != "sasl.password");
        f.debug_map().entries(shown.map(|(name, value)| (name, value))).finish_non_exhaustive()
    }
}

impl KafkaConfig {
    fn set(&mut self, name: &'static str, value: &str) {
        self.properties.push((name, value.to_owned()));
    }

    /// Settings for librdkafka; add what the client at hand needs. Make the client with [`KafkaConfig::context`].
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(*name, value);
        }
        config
    }

    /// Signs in to MSK where that is asked for, and brings librdkafka's messages into our log.
    pub fn context(&self) -> KafkaContext {
        KafkaContext::new(self.iam.clone())
    }

    /// A client that makes and describes topics, signed in. Blocks shortly for MSK's IAM sign-in.
    pub fn admin(&self) -> Result<AdminClient<KafkaContext>, AdminError> {
        let admin = self.client_config().create_with_context::<_, AdminClient<_>>(self.context())?;
        self.sign_in(admin.inner())?;
        Ok(admin)
    }

    /// Gives a client its first IAM token at once; does nothing for other sign-ins. Producers and consumers fetch theirs
    /// when they are polled; a client that is never polled, or asked for metadata before it is, needs this. Blocks shortly.
    pub fn sign_in<C: ClientContext>(&self, client: &Client<C>) -> Result<(), SignInError> {
        match &self.iam {
            Some(iam) => context::set_token(client, iam.token()?).map_err(SignInError::Refused),
            None => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("cannot make a Kafka client: {0}. Check the KAFKA_* variables")]
    Client(#[from] KafkaError),
    #[error(transparent)]
    SignIn(#[from] SignInError),
}

#[cfg(test)]
mod tests;
