//! What the tests of this crate share.

use std::path::{Path, PathBuf};

/// The folder of a shared test model; `None`, with a line that says so, where the shared data is not beside the checkout.
#[allow(clippy::print_stderr)]
pub fn shared_model(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {} is not there", folder.display());
    None
}
