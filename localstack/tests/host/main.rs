//! The local Lambda: real functions over the Runtime API, and the event source over librdkafka's mock cluster.
//!
//! | module | claims about |
//! |---|---|
//! | `runtime` | processes: answers, errors, crashes, time-outs, concurrency, and that none is left behind |
//! | `event_source` | delivery: order, retries, commits, limits, rebalances |
//! | `lambda_api` | functions elsewhere: what is sent, what counts as a failure |
//! | `s3_gateway` | a real bucket behind other credentials |
//! | `schedule` | ticks, and none during a run |
//! | `embedded_broker` | what the mock cluster cannot show, against the embedded broker |

// clippy.toml lets tests unwrap; the helpers beside them are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embedded_broker;
mod event_source;
mod lambda_api;
mod runtime;
mod s3_gateway;
mod schedule;
