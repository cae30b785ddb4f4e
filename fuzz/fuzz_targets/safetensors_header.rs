//! The header of a safetensors file and the index of a sharded one: any bytes give their entries or a message of one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::checkpoint::{parse_header, parse_index};

fuzz_target!(|bytes: &[u8]| {
    match parse_header(bytes) {
        Ok(header) => {
            let end = header.tensors.last().map_or(bytes.len() as u64, |last| last.start + last.bytes);
            assert_eq!(end, bytes.len() as u64, "the data is that of the tensors");
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
    if let Err(error) = parse_index(bytes) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
});
