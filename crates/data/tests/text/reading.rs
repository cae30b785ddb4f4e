//! Which files are read, and in which order.

use sakiyomi_data::{Source, Vocabulary, load_or_build, show_row};

use crate::support::{folder, read, refusal, shared, texts};

#[test]
fn folders_are_read_in_order_and_other_files_passed_over() {
    let folder = folder(&[
        ("b.txt", b"\xef\xbb\xbfsecond"),
        (
            "a/deep.jsonl",
            b"{\"text\": \"first\", \"id\": 1}\n\n{\"text\": \" \"}\r\n{\"text\": \"third\\u00e9\"}",
        ),
        ("notes.md", b"not text"),
        (".hidden.txt", b"hidden"),
        ("blank.txt", b" \n"),
    ]);
    let source = Source::path(folder.path());
    assert_eq!(texts(&source), ["first", "thirdé", "second"]);
    assert_eq!(read(&source).iter().map(|document| document.place).collect::<Vec<_>>(), [1, 4, 0]);
    let (corpus, _) = load_or_build(None, &source, &Vocabulary::bytes()).unwrap();
    assert!(corpus.name(1).ends_with("deep.jsonl:4"), "{}", corpus.name(1));
    assert!(corpus.name(2).ends_with("b.txt"), "{}", corpus.name(2));
}

#[test]
fn patterns_mean_the_files_that_they_match() {
    let folder = folder(&[
        ("one/b.txt", b"b"),
        ("one/a.txt", b"a"),
        ("one/c.md", b"c"),
        ("two/d.jsonl", b"{\"text\": \"d\"}"),
        (".hidden/e.txt", b"e"),
        ("odd[1].txt", b"odd"),
    ]);
    let of = |pattern: &str| Source::path(folder.path().join(pattern));
    assert_eq!(texts(&of("one/*.txt")), ["a", "b"]);
    assert_eq!(texts(&of("one/*")), ["a", "b"]);
    assert_eq!(texts(&of("**/*.txt")), ["odd", "a", "b"]);
    assert_eq!(texts(&of("*/[ad].*")), ["a", "d"]);
    assert_eq!(texts(&of("odd[1].txt")), ["odd"], "a file that is there is no pattern");
    assert!(refusal(&of("one/*.jsonl")).contains("no file with text matches"));
    assert!(refusal(&of("one/*.md")).contains("no file with text matches"));
    assert!(refusal(&of("a/[")).contains("is no pattern"));
}

#[test]
fn a_file_that_is_named_twice_is_read_once() {
    let folder = folder(&[("a.txt", b"a"), ("in/b.txt", b"b"), ("in/c.txt", b"c")]);
    let at = |name: &str| folder.path().join(name);
    let paths = vec![at("in/c.txt"), at("in"), at("a.txt"), at("in/*.txt"), at("in/../a.txt")];
    let source = Source { paths, ..Source::default() };
    assert_eq!(texts(&source), ["c", "b", "a"]);
    let repeated = [at("in/c.txt"), at("in/b.txt"), at("in/c.txt"), at("in/../a.txt")];
    assert_eq!(source.repeated().unwrap(), repeated);
    let again = Source { paths: vec![at("in"), at("in")], ..Source::default() };
    assert_eq!(texts(&again), ["b", "c"]);
    assert!(Source::path(folder.path()).repeated().unwrap().is_empty());
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("a.txt"), at("z.txt")).unwrap();
        assert_eq!(texts(&Source::path(folder.path())), ["a", "b", "c"]);
    }
}

#[test]
fn documents_stand_between_their_edges() {
    let folder = folder(&[("a.jsonl", "{\"text\": \"é\"}\n{\"text\": \"x\"}".as_bytes())]);
    let (corpus, _) = load_or_build(None, &Source::path(folder.path()), &Vocabulary::bytes()).unwrap();
    assert_eq!(corpus.documents(), 2);
    assert_eq!(corpus.document(0).unwrap(), [256, 0xc3, 0xa9, 256]);
    assert_eq!(corpus.document(1).unwrap(), [256, u32::from(b'x'), 256]);
    assert_eq!((corpus.token_count(), corpus.length(0), corpus.text_bytes(0)), (7, 4, 2));
    let mut some = Vec::new();
    corpus.read(0, 1..3, &mut some).unwrap();
    assert_eq!(some, [0xc3, 0xa9]);
}

#[test]
fn shown_tokens_are_text_segments_and_targets() {
    let folder = folder(&[("a.txt", "né".as_bytes())]);
    let (corpus, _) = load_or_build(None, &Source::path(folder.path()), &Vocabulary::bytes()).unwrap();
    let mut loader = sakiyomi_data::Loader::new(corpus.into(), vec![0], 1, 8, 1, 0).unwrap();
    let shown = show_row(&loader.next().unwrap(), 0, &Vocabulary::bytes(), 1);
    let text: Vec<&str> = shown.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(text, ["<|end|>", "n", "", "é", "<|end|>"]);
    assert_eq!(shown.iter().map(|token| token.target).collect::<Vec<_>>(), [false, true, true, true, true]);
    assert_eq!(shown.iter().map(|token| token.depths).collect::<Vec<_>>(), [1, 1, 1, 1, 0].map(Some));
    assert!(shown.iter().all(|token| token.segment == 0));
}

#[test]
fn real_files_are_read() {
    let Some(data) = shared("text") else { return };
    let problems = Source { field: "question".into(), ..Source::path(data.join("gsm8k-test.jsonl")) };
    assert_eq!(texts(&problems).len(), 1319);
    let play = Source { longest_document_bytes: 4096, ..Source::path(data.join("tinyshakespeare.txt")) };
    let parts = texts(&play);
    assert!(parts.len() > 270 && parts.iter().all(|part| part.len() <= 4096));
    assert_eq!(parts.concat(), fs_err::read_to_string(data.join("tinyshakespeare.txt")).unwrap());
}
