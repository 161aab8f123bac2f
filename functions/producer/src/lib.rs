//! API → topic. [`handler`] is the pipeline, top to bottom; the other modules are its steps.

pub mod api;
pub mod config;
pub mod dead_letters;
pub mod event;
pub mod handler;
pub mod publish;
pub mod summary;
pub mod time_limits;
pub mod topic;
pub mod transform;

#[cfg(test)]
mod tests;
