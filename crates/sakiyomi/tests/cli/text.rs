//! Sources of text and vocabularies learnt from them, as the command line gives and refuses them.

use std::io::Write;

use serde_json::Value;

use crate::support::{CHECKPOINT, Place, training};

const LEARN: &[&str] = &["data", "tokenizer", "text.jsonl", "--size", "280", "--output"];

#[test]
fn a_vocabulary_is_learnt_and_trained_with() {
    let place = Place::new();
    let told = place.json(&[LEARN, &["own.json"]].concat());
    assert_eq!((&told["size"], &told["documents"]), (&Value::from(280), &Value::from(40)));
    let told = place.succeeds(&[LEARN, &["again.json"]].concat());
    assert!(told.contains("sakiyomi train run.toml data.tokenizer=again.json"), "{told}");
    assert_eq!(place.read("own.json"), place.read("again.json"));
    place.train(&["data.tokenizer=own.json"]);
    let learnt: Value = serde_json::from_slice(&place.read("own.json")).unwrap();
    let trained: Value =
        serde_json::from_slice(&place.read(&format!("{CHECKPOINT}/tokenizer.json"))).unwrap();
    assert_eq!(learnt["model"]["vocab"], trained["model"]["vocab"]);
    place.succeeds(&["generate", CHECKPOINT, "--prompt", "the fox", "--max-new-tokens", "4"]);
}

#[test]
fn a_vocabulary_that_cannot_be_learnt_leaves_nothing() {
    let place = Place::new();
    let learn = |more: &[&'static str]| [&["data", "tokenizer"], more].concat();
    let (size, output) = (["--size", "280"], ["--output", "own.json"]);
    place.write("blank.txt", " \n");
    place.write("taken.json", "mine");
    let refuses = |more: &[&'static str], words: &[&str]| {
        place.refuses(&learn(more), words);
        assert!(!place.exists("own.json"));
    };
    for bad in ["0", "256", "1048577"] {
        refuses(&["text.jsonl", "--size", bad, "--output", "own.json"], &[bad, "257 to 1048576"]);
    }
    refuses(&[&["blank.txt"], &size[..], &output].concat(), &["no text", "blank.txt"]);
    refuses(&[&["missing.txt"], &size[..], &output].concat(), &["missing.txt"]);
    refuses(
        &[&["text.jsonl", "--field", "body"], &size[..], &output].concat(),
        &["text.jsonl:1", "\"body\""],
    );
    refuses(&[&["text.jsonl", "--output", "taken.json"], &size[..]].concat(), &["taken.json exists"]);
    refuses(&[&["text.jsonl", "--output", "no/own.json"], &size[..]].concat(), &["no/own.json"]);
    assert_eq!(place.read("taken.json"), b"mine");
    let left: Vec<_> =
        fs_err::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn sources_that_cannot_be_read_are_named() {
    let place = Place::new();
    place.write("nul.txt", b"one\ntw\0o");
    place.write("wide.txt", b"w\0i\0d\0e\0");
    place.write("latin.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"caf\xe9\"}\n");
    let text: String = (0..4000).map(|number| format!("{}", number * number)).collect();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(text.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    place.write("cut.txt.gz", &packed[..packed.len() / 2]);
    place.write("none.txt.gz", "no such packing");
    let refuses = |file: &str, words: &[&str]| {
        let train = format!("data.train={file}");
        place.refuses(&training(&[&train]), words);
        place.refuses(&["data", "show", "run.toml", &train], words);
        place.refuses(&["data", "tokenizer", file, "--size", "280", "--output", "own.json"], words);
        assert!(!place.exists("run") && !place.exists("own.json"), "{file}");
    };
    refuses("nul.txt", &["nul.txt:2", "NUL byte at byte 6"]);
    refuses("wide.txt", &["wide.txt:1", "NUL", "UTF-16"]);
    refuses("latin.jsonl", &["latin.jsonl:2", "UTF-8", "byte 27"]);
    refuses("cut.txt.gz", &["cut.txt.gz", "cannot be unpacked", "cut short"]);
    refuses("none.txt.gz", &["none.txt.gz", "cannot be unpacked"]);
    refuses("nothing/*.txt", &["no file with text matches", "nothing/*.txt"]);
    refuses("nothing/[.txt", &["is no pattern"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        fs_err::create_dir_all(place.path("folder")).unwrap();
        place.write("folder/a.txt", "text");
        symlink(place.path("folder"), place.path("folder/loop")).unwrap();
        refuses("folder", &["folder/loop", "leads back", "symbolic link"]);
        symlink("self.txt", place.path("self.txt")).unwrap();
        refuses("self.txt", &["self.txt"]);
        symlink("/dev/zero", place.path("zero.txt")).unwrap();
        refuses("zero.txt", &["zero.txt", "a device"]);
        let made = std::process::Command::new("mkfifo").arg(place.path("pipe.txt")).status();
        if made.is_ok_and(|status| status.success()) {
            refuses("pipe.txt", &["pipe.txt", "a named pipe"]);
        }
    }
}

/// 100 MB of text in one line that goes on for a gigabyte, read by a process that may hold 500 MB.
#[cfg(target_os = "linux")]
#[test]
fn an_endless_line_is_refused_in_bounded_memory() {
    let place = Place::new();
    let path = place.path("long.jsonl");
    let mut file = fs_err::File::create(&path).unwrap();
    file.write_all(b"{\"text\": \"a\"}\n{\"text\": \"").unwrap();
    let megabyte = vec![b'a'; 1_000_000];
    (0..100).for_each(|_| file.write_all(&megabyte).unwrap());
    // The rest takes no room on the disk.
    file.set_len(1 << 30).unwrap();
    drop(file);
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -d 500000; exec \"$0\" \"$@\""])
        .arg(assert_cmd::cargo::cargo_bin("sakiyomi"))
        .args(training(&["data.train=long.jsonl"]))
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let told = crate::support::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("long.jsonl:2: the line is longer than 33554432 bytes"), "{told}");
    assert!(!place.exists("run"));
}

#[test]
fn a_file_named_twice_is_read_once_and_told() {
    let place = Place::new();
    let told = |overrides: &[&str]| {
        let output = place.run(&[&["data", "show", "run.toml", "--json"], overrides].concat());
        assert_eq!(output.status.code(), Some(0), "{}", crate::support::stderr(&output));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        (shown["tokens"].clone(), crate::support::stderr(&output))
    };
    let (tokens, remarks) = told(&["data.train=text.jsonl"]);
    assert_eq!(remarks, "");
    let (again, remarks) = told(&["data.train=[\"text.jsonl\", \"*.jsonl\"]"]);
    assert_eq!(again, tokens);
    assert!(remarks.contains("1 of the files are named more than once and read once"), "{remarks}");
    let (_, remarks) = told(&["data.train=text.jsonl", "data.held_out=./text.jsonl"]);
    assert!(remarks.contains("1 of the files in data.held_out are in data.train too"), "{remarks}");
}

#[test]
fn a_long_text_is_evaluated_in_the_parts_in_which_it_is_trained() {
    let place = Place::trained(&[]);
    place.write("long.txt", "the fox ran over a hill.\n\n".repeat(3000));
    let eval = |more: &[&str]| {
        let all = [&["eval", CHECKPOINT, "--data", "long.txt", "--batches", "1"], more].concat();
        place.json(&all)["documents"].clone()
    };
    assert_eq!(eval(&[]), 3);
    assert_eq!(eval(&["--longest-document-bytes", "0"]), 1);
    assert_eq!(eval(&["--separator", "\n\n"]), 3000);
}

/// Letters only: digits and the full stop have no token.
#[test]
fn what_a_tokenizer_cannot_spell_is_told() {
    let place = Place::new();
    let letters: String = ('a'..='z').zip(1..).map(|(letter, id)| format!("\"{letter}\": {id}, ")).collect();
    let tokenizer = format!(
        r#"{{"version": "1.0", "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {{"type": "Fuse"}},
        "added_tokens": [{{"id": 0, "content": "<end>", "special": true, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false}}],
        "model": {{"type": "BPE", "vocab": {{"<end>": 0, {letters}" ": 27}}, "merges": []}}}}"#
    );
    place.write("letters.json", tokenizer);
    let told = |arguments: &[&str]| {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", crate::support::stderr(&output));
        (output.stdout.clone(), crate::support::stderr(&output))
    };
    let text = fs_err::read_to_string(place.path("text.jsonl")).unwrap();
    let count = |what: &dyn Fn(char) -> bool| {
        text.lines().flat_map(|line| line[10..].chars()).filter(|&c| what(c)).count()
    };
    // Each line ends in a full stop, and begins with a number; quotes and braces are JSON's.
    let lost = count(&|character| character.is_ascii_digit() || character == '.');
    let all = lost + count(&|character| character.is_ascii_lowercase() || character == ' ');
    let note = format!("cannot spell {lost} of the {all} bytes of the text");
    let (_, remarks) = told(&training(&["data.tokenizer=letters.json"]));
    assert!(remarks.contains(&note), "{note}: {remarks}");
    let (result, remarks) = told(&["eval", CHECKPOINT, "--data", "text.jsonl", "--json"]);
    assert!(remarks.contains(&note), "{note}: {remarks}");
    let result: Value = serde_json::from_slice(&result).unwrap();
    assert_eq!((&result["text_bytes"], &result["lost_bytes"]), (&all.into(), &lost.into()));
    let (_, remarks) = told(&["generate", CHECKPOINT, "--prompt", "a1 b2", "--max-new-tokens", "2"]);
    assert!(remarks.contains("cannot spell 2 of the 5 bytes of the prompt"), "{remarks}");
    place.write("digits.txt", "1234567890");
    place.refuses(&["eval", CHECKPOINT, "--data", "digits.txt"], &["nothing to predict"]);
}
