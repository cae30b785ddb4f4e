//! A run file: any bytes give settings that can be written and read again, or a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use train::RunConfig;

fuzz_target!(|bytes: &[u8]| {
    match RunConfig::parse_bytes(bytes, "run.toml", &[]) {
        Ok(config) => {
            let written = config.to_toml();
            let again = RunConfig::parse(&written, "written.toml", &[]).expect("what is written can be read");
            assert_eq!(again.to_toml(), written);
        }
        Err(error) => drop(error.to_string()),
    }
});
