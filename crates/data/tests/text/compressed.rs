//! Packed files: what is in them, and what is said when they are damaged.

use std::io::Write;

use sakiyomi_data::Source;

use crate::support::{folder, refusal, texts};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Lines that do not repeat each other, so that packing leaves something to cut.
fn lines() -> String {
    let mut number = 1u64;
    let mut line = |_| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{{\"text\": \"{number:x}\"}}\n")
    };
    (0..20_000).map(&mut line).collect()
}

#[test]
fn packed_files_hold_the_same_documents() {
    let lines = lines();
    let (first, second) = lines.split_at(lines.len() / 3);
    let frames = |pack: fn(&[u8]) -> Vec<u8>| [pack(first.as_bytes()), pack(second.as_bytes())].concat();
    // A frame that readers are to skip, between two others.
    let skipped = [
        zstandard(first.as_bytes()),
        b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(),
        zstandard(second.as_bytes()),
    ];
    let folder = folder(&[
        ("plain.jsonl", lines.as_bytes()),
        ("one.jsonl.gz", &gzip(lines.as_bytes())),
        ("two.jsonl.gz", &frames(gzip)),
        ("one.jsonl.zst", &zstandard(lines.as_bytes())),
        ("two.jsonl.zst", &frames(zstandard)),
        ("skipped.jsonl.zst", &skipped.concat()),
        ("a.txt.gz", &gzip("é text".as_bytes())),
        ("a.txt.zst", &zstandard("é text".as_bytes())),
    ]);
    let of = |name: &str| texts(&Source::path(folder.path().join(name)));
    let plain = of("plain.jsonl");
    assert_eq!(plain.len(), 20_000);
    for name in ["one.jsonl.gz", "two.jsonl.gz", "one.jsonl.zst", "two.jsonl.zst", "skipped.jsonl.zst"] {
        assert!(of(name) == plain, "{name}");
    }
    assert_eq!(of("a.txt.gz"), ["é text"]);
    assert_eq!(of("a.txt.zst"), ["é text"]);
}

#[test]
fn damage_is_named_with_the_line_before_it() {
    for (name, packed) in
        [("a.jsonl.gz", gzip(lines().as_bytes())), ("a.jsonl.zst", zstandard(lines().as_bytes()))]
    {
        let of = |bytes: &[u8]| {
            let folder = folder(&[(name, bytes)]);
            refusal(&Source::path(folder.path().join(name)))
        };
        for cut in [1, 3, 9, packed.len() / 2, packed.len() - 4, packed.len() - 1] {
            let message = of(&packed[..cut]);
            assert!(
                message.contains(name) && message.contains("was cut short or altered"),
                "{cut}: {message}"
            );
        }
        assert!(!of(&packed[..packed.len() / 2]).contains("after line 1:"));
        let mut altered = packed.clone();
        let at = packed.len() - 2;
        altered[at] ^= 0x40;
        assert!(of(&altered).contains("was cut short or altered"), "{name}");
        assert!(of(b"{\"text\": \"not packed\"}").contains("was cut short or altered"), "{name}");
    }
}
