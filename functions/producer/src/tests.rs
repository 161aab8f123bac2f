//! The producer against a Kafka mock inside librdkafka, a hand-written HTTP server, and a store in memory.

mod api;
mod machine;
mod run;
