//! Where each object of a lake lies.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

const HOUR_MS: i64 = 3_600_000;
/// What `freshet replay` keeps. No lake's prefix begins with `_`.
pub(crate) const REPLAYS: &str = "_replay/";

/// A Hive directory of the lake, `dt=YYYY-MM-DD/hour=HH` in UTC. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Directory {
    hours_since_1970: i64,
}

impl Directory {
    /// The directory of a Kafka timestamp in milliseconds. Times before 1970 and after 9999 count as those years' ends.
    pub fn of(timestamp_ms: i64) -> Directory {
        // Two days short of it: jiff's last Timestamp is 9999-12-30T22:00Z, so that every time zone can show it.
        const END_OF_9999: i64 = 253_402_300_799_999 / HOUR_MS - 48;
        Directory { hours_since_1970: timestamp_ms.div_euclid(HOUR_MS).clamp(0, END_OF_9999) }
    }

    /// The hour after this one.
    pub fn next(self) -> Directory {
        Directory { hours_since_1970: self.hours_since_1970 + 1 }
    }

    /// The partition's values, for Glue: `["2026-11-23", "05"]`.
    pub fn values(self) -> [String; 2] {
        let time = self.start().to_zoned(TimeZone::UTC);
        [time.strftime("%Y-%m-%d").to_string(), time.strftime("%H").to_string()]
    }

    fn start(self) -> Timestamp {
        // `of` and `from_str` keep the hours far inside what a Timestamp holds.
        Timestamp::from_second(self.hours_since_1970 * 3600).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [dt, hour] = self.values();
        write!(f, "dt={dt}/hour={hour}")
    }
}

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Directory, String> {
        let error = || format!("`{text}` is no directory of the form dt=YYYY-MM-DD/hour=HH");
        let (dt, hour) = text.strip_prefix("dt=").and_then(|t| t.split_once("/hour=")).ok_or_else(error)?;
        let date: civil::Date = dt.parse().map_err(|_| error())?;
        let hour: i8 = hour.parse().map_err(|_| error())?;
        if !(0..24).contains(&hour) {
            return Err(error());
        }
        let start = date.at(hour, 0, 0, 0).to_zoned(TimeZone::UTC).map_err(|_| error())?;
        let directory = Directory::of(start.timestamp().as_millisecond());
        // Only what would be written again to the letter: `hour=+5`, or a date with a time, are somebody else's.
        if directory.to_string() == text { Ok(directory) } else { Err(error()) }
    }
}

impl serde::Serialize for Directory {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Directory {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Directory, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What the key of a data object says. The codec of Parquet is not in it; the format's extension is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    pub directory: Directory,
    pub topic: String,
    pub partition: i32,
    pub epoch: u32,
    /// The first offset of the range, also where no record has it.
    pub start: i64,
    pub extension: String,
}

/// What the key of a range's dead letters says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LettersKey {
    pub topic: String,
    pub partition: i32,
    pub epoch: u32,
    pub start: i64,
    /// Inclusive.
    pub end: i64,
}

impl LettersKey {
    fn name(&self, hash: &str) -> String {
        let LettersKey { topic, partition, epoch, start, end } = self;
        format!("{topic}+{partition}+e{epoch}+{start:020}-{end:020}+{hash}")
    }
}

/// The prefixes of one lake, and every key in it.
#[derive(Debug, Clone)]
pub struct Layout {
    pub prefix: String,
    pub ledger_prefix: String,
}

impl Layout {
    /// `<prefix>/dt=…/hour=…/<topic>+<partition>+e<epoch>+<start, 20 digits>.<extension>`
    pub fn data(&self, key: &DataKey) -> String {
        let DataKey { directory, topic, partition, epoch, start, extension } = key;
        format!("{}/{directory}/{topic}+{partition}+e{epoch}+{start:020}.{extension}", self.prefix)
    }

    /// Reads a key made by [`Layout::data`]; `None` for any other.
    pub fn parse_data(&self, key: &str) -> Option<DataKey> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix('/')?;
        let (directory, name) = rest.rsplit_once('/')?;
        let mut parts = name.split('+');
        let (topic, partition, epoch, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (start, extension) = last.split_once('.')?;
        let parsed = DataKey {
            directory: directory.parse().ok()?,
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            epoch: epoch.strip_prefix('e')?.parse().ok()?,
            start: start.parse().ok()?,
            extension: extension.to_owned(),
        };
        // Only what would be written again to the letter: `+1` or `01` are somebody else's names.
        (parsed.partition >= 0 && parsed.start >= 0 && self.data(&parsed) == key).then_some(parsed)
    }

    /// Where the data objects of a topic-partition lie in one directory, whatever their epoch.
    pub fn data_prefix(&self, directory: Directory, topic: &str, partition: i32) -> String {
        format!("{}/{directory}/{topic}+{partition}+e", self.prefix)
    }

    /// A registered partition's location, relative to the bucket.
    pub fn directory(&self, directory: Directory) -> String {
        format!("{}/{directory}/", self.prefix)
    }

    /// `<ledger prefix>/<prefix>/<topic>/<partition>.json`
    pub fn ledger(&self, topic: &str, partition: i32) -> String {
        format!("{}/{}/{topic}/{partition}.json", self.ledger_prefix, self.prefix)
    }

    /// All ledgers of the lake lie under this prefix.
    pub fn ledgers(&self) -> String {
        format!("{}/{}/", self.ledger_prefix, self.prefix)
    }

    /// `_replay/<prefix>/<name>.json`: the lock and the batches of `freshet replay`.
    pub fn replay(&self, name: &str) -> String {
        format!("{}{name}.json", self.replays())
    }

    /// The lock and all batches lie under this prefix; so do those of a lake whose prefix begins with this one's.
    pub fn replays(&self) -> String {
        format!("{REPLAYS}{}/", self.prefix)
    }

    /// `<prefix>_dead_letters/dt=YYYY-MM-DD/<name>.json.gz`; names of the consumer's letters come from
    /// [`Layout::dead_letters_of_range`], those of the producer's hold the invocation's id.
    pub fn dead_letters(&self, directory: Directory, name: &str) -> String {
        let [dt, _] = directory.values();
        format!("{}{dt}/{name}.json.gz", self.dead_letters_prefix())
    }

    pub fn dead_letters_prefix(&self) -> String {
        format!("{}_dead_letters/dt=", self.prefix)
    }

    /// A name that another content cannot take: it ends in the content's hash.
    pub fn dead_letters_of_range(&self, data: &DataKey, end: i64, content_sha256: &str) -> String {
        let DataKey { directory, topic, partition, epoch, start, .. } = data;
        let hash: String = content_sha256.chars().take(16).collect();
        let range = LettersKey { topic: topic.clone(), partition: *partition, epoch: *epoch, start: *start, end };
        self.dead_letters(*directory, &range.name(&hash))
    }

    /// Reads a key made with [`Layout::dead_letters_of_range`]; `None` for any other, such as the producer's letters.
    pub fn parse_dead_letters(&self, key: &str) -> Option<LettersKey> {
        let name = key.strip_prefix(&self.dead_letters_prefix())?.strip_suffix(".json.gz")?.split_once('/')?.1;
        let mut parts = name.split('+');
        let (topic, partition, epoch, range) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (start, end) = range.split_once('-')?;
        let hash = parts.next()?;
        let parsed = LettersKey {
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            epoch: epoch.strip_prefix('e')?.parse().ok()?,
            start: start.parse().ok()?,
            end: end.parse().ok()?,
        };
        let sound = parsed.partition >= 0 && (0..=parsed.end).contains(&parsed.start);
        (sound && parsed.name(hash) == name).then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { prefix: "names".into(), ledger_prefix: "_ledger".into() }
    }

    fn key() -> DataKey {
        DataKey {
            directory: "dt=2026-11-23/hour=05".parse().unwrap(),
            topic: "names_topic".into(),
            partition: 2,
            epoch: 1,
            start: 42,
            extension: "json.gz".into(),
        }
    }

    #[test]
    fn a_data_key_is_read_back_as_written() {
        let text = layout().data(&key());
        assert_eq!(text, "names/dt=2026-11-23/hour=05/names_topic+2+e1+00000000000000000042.json.gz");
        assert_eq!(layout().parse_data(&text), Some(key()));
    }

    #[test]
    fn other_names_are_no_data_keys() {
        for other in [
            "names/readme.txt",
            "names2/dt=2026-11-23/hour=05/t+2+e1+00000000000000000042.parquet",
            "names/dt=2026-11-23/hour=5/t+2+e1+00000000000000000042.parquet",
            "names/dt=2026-11-23/hour=05/t+2+e1+42.parquet",
            "names/dt=2026-11-23/hour=05/t+02+e1+00000000000000000042.parquet",
        ] {
            assert_eq!(layout().parse_data(other), None, "{other}");
        }
    }

    #[test]
    fn the_key_of_dead_letters_is_read_back_and_the_producers_are_told_apart() {
        let text = layout().dead_letters_of_range(&key(), 99, "0123456789abcdef0123");
        let range = "00000000000000000042-00000000000000000099";
        assert_eq!(text, format!("names_dead_letters/dt=2026-11-23/names_topic+2+e1+{range}+0123456789abcdef.json.gz"));
        let read = LettersKey { topic: "names_topic".into(), partition: 2, epoch: 1, start: 42, end: 99 };
        assert_eq!(layout().parse_dead_letters(&text), Some(read));
        let producers = layout().dead_letters(key().directory, "names_topic+8f3b");
        assert_eq!(layout().parse_dead_letters(&producers), None);
    }

    #[test]
    fn directories_are_utc_hours_in_order_and_survive_any_timestamp() {
        assert_eq!(Directory::of(1_795_410_367_000).to_string(), "dt=2026-11-23/hour=05");
        assert!(Directory::of(i64::MIN) < Directory::of(0) || Directory::of(i64::MIN) == Directory::of(0));
        for ms in [i64::MIN, -1, 0, 1_795_410_367_000, i64::MAX] {
            let directory = Directory::of(ms);
            assert_eq!(directory.to_string().parse(), Ok(directory));
        }
        assert!("dt=2026-11-23/hour=24".parse::<Directory>().is_err());
    }
}
