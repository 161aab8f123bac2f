//! What the tests share.

pub mod aws_api;
pub mod browser;
pub mod compose;
pub mod events;
pub mod fault_proxy;
pub mod gaps;
pub mod iam;
pub mod kafka;
pub mod localstack;
pub mod memory_store;
pub mod ministack;
pub mod people;
pub mod recorder;
pub mod rows;
pub mod server;
pub mod stack;
pub mod terraform;
pub mod trino;
pub mod zips;
