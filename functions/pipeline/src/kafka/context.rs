//! What librdkafka calls back: for a sign-in token, and to log.

use std::error::Error;

use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::MskIam;

/// The context of every client of ours; serves producers, consumers and admin clients.
#[derive(Debug, Clone)]
pub struct KafkaContext {
    iam: Option<MskIam>,
}

impl KafkaContext {
    pub(super) fn new(iam: Option<MskIam>) -> KafkaContext {
        KafkaContext { iam }
    }
}

impl ClientContext for KafkaContext {
    // Only OAUTHBEARER clients are ever asked for a token.
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let iam = self.iam.as_ref().ok_or("this client signs in without a token: please report it")?;
        let token = iam.token().map_err(|e| e.to_string().replace('\0', ""))?;
        tracing::debug!("A token for MSK was made");
        Ok(token)
    }

    /// librdkafka calls a lost connection an error; it reconnects by itself. What it cannot mend fails the delivery or the
    /// request, and is an error there.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, message, "Kafka's client reports trouble"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, message, "Kafka's client reports")
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "Kafka's client reports"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => tracing::error!(
                reason,
                "Kafka refuses the sign-in: check KAFKA_SASL_*, the role's kafka-cluster permissions and the cluster's settings"
            ),
            Some(RDKafkaErrorCode::SSL) => tracing::error!(
                reason,
                "The TLS connection to Kafka failed: check KAFKA_SECURITY_PROTOCOL, the port and KAFKA_SSL_CA_LOCATION"
            ),
            _ => tracing::warn!(reason, %error, "Kafka's client has trouble and tries again"),
        }
    }
}

impl ConsumerContext for KafkaContext {}

/// Sets a client's token. rdkafka's admin client never asks for one (fede1024/rust-rdkafka#757), and there is no safe
/// function that sets it.
#[allow(unsafe_code)]
pub(super) fn set_token<C: ClientContext>(client: &Client<C>, token: OAuthToken) -> Result<(), String> {
    use std::ffi::{CStr, CString};

    let text = CString::new(token.token).map_err(|e| e.to_string())?;
    let principal = CString::new(token.principal_name).map_err(|e| e.to_string())?;
    let mut reason = [0 as std::ffi::c_char; 512];
    // SAFETY: `client` keeps the native client alive during the call, the texts are NUL-terminated and outlive it (they are
    // copied), no extensions are passed, and the reason is written into `reason` with its length, NUL-terminated.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            text.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            std::ptr::null_mut(),
            0,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    if code == rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: `reason` was zeroed, and librdkafka writes within its length and ends with a NUL.
    Err(unsafe { CStr::from_ptr(reason.as_ptr()) }.to_string_lossy().into_owned())
}
