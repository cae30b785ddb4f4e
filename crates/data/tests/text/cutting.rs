//! Plain text is cut piece by piece as it would be in one go.

use proptest::prelude::*;
use sakiyomi_data::Source;

use crate::support::{folder, read, texts};

/// The documents of a text that is in memory as a whole, straight from the definition.
fn plain(text: &str, separator: Option<&str>, longest: usize) -> Vec<String> {
    let separated: Vec<&str> = match separator {
        Some(separator) => text.split(separator).map(|part| part.trim_matches(['\n', '\r'])).collect(),
        None => vec![text],
    };
    let parts = separated.into_iter().flat_map(|part| cut(part, longest));
    parts.filter(|part| !part.trim().is_empty()).map(str::to_owned).collect()
}

fn cut(mut text: &str, longest: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while longest > 0 && text.len() > longest {
        let mut limit = longest;
        while !text.is_char_boundary(limit) {
            limit -= 1;
        }
        let before = &text[..limit];
        let after = |mark: &str| before.rfind(mark).map(|at| at + mark.len());
        let at = after("\n\n")
            .max(after("\n\r\n"))
            .or_else(|| after("\n"))
            .or_else(|| (limit > 0).then_some(limit))
            .unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8));
        let (part, rest) = text.split_at(at);
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

#[test]
fn texts_are_cut_at_blank_lines_then_line_ends_then_characters() {
    assert_eq!(cut("one\n\ntwo\nthree", 9), ["one\n\n", "two\nthree"]);
    assert_eq!(cut("one\r\n\r\ntwo", 9), ["one\r\n\r\n", "two"]);
    assert_eq!(cut("one\ntwo", 5), ["one\n", "two"]);
    assert_eq!(cut("ééé", 3), ["é", "é", "é"]);
    assert_eq!(cut("éa", 1), ["é", "a"]);
    assert_eq!(cut("abc", 0), ["abc"]);
}

#[test]
fn a_separator_and_a_longest_document_cut_plain_text() {
    let folder = folder(&[("all.txt", b"one\n<->\ntwo\n\nthree\n<->\n\n")]);
    let mut source = Source { separator: Some("<->".into()), ..Source::path(folder.path().join("all.txt")) };
    assert_eq!(texts(&source), ["one", "two\n\nthree"]);
    source.longest_document_bytes = 6;
    assert_eq!(texts(&source), ["one", "two\n\n", "three"]);
    assert_eq!(read(&source)[2].place, 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Texts of several stretches as the reader reads them, with marks that lie across their edges.
    #[test]
    fn a_file_is_cut_as_a_text_in_memory(
        pieces in prop::collection::vec(
            (prop::sample::select(vec!["a", "é—", "\n", "\r\n", "\n\n", "<->", "<-", "-\n", "word "]), 1usize..1500),
            1..60,
        ),
        fine in "[ab\\né<>-]{0,40}",
        separator in prop::sample::select(vec![None, Some("<->"), Some("\n"), Some("\n\n"), Some("\n<->\n"), Some("é")]),
        longest in prop::sample::select(vec![0, 1, 7, 100, 5000, 70_000]),
    ) {
        for text in [pieces.iter().map(|(piece, times)| piece.repeat(*times)).collect::<String>() + &fine, fine.clone()] {
            let expected = plain(&text, separator, longest);
            let folder = folder(&[("a.txt", text.as_bytes()), ("z.txt", b"end")]);
            let source = Source {
                separator: separator.map(str::to_owned),
                longest_document_bytes: longest,
                paths: vec![folder.path().join("a.txt"), folder.path().join("z.txt")],
                ..Source::default()
            };
            let read = texts(&source);
            let (end, read) = read.split_last().unwrap();
            prop_assert_eq!(if longest == 1 { "d" } else { "end" }, end.as_str());
            let read = if longest == 1 { &read[..read.len() - 2] } else { read };
            prop_assert!(read == expected, "{} documents instead of {}", read.len(), expected.len());
        }
    }
}
