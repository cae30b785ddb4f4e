//! Folders of text for tests.

use std::path::PathBuf;

use sakiyomi_data::{Document, Documents, Source};

/// A temporary folder with these files.
pub fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    folder
}

/// All documents of a source.
pub fn read(source: &Source) -> Vec<Document> {
    Documents::of(source).unwrap().collect::<Result<_, _>>().unwrap()
}

/// Their texts.
pub fn texts(source: &Source) -> Vec<String> {
    read(source).into_iter().map(|document| document.text).collect()
}

/// Why a source cannot be read, which must be one line.
pub fn refusal(source: &Source) -> String {
    let read = Documents::of(source).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let message = read.unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message:?}");
    message
}

/// A folder of texts that tests share with other programs, if it is here.
pub fn shared(path: &str) -> Option<PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        eprintln!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}
