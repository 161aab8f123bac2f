//! The local Lambda: real functions over the Runtime API, and the event source over librdkafka's mock cluster.
//!
//! | module | claims about |
//! |---|---|
//! | `runtime` | processes: answers, errors, crashes, time-outs, concurrency, and that none is left behind |
//! | `event_source` | delivery: order, retries, commits, limits, rebalances |
//! | `schedule` | ticks, and none during a run |

mod event_source;
mod runtime;
mod schedule;
