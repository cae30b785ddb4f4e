//! Vocabularies that are learnt from text.

use sakiyomi_data::vocabulary::{SAMPLE_BYTES, train_tokenizer};
use sakiyomi_data::{Source, Vocabulary};

use crate::support::folder;

fn text() -> String {
    let words = ["lantern", "river", "grün", "the", "opened", "slowly", "—", "🦙"];
    (0..4000).map(|number| format!("{} ", words[(number * number + number / 7) % words.len()])).collect()
}

#[test]
fn a_learnt_vocabulary_holds_any_text_and_is_the_same_again() {
    let text = text();
    let folder = folder(&[("a.txt", text.as_bytes()), ("b.jsonl", b"{\"text\": \"river river\"}")]);
    let source = Source::path(folder.path());
    let train = |size, most| train_tokenizer(&source, size, most, &mut |_| {}).unwrap();
    let trained = train(290, SAMPLE_BYTES);
    assert_eq!(trained.size, 290);
    assert_eq!(trained.sample.bytes, text.len() as u64 + 11);
    assert_eq!(trained.json, train(290, SAMPLE_BYTES).json);
    fs_err::write(folder.path().join("tokenizer.json"), &trained.json).unwrap();
    let vocabulary = Vocabulary::load(folder.path()).unwrap();
    assert_eq!((vocabulary.size(), vocabulary.begin()), (290, None));
    assert_eq!(vocabulary.special_name(vocabulary.end().unwrap()).as_deref(), Some("<|endoftext|>"));
    for text in [&text[..], "unseen \u{0}\u{10ffff} ÿ\r\n\t", " ", ""] {
        let ids = vocabulary.encode(text).unwrap();
        assert_eq!(vocabulary.decode(&ids).unwrap(), text);
    }
    assert!(vocabulary.encode(" lantern river").unwrap().len() <= 4);
    let few = train(100_000, SAMPLE_BYTES);
    assert!(few.size < 1000, "only pairs that occur: {}", few.size);
}

#[test]
fn a_large_text_is_sampled_throughout() {
    let lines: String = (0..2000)
        .map(|number| format!("{{\"text\": \"{} word{number}\"}}\n", "and so on, ".repeat(40)))
        .collect();
    let folder = folder(&[("a.jsonl", lines.as_bytes())]);
    let mut told = 0;
    let most = lines.len() as u64 / 10;
    let trained =
        train_tokenizer(&Source::path(folder.path()), 300, most, &mut |size| told = size.documents).unwrap();
    assert_eq!(trained.sample.documents, 200);
    assert_eq!(told, 200);
}

#[test]
fn what_cannot_be_learnt_is_named() {
    let folder = folder(&[("a.jsonl", b"{\"text\": \"a\"}\n{")]);
    let source = Source::path(folder.path());
    let refused = |size| train_tokenizer(&source, size, SAMPLE_BYTES, &mut |_| {}).unwrap_err().to_string();
    assert!(refused(256).contains("256 ids: give 257 to"));
    assert!(refused(1 << 30).contains("give 257 to"));
    assert!(refused(300).contains("a.jsonl:2"));
    let little = train_tokenizer(&source, 300, 65_535, &mut |_| {}).unwrap_err().to_string();
    assert!(little.contains("a sample of 65535 bytes: give at least 65536"), "{little}");
}
