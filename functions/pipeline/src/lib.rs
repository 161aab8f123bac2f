//! What the producer, the consumer and the tools share: the dataset and its records, Kafka's settings, the layout of
//! the lake, configuration and telemetry. No I/O happens here but through [`lake::Store`], [`secret`] and [`aws`].

pub mod aws;
pub mod config;
pub mod dataset;
pub mod datasets;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lake;
pub mod memory;
pub mod record;
pub mod secret;
pub mod telemetry;
