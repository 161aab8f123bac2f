// A test may unwrap; what it tests is linted when it is compiled without it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod api;
pub mod broker;
pub mod event_source;
pub mod glue;
pub mod process;
pub mod runtime;
pub mod s3;
pub mod s3_gateway;
pub mod schedule;
pub mod server;
pub mod stack;
