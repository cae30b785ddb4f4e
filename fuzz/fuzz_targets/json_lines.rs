//! A line of a `.jsonl` file: any bytes give a text, none, or a message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match data::documents::json_line(bytes, "text") {
        Ok(text) => assert!(text.is_none_or(|text| !text.trim().is_empty())),
        Err(reason) => assert!(!reason.is_empty()),
    }
});
