//! What `Cargo.toml` promises: the oldest Rust that builds the package. That our own code keeps to
//! it is checked by clippy (`incompatible_msrv`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what cargo says must be readable, or the test fails"
)]

use std::process::Command;

use serde_json::Value;

/// `1.89` and `1.89.0` as numbers that compare.
fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    parts
}

#[test]
fn no_dependency_needs_a_newer_rust_than_we_declare() {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{}", packages.len());
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    let newer: Vec<_> = packages
        .iter()
        .filter_map(|package| Some((package["rust_version"].as_str()?, &package["name"])))
        .filter(|(wanted, _)| version(wanted) > ours)
        .collect();
    assert!(newer.is_empty(), "need a newer Rust: {newer:?}");
}
