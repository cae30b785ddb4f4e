//! Files into documents and tokens, the cache, and what is said about bad input.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;

use sakiyomi_data::cache::{CacheOutcome, Reason};
use sakiyomi_data::loader::Loader;
use sakiyomi_data::{Corpus, Document, Source, Vocabulary, load_or_build, read_documents, show_row};

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    folder
}

fn texts(documents: &[Document]) -> Vec<&str> {
    documents.iter().map(|document| document.text.as_str()).collect()
}

fn refusal(source: &Source) -> String {
    let message = read_documents(source).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message:?}");
    message
}

#[test]
fn folders_are_read_in_order_and_other_files_passed_over() {
    let folder = folder(&[
        ("b.txt", b"\xef\xbb\xbfsecond"),
        (
            "a/deep.jsonl",
            b"{\"text\": \"first\", \"id\": 1}\n\n{\"text\": \" \"}\n{\"text\": \"third\\u00e9\"}",
        ),
        ("notes.md", b"not text"),
        (".hidden.txt", b"hidden"),
        ("blank.txt", b" \n"),
    ]);
    let documents = read_documents(&Source::path(folder.path())).unwrap();
    assert_eq!(texts(&documents), ["first", "thirdé", "second"]);
    assert!(documents[1].name.ends_with("deep.jsonl:4"), "{}", documents[1].name);
    assert!(documents[2].name.ends_with("b.txt"), "{}", documents[2].name);
}

#[test]
fn a_separator_and_a_longest_document_cut_plain_text() {
    let folder = folder(&[("all.txt", b"one\n<->\ntwo\n\nthree\n<->\n\n")]);
    let mut source = Source { separator: Some("<->".into()), ..Source::path(folder.path().join("all.txt")) };
    assert_eq!(texts(&read_documents(&source).unwrap()), ["one", "two\n\nthree"]);
    source.longest_document_bytes = 6;
    let documents = read_documents(&source).unwrap();
    assert_eq!(texts(&documents), ["one", "two\n\n", "three"]);
    assert!(documents[2].name.ends_with("all.txt part 3"), "{}", documents[2].name);
}

#[test]
fn bad_input_is_named() {
    let folder = folder(&[
        ("bad.txt", b"good \xff"),
        ("broken.jsonl", b"{\"text\": \"a\"}\n{\"text\": "),
        ("list.jsonl", b"[1]"),
        ("fields.jsonl", b"{\"title\": \"a\", \"body\": \"b\"}"),
        ("number.jsonl", b"{\"text\": 1}"),
        ("empty.txt", b""),
        ("data.csv", b"a,b"),
        ("nothing/read.me", b""),
    ]);
    let of = |name: &str| refusal(&Source::path(folder.path().join(name)));
    assert!(of("bad.txt").contains("bad.txt is not UTF-8 at byte 5"));
    assert!(of("broken.jsonl").contains("broken.jsonl:2: is no JSON (it ends too early"));
    assert!(of("list.jsonl").contains("list.jsonl:1: is no JSON object"));
    assert!(of("fields.jsonl").contains("has no field \"text\"; its fields: \"title\", \"body\""));
    assert!(of("number.jsonl").contains("number.jsonl:1: the field \"text\" is no string"));
    assert!(of("empty.txt").contains("no text in"));
    assert!(of("data.csv").contains("cannot tell how to read"));
    assert!(of("nothing").contains("no .txt or .jsonl file in the folder"));
    assert!(of("missing.txt").contains("no such file or folder"));
    assert!(refusal(&Source::default()).contains("empty list of paths"));
    let source = Source { separator: Some(String::new()), ..Source::path(folder.path()) };
    assert!(refusal(&source).contains("separator"));
}

#[cfg(unix)]
#[test]
fn a_folder_that_contains_itself_is_refused() {
    let folder = folder(&[("in/a.txt", b"text")]);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("in/loop")).unwrap();
    assert!(refusal(&Source::path(folder.path())).contains("leads back"));
}

#[test]
fn documents_stand_between_their_edges() {
    let documents =
        [Document { name: "a".into(), text: "é".into() }, Document { name: "b".into(), text: "x".into() }];
    let corpus = Corpus::from_documents(&documents, &Vocabulary::bytes()).unwrap();
    assert_eq!(corpus.documents(), 2);
    assert_eq!(corpus.document(0), [256, 0xc3, 0xa9, 256]);
    assert_eq!(corpus.document(1), [256, u32::from(b'x'), 256]);
    assert_eq!(corpus.tokens().len(), 7);
    assert_eq!((corpus.text_bytes(0), corpus.name(1)), (2, "b"));
}

#[test]
fn the_cache_follows_its_source_and_survives_damage() {
    let folder = folder(&[("a.txt", b"some text"), ("b.jsonl", b"{\"text\": \"more\"}")]);
    let cache = folder.path().join("cache");
    let source = Source {
        paths: vec![folder.path().join("a.txt"), folder.path().join("b.jsonl")],
        ..Source::default()
    };
    let vocabulary = Vocabulary::bytes();
    let load = |source: &Source| load_or_build(Some(&cache), source, &vocabulary).unwrap();
    let file = |outcome: &CacheOutcome| match outcome {
        CacheOutcome::Read(path) | CacheOutcome::Written(path, _) => path.clone(),
        other => panic!("no file: {other:?}"),
    };

    let (first, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Written(_, Reason::New)));
    let (second, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Read(_)));
    assert_eq!(first, second);
    assert_eq!(first, load_or_build(None, &source, &vocabulary).unwrap().0);

    fs_err::write(folder.path().join("a.txt"), "other, longer text").unwrap();
    let (changed, outcome) = load(&source);
    assert!(matches!(outcome, CacheOutcome::Written(_, Reason::SourceChanged)));
    assert_ne!(changed, first);

    let path = file(&outcome);
    let good = fs_err::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for damaged in [&good[..good.len() - 3], &[], &flipped] {
        fs_err::write(&path, damaged).unwrap();
        let (rebuilt, outcome) = load(&source);
        assert_eq!(outcome, CacheOutcome::Written(path.clone(), Reason::Damaged));
        assert_eq!(rebuilt, changed);
        assert_eq!(fs_err::read(&path).unwrap(), good);
    }

    let other_settings = Source { longest_document_bytes: 5, ..source };
    let (_, outcome) = load(&other_settings);
    assert!(matches!(outcome, CacheOutcome::Written(_, Reason::New)));
    assert_ne!(file(&outcome), path);
}

#[test]
fn a_cache_that_cannot_be_written_stops_nothing() {
    let folder = folder(&[("a.txt", b"some text")]);
    let not_a_folder = folder.path().join("a.txt");
    let source = Source::path(folder.path());
    let (corpus, outcome) = load_or_build(Some(&not_a_folder), &source, &Vocabulary::bytes()).unwrap();
    assert!(matches!(outcome, CacheOutcome::NotWritten(_)));
    assert_eq!(corpus.documents(), 1);
}

#[test]
fn shown_tokens_are_text_segments_and_targets() {
    let documents = [Document { name: "a".into(), text: "né".into() }];
    let corpus = Corpus::from_documents(&documents, &Vocabulary::bytes()).unwrap();
    let mut loader = Loader::new(corpus.into(), vec![0], 1, 8, 1, 0).unwrap();
    let shown = show_row(&loader.next(), 0, &Vocabulary::bytes());
    let text: Vec<&str> = shown.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(text, ["<|end|>", "n", "", "é", "<|end|>"]);
    assert_eq!(shown.iter().map(|token| token.target).collect::<Vec<_>>(), [false, true, true, true, true]);
    assert!(shown.iter().all(|token| token.segment == 0));
}

#[test]
fn real_files_are_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/text");
    if !data.exists() {
        eprintln!("skipped: {} is not here", data.display());
        return;
    }
    let problems = Source { field: "question".into(), ..Source::path(data.join("gsm8k-test.jsonl")) };
    assert_eq!(read_documents(&problems).unwrap().len(), 1319);
    let play = Source { longest_document_bytes: 4096, ..Source::path(data.join("tinyshakespeare.txt")) };
    let parts = read_documents(&play).unwrap();
    assert!(parts.len() > 270 && parts.iter().all(|part| part.text.len() <= 4096));
    assert_eq!(parts.iter().map(|part| part.text.len()).sum::<usize>(), 1_115_394);
}
