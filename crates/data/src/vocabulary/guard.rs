//! The boundary to the `tokenizers` crate: where a `tokenizer.json` makes it panic, the file is refused like any other
//! that is wrong.
//!
//! Files that fuzzing found do this in many places (a template that names a token it does not define, a merge longer
//! than every token, pieces of length 0), and its parts cannot be checked one by one from outside.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{Error, Result};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught and told as an error in a tokenizer file. A panic hook asks this before
/// it prints.
pub fn inside_tokenizer() -> bool {
    INSIDE.get()
}

/// Calls the `tokenizers` crate; its panics and errors are about the file `path`.
pub(super) fn guarded<T>(path: &Path, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let wrong = |reason: String| Error::Tokenizer { path: path.to_owned(), reason };
    INSIDE.set(true);
    // Nothing half-changed is used afterwards: what panics is dropped, or only read.
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(false);
    match outcome {
        Ok(result) => result.map_err(|error| wrong(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(wrong(format!("contradicts itself: the tokenizers library fails on it ({text})")))
        }
    }
}
