//! What must hold of the rows of people, whatever read them.

use std::collections::BTreeSet;

use serde_json::Value;

/// What holds of every row, whoever is in it.
pub fn check(rows: &[Value], published: u64) {
    assert_eq!(rows.len() as u64, published);
    let emails: BTreeSet<_> = rows.iter().map(|r| r["email"].as_str().unwrap()).collect();
    assert_eq!(emails.len() as u64, published, "each person once");
    let places: BTreeSet<_> = rows.iter().map(|r| (r["_partition"].as_i64(), r["_offset"].as_i64())).collect();
    assert_eq!(places.len() as u64, published);
    for row in rows {
        let zip = row["zip"].as_str().unwrap();
        assert!(zip.len() == 64 && zip.bytes().all(|b| b.is_ascii_hexdigit()), "a postcode in clear: {zip}");
        let time = row["_timestamp"].as_str().unwrap();
        assert_eq!((&time[..10], &time[11..13]), (row["dt"].as_str().unwrap(), row["hour"].as_str().unwrap()));
    }
}

/// Values, not counts: a person as the API was recorded to give him.
pub fn check_mathis(rows: &[Value]) {
    let mathis = rows.iter().find(|r| r["email"] == "mathis.berthelsen@example.com").unwrap();
    assert_eq!(mathis["name"], "Mr. Mathis Berthelsen");
    assert_eq!(mathis["gender"], "male");
    assert_eq!(mathis["address"], "2054, Linaaes gate");
    assert_eq!(mathis["city"], "Bybrua");
    assert_eq!(mathis["nation"], "Norway");
    assert_eq!((mathis["latitude"].as_f64(), mathis["longitude"].as_f64()), (Some(43.6447), Some(-131.0133)));
    assert_eq!(mathis["_extra"], Value::Null);
    assert_eq!(mathis["_epoch"], 0);
}
