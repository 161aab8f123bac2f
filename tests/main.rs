//! One binary for all behaviours that cross a crate's border.
//!
//! - `brokers`: three Apache Kafka brokers, and what can happen to them
//! - `cloud`: an AWS emulator and Athena's engine in AWS's place
//! - `exactly_once`: the consumer's handler over a store in memory, one claim a test
//! - `fuzz`: whatever comes from outside, damaged in every way
//! - `guarantees`: docs/GUARANTEES.md names tests that exist
//! - `histories`: the same handler under interleaved attempts, crashes and late requests, chosen by proptest
//! - `local`: docker-compose.yaml and its commands, without Docker
//! - `memory`: a full event in a process that is limited to 128 MB
//! - `metric_names`: one name and one unit for each metric, in code, documentation, dashboard, alarms and page
//! - `packaging`: the zips that `make build` makes for Lambda
//! - `page`: the demo's page in a real browser
//! - `producer_faults`: the producer's binary, while the API and Kafka fail around it
//! - `prove`: the consumer's binary, driven by the event source, while everything around it fails
//! - `replay`: dead letters back to the topic on the whole stack, with crashes at each step
//! - `whole_way`: real binaries over the Lambda Runtime API, Kafka and S3, read back by SQL and verify

mod brokers;
mod cloud;
mod exactly_once;
mod fuzz;
mod guarantees;
mod histories;
mod local;
mod memory;
mod metric_names;
mod packaging;
mod page;
mod producer_faults;
mod prove;
mod replay;
mod support;
mod whole_way;
