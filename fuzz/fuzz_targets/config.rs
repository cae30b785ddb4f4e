//! `config.json`: any bytes give a description or a message of one line.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = model::checkpoint::parse_config(bytes) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
});
