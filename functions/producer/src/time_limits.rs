//! Which work may begin or go on until when, in one run. All limits follow from the invocation's deadline, so that the
//! answer is given before Lambda freezes or kills the process; its own schedule only ends a run earlier.

use std::time::Duration;

use tokio::time::Instant;

/// What the last fetch of a run may take where the deadline is unknown.
const LAST_FETCH: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// No fetch begins at or after it.
    pub last_start: Instant,
    /// A fetch under way, with its retries, is given up.
    pub fetch: Instant,
    /// What Kafka has not acknowledged becomes a dead letter.
    pub deliver: Option<Instant>,
    /// A dead letter that is not stored goes to the log.
    pub store: Option<Instant>,
}

impl TimeLimits {
    /// `left` is the time to the invocation's deadline, `None` where it is unknown.
    pub fn new(now: Instant, run: Duration, left: Option<Duration>) -> TimeLimits {
        let Some(left) = left else {
            let last_start = now + run;
            return TimeLimits { last_start, fetch: last_start + LAST_FETCH, deliver: None, store: None };
        };
        // Short invocations keep most of their time, long ones a fixed reserve.
        let share = |part: u32, most: Duration| (left / part).min(most);
        let store = left.saturating_sub(share(20, Duration::from_secs(1)));
        let deliver = store.saturating_sub(share(10, Duration::from_secs(5)));
        let fetch = deliver.saturating_sub(share(5, Duration::from_secs(15)));
        TimeLimits {
            last_start: now + run.min(fetch),
            fetch: now + fetch,
            deliver: Some(now + deliver),
            store: Some(now + store),
        }
    }
}

/// The time to a deadline in milliseconds since 1970. `None` for one that is past: emulators send such.
pub fn time_left(deadline_ms: u64, now_ms: i64) -> Option<Duration> {
    let left = deadline_ms.saturating_sub(u64::try_from(now_ms).unwrap_or_default());
    (left > 0).then(|| Duration::from_millis(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(120);

    fn secs(at: impl Into<Option<Instant>>, now: Instant) -> f64 {
        (at.into().unwrap() - now).as_secs_f64()
    }

    #[test]
    fn a_run_with_time_to_spare_ends_by_its_own_schedule() {
        let now = Instant::now();
        let limits = TimeLimits::new(now, RUN, Some(Duration::from_secs(180)));
        assert_eq!(limits.last_start, now + RUN);
        assert_eq!(secs(limits.fetch, now), 159.0);
        assert_eq!(secs(limits.deliver, now), 174.0);
        assert_eq!(secs(limits.store, now), 179.0);
    }

    #[test]
    fn a_run_never_goes_beyond_the_deadline_whatever_its_schedule() {
        let now = Instant::now();
        for left_ms in [0, 1, 100, 3_000, 60_000, 900_000] {
            let left = Duration::from_millis(left_ms);
            let limits = TimeLimits::new(now, Duration::from_secs(10_000), Some(left));
            assert!(limits.last_start <= limits.fetch);
            assert!(Some(limits.fetch) <= limits.deliver && limits.deliver <= limits.store);
            assert!(limits.store.unwrap() <= now + left);
            assert!(secs(limits.fetch, now) >= 0.6 * left.as_secs_f64());
        }
    }

    #[test]
    fn a_past_deadline_counts_as_unknown() {
        assert_eq!(time_left(1_000, 2_000), None);
        assert_eq!(time_left(3_000, 2_000), Some(Duration::from_secs(1)));
        let now = Instant::now();
        assert_eq!(TimeLimits::new(now, RUN, None).last_start, now + RUN);
    }
}
