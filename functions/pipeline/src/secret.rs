//! Secrets by reference: from the environment on a laptop, from Secrets Manager or SSM on AWS.

mod parameter;

use aws_config::SdkConfig;

/// Where a secret lies. Debug prints the place, never the value.
#[derive(Clone)]
pub enum Secret {
    Value(String),
    SecretsManager(String),
    Parameter(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Secret::Value(_) => f.write_str("Secret(from the environment)"),
            Secret::SecretsManager(id) => write!(f, "Secret(Secrets Manager, {id})"),
            Secret::Parameter(name) => write!(f, "Secret(SSM, {name})"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read {secret:?}: {reason}. Check that it exists and that the role may read it ({action}, and kms:Decrypt for a key of your own)"
)]
pub struct SecretError {
    secret: Secret,
    reason: String,
    action: &'static str,
}

impl Secret {
    /// `NAME` holds the value itself, `NAME_SECRET` an ARN or name: an SSM parameter (ARN, or a name that begins with `/`),
    /// else a secret of Secrets Manager.
    pub fn read(env: &crate::config::Env, name: &str) -> Option<Secret> {
        if let Some(place) = env.optional(&format!("{name}_SECRET")) {
            return Some(Secret::at(place));
        }
        env.optional(name).map(Secret::Value)
    }

    /// The secret that an ARN or a name points at.
    pub fn at(place: String) -> Secret {
        match place.starts_with('/') || place.contains(":ssm:") {
            true => Secret::Parameter(place),
            false => Secret::SecretsManager(place),
        }
    }

    pub async fn fetch(&self, sdk: &SdkConfig) -> Result<String, SecretError> {
        match self {
            Secret::Value(value) => Ok(value.clone()),
            Secret::SecretsManager(id) => {
                let client = aws_sdk_secretsmanager::Client::new(sdk);
                let answer = client.get_secret_value().secret_id(id).send().await;
                let found = answer.map_err(|e| aws_sdk_s3::error::DisplayErrorContext(e).to_string());
                self.found(found.map(|a| a.secret_string), "secretsmanager:GetSecretValue")
            }
            Secret::Parameter(name) => self.found(parameter::get(sdk, name).await.map(Some), "ssm:GetParameter"),
        }
    }

    fn found(&self, answer: Result<Option<String>, String>, action: &'static str) -> Result<String, SecretError> {
        let error = |reason| SecretError { secret: self.clone(), reason, action };
        answer.map_err(error)?.filter(|value| !value.is_empty()).ok_or_else(|| error("it holds no text".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_secret_is_told_by_its_arn_or_name() {
        assert!(matches!(Secret::at("/freshet/hash-key".into()), Secret::Parameter(_)));
        assert!(matches!(Secret::at("arn:aws:ssm:eu-west-1:1:parameter/k".into()), Secret::Parameter(_)));
        assert!(matches!(Secret::at("arn:aws:secretsmanager:eu-west-1:1:secret:k".into()), Secret::SecretsManager(_)));
        assert!(matches!(Secret::at("freshet-hash-key".into()), Secret::SecretsManager(_)));
    }

    #[test]
    fn a_secret_never_prints_its_value() {
        assert!(!format!("{:?}", Secret::Value("hush".into())).contains("hush"));
    }
}
