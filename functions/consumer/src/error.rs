//! Why a batch failed. Each message ends in what to do; Kafka keeps the records meanwhile.

use pipeline::lake::{Ledger, StoreError};

use crate::catalog::CatalogError;
use crate::encode::EncodeError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the event is refused: {0}. The consumer takes events of Lambda's Kafka event source for its dataset's topic; check what invokes it"
    )]
    Event(String),
    /// Going on could lose or double records. Kafka keeps them until an operator has acted.
    #[error("{topic}-{partition} is stopped: {reason}. {cure}")]
    Stopped { topic: String, partition: i32, reason: String, cure: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error(
        "the function's time is nearly up: what is stored stays, the retry goes on behind it. If this repeats, raise the function's timeout or lower the event source's batch size"
    )]
    OutOfTime,
}

impl Error {
    /// Stops the topic-partition of a ledger.
    pub fn stopped(ledger: &Ledger, reason: String, cure: String) -> Error {
        Error::Stopped { topic: ledger.topic.clone(), partition: ledger.partition, reason, cure }
    }
}

/// What Lambda shows for a failed invocation: `errorType` for alarms and filters, `errorMessage` for people.
impl From<Error> for lambda_runtime::Diagnostic {
    fn from(error: Error) -> lambda_runtime::Diagnostic {
        let error_type = match error {
            Error::Event(_) => "Event",
            Error::Stopped { .. } => "Stopped",
            Error::Store(_) => "Store",
            Error::Catalog(_) => "Catalog",
            Error::Encode(_) => "Encode",
            Error::OutOfTime => "OutOfTime",
        };
        lambda_runtime::Diagnostic { error_type: error_type.to_owned(), error_message: error.to_string() }
    }
}
