//! Text that cannot be used: one line each, with its place.

use sakiyomi_data::documents::MOST_DOCUMENT_BYTES;
use sakiyomi_data::{Error, Examples, Source};

use crate::support::{folder, refusal, texts};

#[test]
fn bad_input_is_named() {
    let folder = folder(&[
        ("bad.txt", b"good\nand \xff"),
        ("half.txt", b"good \xe2\x80"),
        ("bad.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}"),
        ("nul.txt", b"one\ntw\0o"),
        ("wide.txt", b"w\0i\0d\0e\0"),
        ("nul.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\0\"}"),
        ("broken.jsonl", b"{\"text\": \"a\"}\n{\"text\": "),
        ("more.jsonl", b"{\"text\": \"a\"} {\"text\": \"b\"}"),
        ("list.jsonl", b"[1]"),
        ("fields.jsonl", b"{\"title\": \"a\", \"body\": \"b\"}"),
        ("number.jsonl", b"\n\n{\"text\": 1}"),
        ("null.jsonl", b"{\"text\": null}"),
        ("empty.txt", b""),
        ("empty.jsonl", b"\n\n"),
        ("data.csv", b"a,b"),
        ("nothing/read.me", b""),
    ]);
    let of = |name: &str| refusal(&Source::path(folder.path().join(name)));
    assert!(of("bad.txt").contains("bad.txt:2 is not UTF-8 at byte 9"), "{}", of("bad.txt"));
    assert!(of("half.txt").contains("half.txt:1 is not UTF-8 at byte 5"), "{}", of("half.txt"));
    assert!(of("bad.jsonl").contains("bad.jsonl:2 is not UTF-8 at byte 24"), "{}", of("bad.jsonl"));
    assert!(of("nul.txt").contains("nul.txt:2: a NUL byte at byte 6"), "{}", of("nul.txt"));
    assert!(of("wide.txt").contains("wide.txt:1: a NUL byte at byte 1"));
    assert!(of("nul.jsonl").contains("nul.jsonl:2: a NUL byte at byte 24"));
    assert!(of("broken.jsonl").contains("broken.jsonl:2: is no JSON (it ends too early"));
    assert!(of("more.jsonl").contains("more.jsonl:1: is no JSON (syntax error, column 15)"));
    assert!(of("list.jsonl").contains("list.jsonl:1: is no JSON object"));
    assert!(of("fields.jsonl").contains("has no field \"text\"; its fields: \"title\", \"body\""));
    assert!(of("number.jsonl").contains("number.jsonl:3: the field \"text\" is no string but a number"));
    assert!(of("null.jsonl").contains("null.jsonl:1: the field \"text\" is no string but null"));
    assert!(of("empty.txt").contains("no text in"));
    assert!(of("empty.jsonl").contains("no text in"));
    assert!(of("data.csv").contains("cannot tell how to read"));
    assert!(of("nothing").contains("no file with text in the folder"));
    assert!(of("missing.txt").contains("no such file or folder"));
    assert!(refusal(&Source::default()).contains("empty list of paths"));
    let source = Source { separator: Some(String::new()), ..Source::path(folder.path()) };
    assert!(refusal(&source).contains("separator"));
    #[cfg(not(feature = "parquet"))]
    {
        fs_err::write(folder.path().join("a.parquet"), "PAR1").unwrap();
        assert!(of("a.parquet").contains("cargo build --release --features parquet"));
    }
}

#[test]
fn an_escaped_nul_is_a_nul() {
    let folder = folder(&[
        ("text.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"a\\u0000b\"}"),
        ("answers.jsonl", b"{\"prompt\": \"a\", \"completion\": \"\\u0000\"}"),
    ]);
    let text = refusal(&Source::path(folder.path().join("text.jsonl")));
    assert!(text.contains("text.jsonl:2: a NUL character"), "{text}");
    let examples = Examples::Prompts {
        prompt: "prompt".to_owned(),
        completion: "completion".to_owned(),
        prompt_end: "=".to_owned(),
    };
    let answers = refusal(&Source { examples, ..Source::path(folder.path().join("answers.jsonl")) });
    assert!(answers.contains("answers.jsonl:1: a NUL character"), "{answers}");
}

#[test]
fn lines_and_documents_beyond_the_limit_are_refused_and_long_lines_can_be_cut() {
    let line = |bytes: usize| format!("{{\"text\": \"{}\"}}", "a".repeat(bytes - 12));
    let long = "a".repeat(MOST_DOCUMENT_BYTES + (1 << 20));
    let folder = folder(&[
        ("fits.jsonl", line(MOST_DOCUMENT_BYTES).as_bytes()),
        ("long.jsonl", format!("{}\n{}\n", line(20), line(MOST_DOCUMENT_BYTES + 1)).as_bytes()),
        ("long.txt", format!("short\n{long}").as_bytes()),
    ]);
    let of = |name: &str| Source::path(folder.path().join(name));
    assert_eq!(texts(&of("fits.jsonl"))[0].len(), MOST_DOCUMENT_BYTES - 12);
    let message = refusal(&of("long.jsonl"));
    assert!(message.contains("long.jsonl:2: the line is longer than 33554432 bytes"), "{message}");
    let message = refusal(&of("long.txt"));
    assert!(message.contains("the document that begins here is longer than 33554432 bytes"), "{message}");
    let cut = texts(&Source { longest_document_bytes: 100_000, ..of("long.txt") });
    assert_eq!(cut.iter().map(String::len).sum::<usize>(), 6 + long.len());
}

#[cfg(unix)]
#[test]
fn links_pipes_and_devices_are_named() {
    let folder = folder(&[("in/a.txt", b"text"), ("self/a.txt", b"text"), ("gone/a.txt", b"text")]);
    let at = |name: &str| folder.path().join(name);
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(at(to), at(from)).unwrap();
    link("in", "in/loop");
    link("self/b.txt", "self/b.txt");
    link("nowhere", "gone/b.txt");
    link("in/a.txt", "linked.txt");
    let of = |name: &str| refusal(&Source::path(at(name)));
    assert!(of("in").contains("leads back"), "{}", of("in"));
    assert!(refusal(&Source::path(folder.path())).contains("b.txt"));
    assert!(of("self").contains("self/b.txt"), "{}", of("self"));
    assert!(of("self/b.txt").contains("self/b.txt"), "{}", of("self/b.txt"));
    assert!(of("gone").contains("gone/b.txt"), "{}", of("gone"));
    assert_eq!(texts(&Source::path(at("linked.txt"))), ["text"]);

    let made = std::process::Command::new("mkfifo").arg(at("pipe.txt")).status();
    if made.is_ok_and(|status| status.success()) {
        assert!(of("pipe.txt").contains("is a named pipe"), "{}", of("pipe.txt"));
        assert!(refusal(&Source::path(at("p*.txt"))).contains("is a named pipe"));
    }
    std::os::unix::fs::symlink("/dev/zero", at("zero.txt")).unwrap();
    assert!(of("zero.txt").contains("is a device"), "{}", of("zero.txt"));
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder(&[("a.txt", b"text")]);
    let path = folder.path().join("a.txt");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if fs_err::read(&path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    let message = refusal(&Source::path(&path));
    assert!(message.contains("a.txt") && message.contains("ermission denied"), "{message}");
}

#[test]
fn nothing_is_read_after_an_error() {
    let folder = folder(&[("a.jsonl", b"{\"text\": \"a\"}\n{\n{\"text\": \"b\"}")]);
    let mut documents = sakiyomi_data::Documents::of(&Source::path(folder.path())).unwrap();
    assert!(documents.next().unwrap().is_ok());
    assert!(matches!(documents.next(), Some(Err(Error::JsonLine { line: 2, .. }))));
    assert!(documents.next().is_none());
}
