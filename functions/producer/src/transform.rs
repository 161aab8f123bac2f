//! One element of the API's answer → one record of the topic, or why it cannot be one. Pure.

use jmespath::{Rcvar, Variable};
use pipeline::dataset::{Column, Dataset};
use pipeline::record::{self, HashKey};
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;

/// An element that makes no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// What was wrong with each column. Names columns and types, quotes no value.
    pub error: String,
    /// JSON object, column → what its expression yielded; a hashed column has its hash, or null.
    pub yielded: Vec<u8>,
}

/// The record as JSON, its fields in the order of the columns.
pub fn transform(dataset: &Dataset, key: Option<&HashKey>, element: &Rcvar) -> Result<Vec<u8>, Rejected> {
    let mut fields = Vec::with_capacity(dataset.columns.len());
    let mut errors = Vec::new();
    let mut yielded = Vec::with_capacity(dataset.columns.len());
    for column in &dataset.columns {
        let found = record::extract(&column.expression, element);
        let value = match &found {
            Ok(found) => record::to_json(column, found).and_then(|value| hashed(column, key, value)),
            Err(reason) => Err(reason.clone()),
        };
        match value {
            Ok(value) => fields.push((column.name.as_str(), value)),
            Err(error) => errors.push(format!("{} {error}", column.name)),
        }
        yielded.push((column, found.ok()));
    }
    if errors.is_empty() {
        return Ok(to_json_object(fields.iter().map(|(name, value)| (*name, value))));
    }
    let shown: Vec<_> =
        yielded.iter().map(|(column, found)| (column.name.as_str(), shown(column, key, found.as_ref()))).collect();
    Err(Rejected {
        error: errors.join("; "),
        yielded: to_json_object(shown.iter().map(|(name, value)| (*name, value))),
    })
}

/// A hashed column's value leaves this function as its hash; without a key it does not leave.
fn hashed(column: &Column, key: Option<&HashKey>, value: Value) -> Result<Value, String> {
    match (column.hashed, value) {
        (false, value) => Ok(value),
        (true, Value::Null) => Ok(Value::Null),
        (true, Value::String(text)) => match key {
            Some(key) => Ok(Value::String(key.hash(&text))),
            None => Err("is hashed, and there is no hash key".to_owned()),
        },
        (true, _) => Err("is hashed, and is no string".to_owned()),
    }
}

/// What an expression yielded, as a dead letter may hold it.
fn shown(column: &Column, key: Option<&HashKey>, found: Option<&Rcvar>) -> Value {
    match found.map(AsRef::as_ref) {
        Some(Variable::String(text)) if column.hashed => key.map_or(Value::Null, |key| Value::String(key.hash(text))),
        Some(found) if !column.hashed => serde_json::to_value(found).unwrap_or(Value::Null),
        _ => Value::Null,
    }
}

fn to_json_object<'a>(fields: impl ExactSizeIterator<Item = (&'a str, &'a Value)>) -> Vec<u8> {
    let mut json = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut json);
    // Values with text keys always serialise, and a Vec takes every write.
    if let Ok(mut map) = serializer.serialize_map(Some(fields.len())) {
        for (name, value) in fields {
            let _ = map.serialize_entry(name, value);
        }
        let _ = SerializeMap::end(map);
    }
    json
}

#[cfg(test)]
mod tests {
    use pipeline::datasets;
    use serde_json::json;

    use super::*;

    fn element(json: &Value) -> Rcvar {
        Rcvar::new(Variable::from_json(&json.to_string()).unwrap())
    }

    fn person() -> Value {
        json!({
            "name": {"title": "Mr", "first": "Ada", "last": "Byron"},
            "gender": "female",
            "location": {
                "street": {"number": 8929, "name": "Valwood Pkwy"}, "city": "Billings", "country": "United States",
                "postcode": 63104, "coordinates": {"latitude": "-69.8246", "longitude": "134.8719"}
            },
            "email": "ada@example.com", "login": {"password": "never asked for"}
        })
    }

    fn key() -> HashKey {
        HashKey::new("0123456789abcdef").unwrap()
    }

    fn run(json: &Value) -> Result<Value, Rejected> {
        let dataset = datasets::load("names").unwrap();
        transform(&dataset, Some(&key()), &element(json)).map(|record| serde_json::from_slice(&record).unwrap())
    }

    #[test]
    fn a_person_becomes_the_nine_columns_in_their_order() {
        let dataset = datasets::load("names").unwrap();
        let record = String::from_utf8(transform(&dataset, Some(&key()), &element(&person())).unwrap()).unwrap();
        let zip = key().hash("63104");
        assert_eq!(
            record,
            format!(
                r#"{{"name":"Mr. Ada Byron","gender":"female","address":"8929, Valwood Pkwy","city":"Billings","nation":"United States","zip":"{zip}","latitude":-69.8246,"longitude":134.8719,"email":"ada@example.com"}}"#
            )
        );
    }

    #[test]
    fn an_optional_column_that_is_absent_is_null() {
        let mut person = person();
        person["location"].as_object_mut().unwrap().remove("postcode");
        person.as_object_mut().unwrap().remove("gender");
        let record = run(&person).unwrap();
        assert_eq!((&record["zip"], &record["gender"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn all_that_is_wrong_with_a_record_stands_in_one_message() {
        let mut person = person();
        person["email"] = json!(null);
        person["gender"] = json!(1);
        let rejected = run(&person).unwrap_err();
        assert_eq!(rejected.error, "gender is of JSON type number, expected string; email is required and absent");
        let yielded: Value = serde_json::from_slice(&rejected.yielded).unwrap();
        assert_eq!(yielded["gender"], 1);
        assert_eq!(yielded["zip"], key().hash("63104"));
        assert_eq!(yielded["city"], "Billings");
        assert!(!String::from_utf8(rejected.yielded).unwrap().contains("never asked for"));
    }

    #[test]
    fn an_element_that_is_no_object_is_rejected_for_its_required_columns() {
        for odd in [json!("text"), json!(7), json!(null), json!([1]), json!({})] {
            let rejected = run(&odd).unwrap_err();
            assert!(rejected.error.contains("email is required and absent"), "{odd}: {}", rejected.error);
        }
    }

    #[test]
    fn a_hashed_columns_source_is_neither_in_the_error_nor_in_what_is_kept() {
        // The postcode as a column that takes it as it comes: a number is a wrong type, and withheld.
        let yaml = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/names.yaml")).unwrap();
        let yaml = yaml.replace("location.postcode && to_string(location.postcode)", "location.postcode");
        let dataset = Dataset::parse("names.yaml", &yaml).unwrap();
        let mut odd = person();
        for postcode in [json!(63104), json!([63104]), json!({"code": 63104}), json!("63104")] {
            odd["location"]["postcode"] = postcode;
            odd["email"] = json!(null);
            let rejected = transform(&dataset, Some(&key()), &element(&odd)).unwrap_err();
            let kept = String::from_utf8(rejected.yielded).unwrap();
            assert!(!rejected.error.contains("63104") && !kept.contains("63104"), "{} {kept}", rejected.error);
        }
        // Without a key nothing of it is kept.
        let rejected = transform(&dataset, None, &element(&odd)).unwrap_err();
        assert!(rejected.error.contains("zip is hashed, and there is no hash key"));
        assert!(!String::from_utf8(rejected.yielded).unwrap().contains("63104"));
    }
}
