//! `tokenizer.json`: any bytes give a vocabulary that takes any text and any ids, or a message.
#![no_main]

use data::Vocabulary;
use libfuzzer_sys::fuzz_target;

const TEXT: &str = "the 10 Cafés of\r\n\t«Łódź»   aa \u{0}\u{301}日本語 <|end|>";

fuzz_target!(init: panics_of_the_library_are_told_as_errors(), |bytes: &[u8]| {
    let vocabulary = match Vocabulary::parse(bytes) {
        Ok(vocabulary) => vocabulary,
        Err(error) => return drop(error.to_string()),
    };
    let ids = match vocabulary.encode(TEXT) {
        Ok(ids) => ids,
        Err(error) => return drop(error.to_string()),
    };
    let beyond = u32::try_from(vocabulary.size()).unwrap_or(u32::MAX);
    let mut stream = vocabulary.stream();
    for &id in ids.iter().chain(&[0, beyond, u32::MAX]) {
        let _ = (vocabulary.token_bytes(id), vocabulary.special_name(id), stream.push(id));
    }
    if let Err(error) = vocabulary.lost_bytes(TEXT, &ids) {
        drop(error.to_string());
    }
    if let Err(error) = vocabulary.decode(&ids) {
        drop(error.to_string());
    }
});

/// The fuzzer's own hook aborts at every panic, also at those that are caught.
fn panics_of_the_library_are_told_as_errors() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !data::inside_library() {
            abort(panic);
        }
    }));
}
