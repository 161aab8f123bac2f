//! The executable model's histories over the real handler: one topic-partition, an event source that delivers at least once
//! (batches of any size, attempts that it has forgotten and that live on, committed offsets again), attempts interleaved
//! request by request, crashes at every request, PUTs of dead attempts that land later, two decoder versions alive, and
//! topics made anew with an operator's reset. At the end everything is delivered once more in peace; then each record must
//! be one row or a dead letter, and nothing may be stuck.
//!
//! Outside of the conditions records expire or are compacted away under live attempts, timestamps are the producers', and a
//! topic made anew looks like the old one. There a record may be missing where that was noticed, and the operator does what
//! the messages say, with the commands of `freshet ledger`.
//!
//! `make test` plays a few hundred of each world (`PROPTEST_CASES` sets the number; a failure is shrunk and its seed kept by
//! proptest), `make prove HISTORIES=1000000` as many as it is told to, on all cores.

mod history;
mod long;
mod play;

use proptest::prelude::*;
use proptest::test_runner::RngAlgorithm;

use self::history::{World, history};
use self::play::play;

/// Without optimisation the usual one, ChaCha, takes more time than the histories do.
const ALGORITHM: RngAlgorithm = RngAlgorithm::XorShift;

fn config() -> ProptestConfig {
    // What the environment says (PROPTEST_CASES, PROPTEST_MAX_SHRINK_ITERS) wins over the numbers given here.
    let given = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig {
        cases: given("PROPTEST_CASES", 600),
        rng_algorithm: ALGORITHM,
        max_shrink_iters: given("PROPTEST_MAX_SHRINK_ITERS", 2_000),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn each_record_is_stored_once_when_timestamps_only_rise(history in history(World::TimestampsRise)) {
        play(World::TimestampsRise, &history)?;
    }

    #[test]
    fn each_record_is_stored_once_when_timestamps_go_back(history in history(World::TimestampsGoBack)) {
        play(World::TimestampsGoBack, &history)?;
    }

    #[test]
    fn each_record_is_stored_once_when_the_topic_is_made_anew(history in history(World::MadeAnew)) {
        play(World::MadeAnew, &history)?;
    }

    #[test]
    fn records_that_expire_under_live_attempts_are_never_missed_in_silence(history in history(World::Expiry)) {
        play(World::Expiry, &history)?;
    }

    #[test]
    fn records_that_are_compacted_away_are_never_missed_in_silence(history in history(World::Compaction)) {
        play(World::Compaction, &history)?;
    }

    #[test]
    fn each_record_is_stored_once_when_timestamps_are_the_producers(history in history(World::CreateTime)) {
        play(World::CreateTime, &history)?;
    }

    #[test]
    fn a_topic_made_anew_with_older_producers_timestamps_is_not_missed_in_silence(history in history(World::CreateTimeMadeAnew)) {
        play(World::CreateTimeMadeAnew, &history)?;
    }

    #[test]
    fn a_topic_made_anew_with_its_clock_behind_is_not_missed_in_silence(history in history(World::MadeAnewClockBehind)) {
        play(World::MadeAnewClockBehind, &history)?;
    }
}
