//! One binary for all behaviours that cross a crate's border.
//!
//! - `exactly_once`: the consumer's handler over a store in memory, one claim a test
//! - `histories`: the same handler under interleaved attempts, crashes and late requests, chosen by proptest

mod exactly_once;
mod histories;
mod support;
