//! The cache follows its source and is never trusted where it is damaged.

use std::path::Path;
use std::sync::Arc;

use sakiyomi_data::cache::{CacheOutcome, Reason};
use sakiyomi_data::{
    Corpus, Error, Loader, Source, Tokenised, Vocabulary, load_or_build, load_or_build_watched,
};

use crate::support::folder;

/// All that a corpus tells.
fn contents(corpus: &Corpus) -> Vec<(String, u64, Vec<u32>)> {
    (0..corpus.documents())
        .map(|index| (corpus.name(index), corpus.text_bytes(index), corpus.document(index).unwrap()))
        .collect()
}

fn file(outcome: &CacheOutcome) -> &Path {
    match outcome {
        CacheOutcome::Read(path) | CacheOutcome::Written(path, _) => path,
        other => panic!("no file: {other:?}"),
    }
}

#[test]
fn the_cache_follows_its_source_and_survives_damage() {
    let folder =
        folder(&[("a.txt", b"some text"), ("b.jsonl", b"{\"text\": \"more\"}\n{\"text\": \"and more\"}")]);
    let cache = folder.path().join("cache");
    let source = Source {
        paths: vec![folder.path().join("a.txt"), folder.path().join("b.jsonl")],
        ..Source::default()
    };
    let vocabulary = Vocabulary::bytes();
    let load = |source: &Source| load_or_build(Some(&cache), source, &vocabulary).unwrap();

    let (first, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Written(_, Reason::New)));
    let (second, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Read(_)));
    assert_eq!(contents(&first), contents(&second));
    let (uncached, outcome) = load_or_build(None, &source, &vocabulary).unwrap();
    assert_eq!(outcome, CacheOutcome::NotUsed);
    assert_eq!(contents(&first), contents(&uncached));
    assert_eq!(first.fingerprint(&[0, 2]), second.fingerprint(&[0, 2]));
    assert_ne!(first.fingerprint(&[0, 2]), first.fingerprint(&[0, 1]));
    let in_memory = Corpus::from_tokens(&[first.document(1).unwrap()]);
    assert_eq!(in_memory.length(0), first.length(1));

    fs_err::write(folder.path().join("a.txt"), "other, longer text").unwrap();
    let (changed, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Written(_, Reason::SourceChanged)));
    assert_ne!(contents(&changed), contents(&first));
    // The file that the first corpus reads from has lost its name only.
    assert_eq!(contents(&first), contents(&second));

    let path = file(&outcome);
    let good = fs_err::read(path).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).filter(|at| !(8..24).contains(at)).map(flipped).collect();
    damaged.extend([0, 31, 32, good.len() / 2, good.len() - 1].map(|length| good[..length].to_vec()));
    damaged.push([&good[..], b"x"].concat());
    for damaged in damaged {
        fs_err::write(path, damaged).unwrap();
        let (rebuilt, outcome) = load(&source);
        assert_eq!(outcome, CacheOutcome::Written(path.to_path_buf(), Reason::Damaged));
        assert_eq!(contents(&rebuilt), contents(&changed));
        assert_eq!(fs_err::read(path).unwrap(), good);
    }
    fs_err::write(path, flipped(9)).unwrap();
    assert_eq!(load(&source).1, CacheOutcome::Written(path.to_path_buf(), Reason::SourceChanged));

    for other in [
        Source { longest_document_bytes: 5, ..source.clone() },
        Source { separator: Some("x".into()), ..source.clone() },
        Source { paths: source.paths[1..].to_vec(), ..source.clone() },
    ] {
        let (_, outcome) = load(&other);
        assert!(matches!(outcome, CacheOutcome::Written(_, Reason::New)), "{other:?}");
        assert_ne!(file(&outcome), path);
    }
    let left: Vec<_> = fs_err::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn another_vocabulary_has_another_file() {
    let Some(tokenizers) = crate::support::shared("tokenizers") else { return };
    let folder = folder(&[("a.txt", b"some text")]);
    let source = Source::path(folder.path().join("a.txt"));
    let cache = folder.path().join("cache");
    let load = |vocabulary| load_or_build(Some(&cache), &source, &vocabulary).unwrap();
    let (_, bytes) = load(Vocabulary::bytes());
    let (corpus, gpt2) = load(Vocabulary::load(&tokenizers.join("gpt2")).unwrap());
    assert_ne!(file(&bytes), file(&gpt2));
    assert_eq!(corpus.document(0).unwrap(), [11_246, 2420, 50_256]);
}

#[test]
fn a_folder_that_cannot_be_used_stops_nothing() {
    let folder = folder(&[("a.txt", b"some text")]);
    let not_a_folder = folder.path().join("a.txt");
    let source = Source::path(folder.path());
    let (corpus, outcome) = load_or_build(Some(&not_a_folder), &source, &Vocabulary::bytes()).unwrap();
    assert!(matches!(outcome, CacheOutcome::NotKept(_)));
    assert_eq!(corpus.length(0), 11);
}

#[test]
fn several_can_make_the_same_cache_at_once() {
    let text: String = (0..20_000).map(|number| format!("{{\"text\": \"line {number}\"}}\n")).collect();
    let folder = folder(&[("a.jsonl", text.as_bytes())]);
    let source = Source::path(folder.path().join("a.jsonl"));
    let cache = folder.path().join("cache");
    let made: Vec<(Corpus, CacheOutcome)> = std::thread::scope(|scope| {
        let load = || load_or_build(Some(&cache), &source, &Vocabulary::bytes()).unwrap();
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let expected = contents(&load_or_build(None, &source, &Vocabulary::bytes()).unwrap().0);
    for (corpus, outcome) in &made {
        assert!(
            matches!(outcome, CacheOutcome::Read(_) | CacheOutcome::Written(_, Reason::New)),
            "{outcome:?}"
        );
        assert!(contents(corpus) == expected);
    }
    assert_eq!(fs_err::read_dir(&cache).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_no_panic() {
    let folder = folder(&[("a.jsonl", "{\"text\": \"some words\"}\n".repeat(50).as_bytes())]);
    let source = Source::path(folder.path().join("a.jsonl"));
    let (corpus, outcome) =
        load_or_build(Some(&folder.path().join("cache")), &source, &Vocabulary::bytes()).unwrap();
    let mut loader = Loader::new(Arc::new(corpus), (0..50).collect(), 2, 8, 2, 0).unwrap();
    loader.next().unwrap();
    fs_err::OpenOptions::new().write(true).open(file(&outcome)).unwrap().set_len(100).unwrap();
    let message = (0..50).find_map(|_| loader.next().err()).unwrap().to_string();
    assert!(message.contains("cannot read the tokens in") && message.contains("tokens-"), "{message}");
}

#[test]
fn whoever_watches_is_told_how_far_it_is_and_may_stop() {
    let line = format!("{{\"text\": \"{}\"}}\n", "a".repeat(3 << 20));
    let folder = folder(&[("a.jsonl", line.repeat(4).as_bytes())]);
    let (cache, source) = (folder.path().join("some/cache"), Source::path(folder.path().join("a.jsonl")));
    let load = |stop_at: usize| {
        let mut told = Vec::new();
        let loaded = load_or_build_watched(Some(&cache), &source, &Vocabulary::bytes(), &mut |done| {
            told.push(done);
            told.len() < stop_at
        });
        (loaded, told)
    };
    let (stopped, told) = load(1);
    assert!(matches!(stopped, Err(Error::Stopped)));
    let bytes = 2 * (3 << 20);
    let half =
        Tokenised { documents: 2, text_bytes: bytes, tokens: bytes + 4, file_bytes: 4 * line.len() as u64 };
    assert_eq!(told, [half]);
    assert!(!folder.path().join("some").exists(), "nothing is left behind");
    let (whole, told) = load(9);
    assert_eq!(told[1], Tokenised { documents: 4, text_bytes: 2 * bytes, tokens: 2 * bytes + 8, ..half });
    assert_eq!(whole.unwrap().0.token_count() as u64, 2 * bytes + 8);
    assert!(load(1).1.is_empty(), "what is kept is not tokenised again");
}

#[test]
fn what_was_lost_is_kept_with_the_tokens() {
    let model = r#"{"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0, "b": 1, "?": 2}}"#;
    let tokenizer = format!(
        r#"{{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {{"type": "WhitespaceSplit"}},
        "post_processor": null, "decoder": null, "model": {model}}}"#
    );
    let vocabulary = Vocabulary::parse(tokenizer.as_bytes()).unwrap();
    let folder = folder(&[
        ("a.jsonl", b"{\"text\": \"a b\"}\n{\"text\": \"a xyz b\"}"),
        ("b.jsonl", b"{\"text\": \"b\"}"),
    ]);
    let load = |name: &str| {
        let source = Source::path(folder.path().join(name));
        load_or_build(Some(&folder.path().join("cache")), &source, &vocabulary).unwrap()
    };
    for written in [true, false] {
        let (corpus, outcome) = load("a.jsonl");
        assert_eq!(matches!(outcome, CacheOutcome::Written(..)), written);
        // A space between the second pair of words joins them again, and xyz with one of the spaces around it is gone.
        assert_eq!(corpus.lost_bytes(), (3 + 7, 4));
        assert!(corpus.loss_note().unwrap().contains("4 of the 10 bytes of the text (40.00 %)"));
    }
    assert_eq!(load("b.jsonl").0.loss_note(), None);
}
