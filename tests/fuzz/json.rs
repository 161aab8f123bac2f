//! JSON that can be damaged: numbers as they are written, names that stand twice, and what comes out is only mostly JSON.

use fastrand::Rng;
use serde_json::Value;

use super::{any, one_in};

#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// Written as it is.
    Raw(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// At the limits of what a reader's types hold, and of what JSON allows.
const NUMBERS: [&str; 40] = [
    "0",
    "-0",
    "1",
    "-1",
    "0.0",
    "-0.0",
    "1.0",
    "1.5",
    "1e3",
    "1E400",
    "-1e400",
    "1e-400",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9007199254740992",
    "9007199254740993",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "1.7976931348623157e308",
    "5e-324",
    "123456789012345678901234567890",
    "253402300799999",
    "253402300800000",
    "-62135596800000",
    "-62135596800001",
    "9223372036854775",
    "9223372036854776",
    "-9223372036854776",
    "-377705116800000",
    "1e00000000000000000000001",
];

const NO_NUMBERS: [&str; 12] =
    ["01", "+1", ".5", "1.", "0x10", "NaN", "Infinity", "--1", "1e", "1_000", "tru", "nulll"];

const TEXTS: [&str; 34] = [
    "",
    "\0",
    "a\"b\\c/",
    "\u{feff}",
    "𝄞 é \u{2028}\u{7f}",
    "\n\r\t\u{8}\u{c}",
    "..",
    "../..",
    "a/b",
    "+",
    "null",
    "aws:kafka",
    "SelfManagedKafka",
    "CREATE_TIME",
    "LOG_APPEND_TIME",
    "names_topic",
    "shop.orders",
    "e30=",
    "====",
    "2026-11-23T05:06:07Z",
    "2026-11-23T05:06:07.123456789+01:00",
    "2026-11-23T05:06:07Z[Europe/Zurich]",
    "2026-11-23 05:06Z",
    "2026-11-23",
    "2016-12-31T23:59:60Z",
    "9999-12-30T22:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "0000-06-01T00:00:00Z",
    "-000500-01-01T00:00:00Z",
    "-009999-01-02T01:59:59Z",
    "1969-12-31T23:59:59.9999999Z",
    "dt=2026-11-23/hour=05",
    "dt=2026-11-23/hour=+5",
];

const NAMES: [&str; 12] = [
    "",
    "records",
    "topic",
    "partition",
    "offset",
    "value",
    "headers",
    "_offset",
    "_extra",
    "name",
    "e\u{301}",
    "a\"b",
];

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        match value {
            Value::String(text) => Json::Text(text),
            Value::Array(elements) => Json::Array(elements.into_iter().map(Json::from).collect()),
            Value::Object(members) => Json::Object(members.into_iter().map(|(k, v)| (k, Json::from(v))).collect()),
            other => Json::Raw(other.to_string()),
        }
    }
}

impl Json {
    /// With every so-many-th character escaped, and spaces between the tokens where it says so.
    pub fn write(&self, escaped: u32, spaces: bool, rng: &mut Rng) -> String {
        let mut out = String::new();
        self.push(&mut out, escaped, spaces, rng);
        out
    }

    /// As writers usually write it.
    pub fn plain(&self) -> String {
        self.write(0, false, &mut Rng::with_seed(0))
    }

    fn push(&self, out: &mut String, escaped: u32, spaces: bool, rng: &mut Rng) {
        let space = |out: &mut String, rng: &mut Rng| {
            if spaces {
                out.push_str(any(rng, &["", " ", "\n", "\t\r "]));
            }
        };
        space(out, rng);
        match self {
            Json::Raw(raw) => out.push_str(raw),
            Json::Text(text) => quote(out, text, escaped, rng),
            Json::Array(elements) => {
                out.push('[');
                for (number, element) in elements.iter().enumerate() {
                    if number > 0 {
                        out.push(',');
                    }
                    element.push(out, escaped, spaces, rng);
                }
                out.push(']');
            }
            Json::Object(members) => {
                out.push('{');
                for (number, (name, value)) in members.iter().enumerate() {
                    if number > 0 {
                        out.push(',');
                    }
                    space(out, rng);
                    quote(out, name, escaped, rng);
                    space(out, rng);
                    out.push(':');
                    value.push(out, escaped, spaces, rng);
                }
                out.push('}');
            }
        }
        space(out, rng);
    }

    fn nodes(&self) -> usize {
        1 + match self {
            Json::Raw(_) | Json::Text(_) => 0,
            Json::Array(elements) => elements.iter().map(Json::nodes).sum(),
            Json::Object(members) => members.iter().map(|(_, value)| value.nodes()).sum(),
        }
    }

    fn nth(&mut self, number: &mut usize) -> Option<&mut Json> {
        if *number == 0 {
            return Some(self);
        }
        *number -= 1;
        match self {
            Json::Raw(_) | Json::Text(_) => None,
            Json::Array(elements) => elements.iter_mut().find_map(|element| element.nth(number)),
            Json::Object(members) => members.iter_mut().find_map(|(_, value)| value.nth(number)),
        }
    }

    /// Changes one thing in it. True where a name stands twice since.
    pub fn mutate(&mut self, rng: &mut Rng) -> bool {
        let mut number = rng.usize(..self.nodes());
        let Some(node) = self.nth(&mut number) else { return false };
        match (rng.u32(..12), &mut *node) {
            (0..4, Json::Object(members)) if !members.is_empty() => {
                let at = rng.usize(..members.len());
                match rng.u32(..5) {
                    0 => {
                        members.remove(at);
                    }
                    1 => {
                        let (name, mut value) = members[at].clone();
                        if rng.bool() {
                            value.mutate(rng);
                        }
                        members.insert(rng.usize(..=members.len()), (name, value));
                        return true;
                    }
                    2 => members[at].0 = any(rng, &NAMES).to_owned(),
                    3 => members.push((any(rng, &NAMES).to_owned(), interesting(rng))),
                    _ => {
                        let other = rng.usize(..members.len());
                        members.swap(at, other);
                    }
                }
                return twice(members);
            }
            (0..4, Json::Array(elements)) if !elements.is_empty() => {
                let at = rng.usize(..elements.len());
                match rng.u32(..3) {
                    0 => {
                        elements.remove(at);
                    }
                    1 => elements.insert(at, elements[at].clone()),
                    _ => {
                        let other = rng.usize(..elements.len());
                        elements.swap(at, other);
                    }
                }
            }
            (0..8, Json::Text(text)) => damage_text(text, rng),
            (0..4, Json::Raw(raw)) => {
                if let Ok(number) = raw.parse::<i64>() {
                    let by = any(rng, &[-1, 1, 1000, -1000, 3_600_000, i64::MAX, i64::MIN]);
                    *raw = number.saturating_add(by).to_string();
                }
            }
            (4, _) => *node = Json::Array(vec![node.clone()]),
            (5, _) => *node = Json::Object(vec![("a".to_owned(), node.clone())]),
            (6, _) => *node = deep(rng),
            _ => *node = interesting(rng),
        }
        false
    }
}

fn twice(members: &[(String, Json)]) -> bool {
    members.iter().enumerate().any(|(at, (name, _))| members[..at].iter().any(|(other, _)| other == name))
}

fn quote(out: &mut String, text: &str, escaped: u32, rng: &mut Rng) {
    out.push('"');
    for character in text.chars() {
        match character {
            _ if escaped > 0 && one_in(rng, escaped) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\0'..' ' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

pub fn interesting(rng: &mut Rng) -> Json {
    match rng.u32(..12) {
        0..5 => Json::Raw(any(rng, &NUMBERS).to_owned()),
        5..9 => Json::Text(any(rng, &TEXTS).to_owned()),
        9 => Json::Raw(any(rng, &["true", "false", "null", "null"]).to_owned()),
        10 => any(rng, &[Json::Array(Vec::new()), Json::Object(Vec::new()), Json::Array(vec![Json::Raw("1".into())])]),
        _ if one_in(rng, 4) => Json::Raw(any(rng, &NO_NUMBERS).to_owned()),
        _ => Json::Raw(rng.i64(..).to_string()),
    }
}

/// Far deeper than any reader follows.
fn deep(rng: &mut Rng) -> Json {
    let levels = any(rng, &[5, 126, 127, 128, 129, 2_000, 30_000]);
    let (open, close) = any(rng, &[("[", "]"), ("{\"a\":", "}"), ("[{\"\":", "}]")]);
    let closed = if one_in(rng, 5) { 0 } else { levels };
    Json::Raw(format!("{}1{}", open.repeat(levels), close.repeat(closed)))
}

fn damage_text(text: &mut String, rng: &mut Rng) {
    let mut characters: Vec<char> = text.chars().collect();
    let at = rng.usize(..=characters.len());
    match rng.u32(..7) {
        0 => characters.truncate(at),
        1 => characters.insert(at, any(rng, &['\0', '"', '\\', '\n', '=', '+', '/', '-', ' ', 'é', '𝄞'])),
        2 if at < characters.len() => {
            characters.remove(at);
        }
        3 if at < characters.len() => characters[at] = any(rng, &['A', 'B', '/', '_', '=', '\u{ffff}', '0']),
        4 => characters.extend(std::iter::repeat_n('=', rng.usize(1..4))),
        5 if one_in(rng, 8) => characters.extend(std::iter::repeat_n('x', rng.usize(..40_000))),
        _ => characters = any(rng, &TEXTS).chars().collect(),
    }
    *text = characters.into_iter().collect();
}

/// What no writer of JSON writes, and no reader may stumble over.
const PIECES: [&[u8]; 22] = [
    b"\xff",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\u0000",
    b"\\x",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"1e999",
    b"\0",
    b"\n",
    b"\"a\":1,",
];

/// Changes bytes, wherever they are.
pub fn damage(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let to = (at + rng.usize(..40)).min(bytes.len());
    match rng.u32(..9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => bytes.truncate(at),
        3 => {
            bytes.drain(at..to);
        }
        4 => {
            let copy = bytes[at..to].to_vec();
            bytes.splice(at..at, copy);
        }
        5 => {
            // The beginning of one, the end of another.
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
        _ => {
            bytes.splice(at..at, any(rng, &PIECES).iter().copied());
        }
    }
}

pub fn any_bytes(rng: &mut Rng) -> Vec<u8> {
    let length = rng.usize(..200);
    match rng.u32(..3) {
        0 => (0..length).map(|_| rng.u8(..)).collect(),
        1 => (0..length).map(|_| any(rng, b"{}[]\",:\\0123456789truefalsn. -")).collect(),
        _ => (0..length / 4).flat_map(|_| any(rng, &PIECES).to_vec()).collect(),
    }
}
