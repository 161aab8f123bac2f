//! An AWS emulator and Athena's engine in AWS's place; `tests/cloud/tools.sh` fetches both.

mod applied;
mod athena;
mod stand_ins;
