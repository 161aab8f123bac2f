//! The dataset files that are embedded in this build, and the one that `DATASET` picks.

use crate::dataset::{Dataset, DatasetError};

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "no dataset is named `{name}`; this build holds: {known}. Set DATASET to one of them, or to the path of a .yaml file"
    )]
    Unknown { name: String, known: String },
    #[error("cannot read the dataset file {path}: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error(transparent)]
    Invalid(#[from] DatasetError),
}

/// The embedded dataset of that name, or the dataset in the file where `choice` ends in `.yaml`.
pub fn load(choice: &str) -> Result<Dataset, LoadError> {
    if choice.ends_with(".yaml") || choice.ends_with(".yml") {
        let text = std::fs::read_to_string(choice)
            .map_err(|source| LoadError::Unreadable { path: choice.to_owned(), source })?;
        return Ok(Dataset::parse(choice, &text)?);
    }
    match EMBEDDED.iter().find(|(name, _)| *name == choice) {
        Some((name, text)) => Ok(Dataset::parse(&format!("datasets/{name}.yaml"), text)?),
        None => Err(LoadError::Unknown { name: choice.to_owned(), known: names().join(", ") }),
    }
}

/// The names of the embedded datasets.
pub fn names() -> Vec<&'static str> {
    EMBEDDED.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_is_embedded_with_the_nine_columns_of_the_original_pipeline() {
        let dataset = load("names").unwrap();
        let columns: Vec<_> = dataset.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(columns, ["name", "gender", "address", "city", "nation", "zip", "latitude", "longitude", "email"]);
    }

    #[test]
    fn an_unknown_dataset_is_answered_with_the_known_ones() {
        assert!(load("nmaes").unwrap_err().to_string().contains("this build holds: names"));
    }
}
