//! `config.json`: any bytes give a description or a message.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = model::checkpoint::parse_config(bytes) {
        drop(error.to_string());
    }
});
