//! How Kafka is reached: brokers, TLS and SASL by configuration.
