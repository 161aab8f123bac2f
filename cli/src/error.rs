//! Why a command could not do its work. Exit status 2.

use pipeline::config::ConfigError;
use pipeline::lake::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}\nOptions win over variables: see `freshet --help`. For a lake that the demo left behind: --local DIR")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Standard output could not be written; the main program forgives a closed pipe.
    #[error("cannot write the output: {0}. Check where it is redirected to")]
    Output(#[from] std::io::Error),
    /// Anything else: a sentence that ends in what to do next.
    #[error("{0}")]
    Stopped(String),
}

impl Error {
    pub(crate) fn stopped(message: impl Into<String>) -> Error {
        Error::Stopped(message.into())
    }
}
