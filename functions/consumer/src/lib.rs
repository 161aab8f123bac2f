//! Topic → lake. [`handler`] is the whole way of a batch, top to bottom; the other files are its parts.

pub mod catalog;
pub mod config;
pub mod decode;
pub mod encode;
pub mod error;
pub mod event;
pub mod handler;
pub mod ledger;
mod plain;
pub mod range;
pub mod report;
