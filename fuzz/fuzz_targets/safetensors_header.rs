//! The header of a safetensors file and the index of a sharded one: any bytes give their entries or a message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::checkpoint::{parse_header, parse_index};

fuzz_target!(|bytes: &[u8]| {
    match parse_header(bytes) {
        Ok(header) => {
            let end = header.tensors.last().map_or(bytes.len() as u64, |last| last.start + last.bytes);
            assert_eq!(end, bytes.len() as u64, "the data is that of the tensors");
        }
        Err(error) => drop(error.to_string()),
    }
    if let Err(error) = parse_index(bytes) {
        drop(error.to_string());
    }
});
