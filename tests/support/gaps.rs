//! Hears which ranges the consumer says to have gaps, at the moment when it says so: an attempt may be dead a request later.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Id, Level, Metadata, Subscriber, dispatcher, span};

struct Ears;

thread_local! {
    static HEARD: RefCell<Vec<RangeInclusive<i64>>> = const { RefCell::new(Vec::new()) };
}

static EARS: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Ears));

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target() == "consumer::handler"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        #[derive(Default)]
        struct Range {
            start: Option<i64>,
            end: Option<i64>,
        }
        impl Visit for Range {
            fn record_i64(&mut self, field: &Field, value: i64) {
                match field.name() {
                    "start" => self.start = Some(value),
                    "end" => self.end = Some(value),
                    _ => {}
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut range = Range::default();
        event.record(&mut range);
        HEARD.with_borrow_mut(|heard| heard.extend(range.start.zip(range.end).map(|(start, end)| start..=end)));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What `work` comes to, and the ranges of which it said that they have gaps.
pub fn said<T>(work: impl FnOnce() -> T) -> (T, Vec<RangeInclusive<i64>>) {
    let value = dispatcher::with_default(&EARS, work);
    (value, HEARD.take())
}
