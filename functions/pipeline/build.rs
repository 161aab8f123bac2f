//! Embeds every file of `datasets/`, and refuses the build when one of them is wrong.

use std::fmt::Write as _;
use std::path::Path;

#[allow(dead_code, unused_imports)]
#[path = "src/dataset.rs"]
mod dataset;

fn main() {
    if let Err(problem) = embed() {
        println!("cargo::error={problem}");
    }
}

fn embed() -> Result<(), String> {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let folder = Path::new(&manifest).join("../../datasets");
    let folder = folder.canonicalize().map_err(|e| format!("datasets/: {e}"))?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .map_err(|e| format!("datasets/: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();

    let mut list = String::from("pub(crate) const EMBEDDED: &[(&str, &str)] = &[\n");
    for path in files {
        println!("cargo::rerun-if-changed={}", path.display());
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).map_err(|e| format!("datasets/{stem}.yaml: {e}"))?;
        let dataset = dataset::Dataset::parse(&format!("datasets/{stem}.yaml"), &text).map_err(|e| e.to_string())?;
        if dataset.name != stem {
            return Err(format!(
                "datasets/{stem}.yaml: the dataset is named `{}`: name the file after it",
                dataset.name
            ));
        }
        let _ = writeln!(list, "    ({stem:?}, include_str!({:?})),", path.display().to_string());
    }
    list.push_str("];\n");
    let out = std::env::var("OUT_DIR").map_err(|e| e.to_string())?;
    std::fs::write(Path::new(&out).join("embedded.rs"), list).map_err(|e| e.to_string())
}
