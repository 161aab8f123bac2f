//! docs/GUARANTEES.md names tests: each of them exists.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::server::root;

/// Names of all test functions below a folder.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            tests(&path, found);
        }
        if !name.ends_with(".rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim_start();
            if line == "on_each_broker!(" {
                let bodies = lines.by_ref().take_while(|line| *line != ");");
                found.extend(bodies.map(|line| line.trim().trim_end_matches(',').to_owned()));
                continue;
            }
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                // Other attributes may stand in between.
                let function = lines.by_ref().find(|line| line.contains("fn ")).unwrap();
                let name = function.split("fn ").nth(1).unwrap();
                found.insert(name.split(['(', '<']).next().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn every_test_that_guarantees_names_exists() {
    let text = std::fs::read_to_string(root().join("docs/GUARANTEES.md")).unwrap();
    let mut known = BTreeSet::new();
    tests(&root(), &mut known);
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.contains("| shown by |")) {
        let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "a promise without a test: {row}");
        for test in tests {
            assert!(known.contains(test), "docs/GUARANTEES.md names {test}, which is no test");
            named += 1;
        }
    }
    assert!(named > 30, "{named} tests are named: the tables were not read");
}
