//! Names the sources that a build was made of, so that a figure can say what it was measured on.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the node's sources are.
const FOLDER: &str = "src";

fn main() {
    let mut files = Vec::new();
    collect(Path::new(FOLDER), &mut files);
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let content = fs::read(file).unwrap_or_default();
        hash.update(file.strip_prefix(FOLDER).unwrap_or(file).to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update(u64::try_from(content.len()).unwrap_or(0).to_le_bytes());
        hash.update(&content);
    }
    let digest = hash.finalize();
    let text: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo:rustc-env=QUORATE_SOURCE_NODE={text}");
    println!("cargo:rerun-if-changed={FOLDER}");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
