//! The people: as recorded, and put together anew from their parts.
//!
//! An answer is written as text, from pieces of the recorded text: thousands of people in milliseconds, and every
//! detail of a value (`"postcode": 72429` here, `"postcode": "8261"` there) stays as the real API writes it.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

const RECORDED: [&str; 2] =
    [include_str!("../../fixtures/randomuser/v1.4-30.json"), include_str!("../../fixtures/randomuser/v1.3-50.json")];

/// How long a person is as JSON, roughly: the room to reserve.
const BYTES: usize = 1200;

#[derive(Debug)]
pub(super) struct People {
    recorded: Vec<Person<'static>>,
    distinct: bool,
    seed: u64,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

/// A recorded person: the whole, and its parts, each a piece of JSON.
#[derive(Debug, Deserialize)]
struct Person<'a> {
    #[serde(skip)]
    whole: &'a str,
    #[serde(borrow)]
    gender: &'a RawValue,
    #[serde(borrow)]
    name: Name<'a>,
    #[serde(borrow)]
    location: Location<'a>,
    email: String,
    #[serde(borrow)]
    login: &'a RawValue,
    #[serde(borrow)]
    dob: &'a RawValue,
    #[serde(borrow)]
    registered: &'a RawValue,
    #[serde(borrow)]
    phone: &'a RawValue,
    #[serde(borrow)]
    cell: &'a RawValue,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    picture: &'a RawValue,
    #[serde(borrow)]
    nat: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct Name<'a> {
    #[serde(borrow)]
    title: &'a RawValue,
    #[serde(borrow)]
    first: &'a RawValue,
    #[serde(borrow)]
    last: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct Location<'a> {
    #[serde(borrow)]
    street: Street<'a>,
    #[serde(borrow)]
    city: &'a RawValue,
    #[serde(borrow)]
    state: &'a RawValue,
    #[serde(borrow)]
    country: &'a RawValue,
    #[serde(borrow)]
    postcode: &'a RawValue,
    #[serde(borrow)]
    timezone: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct Street<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
}

impl People {
    pub(super) fn new(distinct: bool, seed: u64) -> Result<Self, serde_json::Error> {
        let mut recorded = Vec::new();
        for answer in RECORDED {
            for person in serde_json::from_str::<Answer>(answer)?.results {
                recorded.push(Person { whole: person.get(), ..serde_json::from_str(person.get())? });
            }
        }
        Ok(Self { recorded, distinct, seed })
    }

    /// The answer with `count` people, from the one with number `first`.
    pub(super) fn answer(&self, first: u64, count: u64) -> String {
        let mut json = String::with_capacity(200 + usize::try_from(count).unwrap_or(0) * BYTES);
        json.push_str(r#"{"results": ["#);
        for number in first..first + count {
            if number > first {
                json.push_str(", ");
            }
            self.person(number, &mut json);
        }
        // Writing to a String does not fail.
        let _ = write!(
            json,
            r#"], "info": {{"seed": "{:016x}", "results": {count}, "page": 1, "version": "1.4"}}}}"#,
            self.seed
        );
        json
    }

    /// Writes the person with this number, always the same one.
    fn person(&self, number: u64, json: &mut String) {
        let known = self.recorded.len() as u64;
        match usize::try_from(number % known) {
            // The remainder is below the length.
            Ok(index) if !self.distinct || number < known => json.push_str(self.recorded[index].whole),
            _ => self.new_person(number, json),
        }
    }

    fn new_person(&self, number: u64, json: &mut String) {
        let mut random = Random(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (who, place) = (self.any(&mut random), self.any(&mut random));
        let (name, location) = (&who.name, &place.location);
        // The pieces are JSON strings, so the last byte of a last name is its quote: the number goes before it.
        let last = name.last.get().strip_suffix('"').unwrap_or_default();
        let mailbox = who.email.split('@').next().unwrap_or_default();
        let (uuid_high, uuid_low) = (random.next(), random.next());
        // The first member of `login` is its uuid, the only part that is meant to identify anybody.
        let login = login_without_uuid(who.login.get());
        let latitude = random.coordinate(90);
        let longitude = random.coordinate(180);
        let street_number = 1 + random.below(9999);
        // Writing to a String does not fail.
        let _ = write!(
            json,
            concat!(
                r#"{{"gender": {gender}, "name": {{"title": {title}, "first": {first}, "last": {last} {number}"}}, "#,
                r#""location": {{"street": {{"number": {street_number}, "name": {street}}}, "city": {city}, "#,
                r#""state": {state}, "country": {country}, "postcode": "#,
            ),
            gender = who.gender,
            title = name.title,
            first = name.first,
            last = last,
            number = number,
            street_number = street_number,
            street = location.street.name,
            city = location.city,
            state = location.state,
            country = location.country,
        );
        postcode_like(location.postcode.get(), &mut random, json);
        let _ = write!(
            json,
            concat!(
                r#", "coordinates": {{"latitude": "{latitude}", "longitude": "{longitude}"}}, "timezone": {timezone}}}, "#,
                r#""email": "{mailbox}.{number}@example.com", "#,
                r#""login": {{"uuid": "{a:08x}-{b:04x}-4{c:03x}-8{d:03x}-{e:012x}"{login}, "#,
                r#""dob": {dob}, "registered": {registered}, "phone": {phone}, "cell": {cell}, "id": {id}, "#,
                r#""picture": {picture}, "nat": {nat}}}"#,
            ),
            latitude = latitude,
            longitude = longitude,
            timezone = location.timezone,
            mailbox = mailbox,
            number = number,
            a = uuid_high >> 32,
            b = (uuid_high >> 16) & 0xffff,
            c = uuid_high & 0xfff,
            d = uuid_low >> 52,
            e = uuid_low & 0xffff_ffff_ffff,
            login = login,
            dob = who.dob,
            registered = who.registered,
            phone = who.phone,
            cell = who.cell,
            id = who.id,
            picture = who.picture,
            nat = place.nat,
        );
    }

    fn any(&self, random: &mut Random) -> &Person<'static> {
        // Below the length, which is that of two files that are compiled in.
        &self.recorded[random.below(self.recorded.len() as u64) as usize]
    }
}

/// `, "username": …}` of `{"uuid": "…", "username": …}`.
fn login_without_uuid(login: &str) -> &str {
    login.find(',').map_or("}", |comma| &login[comma..])
}

/// A postcode with other digits, of the same type and shape.
fn postcode_like(postcode: &str, random: &mut Random, json: &mut String) {
    let mut leading = true;
    for character in postcode.chars() {
        if character.is_ascii_digit() {
            // A number does not begin with 0.
            let digit = if leading { 1 + random.below(9) } else { random.below(10) };
            json.push(char::from(b'0' + digit as u8));
            leading = false;
        } else {
            json.push(character);
        }
    }
}

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Degrees with four decimals, as the API writes them: `-53.1457`.
    fn coordinate(&mut self, most: u64) -> String {
        let sign = if self.below(2) == 0 { "" } else { "-" };
        format!("{sign}{}.{:04}", self.below(most), self.below(10_000))
    }
}

/// The recorded people, read by other means than the above.
#[cfg(test)]
pub(super) fn recorded_people() -> Vec<serde_json::Value> {
    let answers = RECORDED.map(|answer| serde_json::from_str::<serde_json::Value>(answer).unwrap());
    answers.iter().flat_map(|answer| answer["results"].as_array().unwrap().clone()).collect()
}
