//! What the tests share.

pub mod events;
pub mod memory_store;
pub mod rows;
pub mod stack;
