//! Numbers as people read them.

/// `1,234,567`
pub fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// `850 B`, `12.3 MB`
pub fn bytes(number: i64) -> String {
    let (mut value, mut unit) = (number as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") }
}

/// `850 ms`, `1.2 s`, `3 min`
pub fn milliseconds(number: i64) -> String {
    match number {
        ..1_000 => format!("{number} ms"),
        1_000..120_000 => format!("{:.1} s", number as f64 / 1000.0),
        _ => crate::text::age(number / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [thousands(0), thousands(-1234), thousands(999), thousands(1_000_000)],
            ["0", "-1,234", "999", "1,000,000"]
        );
        assert_eq!([bytes(999), bytes(12_345_678), bytes(5_000)], ["999 B", "12.3 MB", "5.0 kB"]);
        assert_eq!([milliseconds(850), milliseconds(1_250), milliseconds(180_000)], ["850 ms", "1.2 s", "3 min"]);
    }
}
