//! What a history is made of, and the worlds in which histories are played.

use std::fmt;

use proptest::prelude::*;

use crate::support::events::*;

const MINUTE_MS: i64 = 60_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// What may happen to the log. In the first three nothing may be lost or doubled: two keep docs/GUARANTEES.md's
/// conditions, and a topic made anew with later timestamps is noticed. The others are outside of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum World {
    TimestampsRise,
    TimestampsGoBack,
    MadeAnew,
    /// The log's head moves, also behind what nobody has stored, while attempts that hold the old records are alive.
    Expiry,
    /// Records vanish from the middle of the log.
    Compaction,
    /// Timestamps are the producers': in any order, years apart, and in the future.
    CreateTime,
    /// The same, and the new topic's timestamps may be older than the old one's.
    CreateTimeMadeAnew,
    /// The new topic begins in the old one's last millisecond, or its leader's clock is behind.
    MadeAnewClockBehind,
}

impl World {
    pub const ALL: [World; 8] = [
        World::TimestampsRise,
        World::TimestampsGoBack,
        World::MadeAnew,
        World::Expiry,
        World::Compaction,
        World::CreateTime,
        World::CreateTimeMadeAnew,
        World::MadeAnewClockBehind,
    ];

    pub fn keeps_the_conditions(self) -> bool {
        matches!(self, World::TimestampsRise | World::TimestampsGoBack | World::MadeAnew)
    }

    pub fn is_create_time(self) -> bool {
        matches!(self, World::CreateTime | World::CreateTimeMadeAnew)
    }

    pub fn loses_records(self) -> bool {
        matches!(self, World::Expiry | World::Compaction)
    }

    /// Whether a new topic's first timestamps may be no later than the old one's last.
    pub fn begins_anew_earlier(self) -> bool {
        matches!(self, World::CreateTimeMadeAnew | World::MadeAnewClockBehind)
    }

    fn lives(self) -> usize {
        if self == World::MadeAnew || self.begins_anew_earlier() { 2 } else { 1 }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            World::TimestampsRise => "timestamps only rise",
            World::TimestampsGoBack => "timestamps go back",
            World::MadeAnew => "topic made anew",
            World::Expiry => "records expire",
            World::Compaction => "records are compacted away",
            World::CreateTime => "CREATE_TIME",
            World::CreateTimeMadeAnew => "CREATE_TIME, topic made anew",
            World::MadeAnewClockBehind => "topic made anew, clock behind",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Time {
    /// Milliseconds since the record before it; negative where time goes back.
    Step(i64),
    /// Milliseconds ahead of the clock with which the history begins; the record behind it goes by the one before it.
    Ahead(i64),
}

#[derive(Debug, Clone)]
pub struct Entry {
    /// Offsets left out before the record.
    gap: i64,
    time: Time,
    /// Which of the two decoders refuse it.
    poison: [bool; 2],
}

#[derive(Debug, Clone)]
pub enum Action {
    /// The event source begins an attempt, `back` records before the committed offset, with one of the decoders.
    Deliver { back: usize, size: usize, decoder: usize },
    /// The event source gives up on its attempt, which lives on.
    Forget,
    /// One attempt's next request gets through.
    Step { attempt: usize },
    /// An attempt is killed; what it has on the wire may land later.
    Kill { attempt: usize, lands: bool },
    /// A request of a dead attempt lands.
    Land { request: usize },
    /// The topic is deleted and made anew, once its records are consumed or in the middle of it.
    MakeAnew,
    /// Records are gone from the topic: all before this place, counted from a few before the committed one.
    Expire { to: usize },
    /// Records are gone from the topic: those at these places.
    Compact { at: Vec<usize> },
    /// Milliseconds go by.
    Pass { time: i64 },
}

#[derive(Debug, Clone)]
pub struct History {
    first_offset: i64,
    /// How far the clock of a topic made anew is behind the old one's.
    behind: i64,
    logs: Vec<Vec<Entry>>,
    pub actions: Vec<Action>,
}

fn entry(world: World) -> impl Strategy<Value = Entry> {
    // Minutes: a log crosses a few hours.
    let forwards = prop_oneof![4 => Just(0i64), 4 => 1..5i64, 2 => Just(25i64)].boxed();
    let back = (-90..0i64).boxed();
    let steps = |strategy: BoxedStrategy<i64>| strategy.prop_map(|minutes| Time::Step(minutes * MINUTE_MS)).boxed();
    let time = match world {
        World::TimestampsGoBack => prop_oneof![10 => steps(forwards), 6 => steps(back)].boxed(),
        _ if world.is_create_time() => prop_oneof![
            10 => steps(forwards),
            4 => steps(back),
            2 => (-3..4i64).prop_map(|years| Time::Step(years * YEAR_MS)),
            1 => (-30..150i64).prop_map(|minutes| Time::Ahead(minutes * MINUTE_MS)),
        ]
        .boxed(),
        _ => steps(forwards),
    };
    let gap = prop_oneof![11 => Just(0i64), 1 => 1..4i64];
    let poison = prop_oneof![8 => Just(false), 2 => Just(true)];
    (gap, time, [poison.clone(), poison]).prop_map(|(gap, time, poison)| Entry { gap, time, poison })
}

fn action(world: World) -> impl Strategy<Value = Action> {
    let usual = prop_oneof![
        12 => (prop_oneof![6 => Just(0usize), 2 => 1..9usize], 1..15usize, 0..2usize)
            .prop_map(|(back, size, decoder)| Action::Deliver { back, size, decoder }),
        4 => Just(Action::Forget),
        60 => (0..8usize).prop_map(|attempt| Action::Step { attempt }),
        5 => (0..8usize, any::<bool>()).prop_map(|(attempt, lands)| Action::Kill { attempt, lands }),
        3 => (0..8usize).prop_map(|request| Action::Land { request }),
        1 => Just(Action::MakeAnew),
    ];
    match world {
        World::Expiry => prop_oneof![30 => usual, 1 => (0..10usize).prop_map(|to| Action::Expire { to })].boxed(),
        World::Compaction => {
            let places = prop::collection::vec(0..16usize, 1..6);
            prop_oneof![25 => usual, 1 => places.prop_map(|at| Action::Compact { at })].boxed()
        }
        _ if world.is_create_time() => {
            let minutes = prop_oneof![2 => 1..15i64, 1 => 20..100i64];
            prop_oneof![30 => usual, 1 => minutes.prop_map(|minutes| Action::Pass { time: minutes * MINUTE_MS })]
                .boxed()
        }
        _ => usual.boxed(),
    }
}

pub fn history(world: World) -> impl Strategy<Value = History> {
    let behind = match world {
        World::MadeAnewClockBehind => prop_oneof![Just(0i64), 1..90i64].boxed(),
        World::CreateTimeMadeAnew => (0..500_000i64).boxed(),
        _ => Just(0).boxed(),
    };
    (
        prop_oneof![Just(0i64), Just(5i64)],
        behind,
        prop::collection::vec(prop::collection::vec(entry(world), 3..30), world.lives()),
        prop::collection::vec(action(world), 0..160),
    )
        .prop_map(|(first_offset, behind, logs, actions)| History {
            first_offset,
            behind: behind * MINUTE_MS,
            logs,
            actions,
        })
}

/// A record on the topic.
#[derive(Debug, Clone)]
pub struct OnTopic {
    pub record: LogRecord,
    pub poison: [bool; 2],
    /// Expired, or compacted away.
    pub gone: bool,
}

/// The records of each of the topic's lives. Each bears the life that it is of.
pub fn logs(world: World, history: &History) -> Vec<Vec<OnTopic>> {
    // Years before the clock, where timestamps are years apart.
    let mut time = if world.is_create_time() { HOUR - 5 * YEAR_MS } else { HOUR };
    let earliest = time - 24 * HOUR_MS - if world.is_create_time() { 5 * YEAR_MS } else { 0 };
    let mut logs = Vec::new();
    for (life, entries) in history.logs.iter().enumerate() {
        // The first life may have lost its oldest records; a topic made anew begins with offset 0.
        let mut offset = if life == 0 { history.first_offset } else { 0 };
        let mut log: Vec<OnTopic> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            offset += if index == 0 { 0 } else { entry.gap };
            let timestamp = match entry.time {
                Time::Step(step) => {
                    time = (time + step).max(earliest);
                    time
                }
                Time::Ahead(ahead) => NOW + ahead,
            };
            let value = match entry.poison {
                [false, false] => format!(r#"{{"life":{life}}}"#),
                [false, true] => format!(r#"{{"text":"no integer","life":{life}}}"#),
                [true, false] => format!(r#"{{"n":1,"life":{life}}}"#),
                [true, true] => format!("junk {life}"),
            };
            let record = LogRecord { offset, timestamp, value: Some(value.into()) };
            log.push(OnTopic { record, poison: entry.poison, gone: false });
            offset += 1;
        }
        logs.push(log);
        // A topic made anew begins later than anything in the old one: LogAppendTime.
        time += if world.begins_anew_earlier() { -history.behind } else { 40 * HOUR_MS };
    }
    logs
}
