//! The boundary to libraries that panic on what a file or a folder holds: that is told as an error, like anything else that is
//! wrong with it.
//!
//! Files that fuzzing found make `tokenizers` do this in many places (a template that names a token it does not define, a merge
//! longer than every token, pieces of length 0), and `glob` does it on names that are not UTF-8; their insides cannot be checked
//! one by one from outside.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught and told as an error about a file. A panic hook asks this before it prints.
pub fn inside_library() -> bool {
    INSIDE.get()
}

/// What `call` returns, or the text of its panic. Nothing half-changed may be used afterwards: what `call` works on has to be
/// dropped, or only read.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(false);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
    })
}
