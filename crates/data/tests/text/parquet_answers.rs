//! Prompts and answers, and conversations, in columns of a .parquet file: what they are in JSON lines.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use sakiyomi_data::{ChatTemplate, Documents, Examples, Source};
use serde_json::{Value, json};

use crate::support::{read, refusal};

/// As most programs write lists, and as some do.
const THREE_LEVELS: &str = "message rows {
    required binary ask (UTF8);
    optional binary say (UTF8);
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary role (UTF8);
        optional binary content (UTF8);
    } } }
}";
const TWO_LEVELS: &str = "message rows {
    required binary ask (UTF8);
    optional binary say (UTF8);
    required group messages (LIST) { repeated group array {
        required binary role (UTF8);
        optional binary content (UTF8);
    } }
}";
const NESTED: &str = "message rows {
    optional group messages (LIST) { repeated group list { optional group element {
        optional binary role (UTF8);
        optional group call { optional binary name (UTF8); }
    } } }
}";

fn strings(
    group: &mut SerializedRowGroupWriter<File>,
    values: &[&str],
    definition: Option<&[i16]>,
    repetition: Option<&[i16]>,
) {
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = values.iter().map(|text| text.as_bytes().to_vec().into()).collect();
    column.typed::<ByteArrayType>().write_batch(&values, definition, repetition).unwrap();
    column.close().unwrap();
}

/// Row groups of rows with `ask`, `say` and `messages`, an object each, in which what is missing is null in the file.
fn write(path: &Path, schema: &str, groups: &[&[Value]]) {
    let (list, message) = if schema == THREE_LEVELS { (1, 3) } else { (0, 1) };
    let role_present = message + i16::from(schema == THREE_LEVELS);
    let parsed = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), parsed, properties).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        let of = |field: &str| -> Vec<&str> { rows.iter().filter_map(|row| row[field].as_str()).collect() };
        strings(&mut group, &of("ask"), None, None);
        let said: Vec<i16> = rows.iter().map(|row| i16::from(row["say"].is_string())).collect();
        strings(&mut group, &of("say"), Some(&said), None);
        for (field, present) in [("role", role_present), ("content", message + 1)] {
            let (mut values, mut definition, mut repetition) = (Vec::new(), Vec::new(), Vec::new());
            for row in *rows {
                let messages = row["messages"].as_array();
                if messages.is_none_or(|messages| messages.is_empty()) {
                    definition.push(if messages.is_some() { list } else { 0 });
                    repetition.push(0);
                }
                for (index, message_object) in messages.into_iter().flatten().enumerate() {
                    let text = message_object[field].as_str();
                    values.extend(text);
                    definition.push(if text.is_some() { present } else { message });
                    repetition.push(i16::from(index > 0));
                }
            }
            strings(&mut group, &values, Some(&definition), Some(&repetition));
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn prompts(path: &Path) -> Source {
    let examples =
        Examples::Prompts { prompt: "ask".into(), completion: "say".into(), prompt_end: "=".into() };
    Source { examples, ..Source::path(path) }
}

fn messages(path: &Path) -> Source {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let template = ChatTemplate::new(template.to_owned(), Default::default()).unwrap();
    Source { examples: Examples::Messages { field: "messages".into(), template }, ..Source::path(path) }
}

/// Conversations of two and of more messages; enough for several reads of a column.
fn rows() -> Vec<Value> {
    let said = |role: &str, text: String| json!({"role": role, "content": text});
    (0..150)
        .map(|number| {
            let mut conversation =
                vec![said("user", format!("{number}?")), said("assistant", format!("é{number}"))];
            for turn in 0..number % 3 {
                conversation
                    .extend([said("user", format!("and {turn}?")), said("assistant", "no".to_owned())]);
            }
            json!({"ask": format!("{number}+1="), "say": format!("{}", number + 1), "messages": conversation})
        })
        .collect()
}

#[test]
fn rows_are_what_they_are_as_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, lines, table) = (rows(), folder.path().join("a.jsonl"), folder.path().join("a.parquet"));
    fs_err::write(&lines, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    for schema in [THREE_LEVELS, TWO_LEVELS] {
        write(&table, schema, &[&rows[..70], &rows[70..]]);
        for of in [prompts, messages] {
            let (from_lines, from_table) = (read(&of(&lines)), read(&of(&table)));
            assert_eq!(from_table.len(), 150);
            assert_eq!(from_table, from_lines);
        }
    }
}

#[test]
fn rows_that_say_nothing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let whole = rows();
    let refused = |schema: &str, row: Value, of: fn(&Path) -> Source| {
        write(&path, schema, &[&whole[..2], &[row]]);
        refusal(&of(&path))
    };
    let silent = json!({"ask": "1=", "messages": []});
    for (schema, row) in
        [(THREE_LEVELS, &silent), (TWO_LEVELS, &silent), (THREE_LEVELS, &json!({"ask": "1="}))]
    {
        let reason = refused(schema, row.clone(), messages);
        assert!(reason.contains("a.parquet: row 3: the conversation has no answer"), "{reason}");
    }
    let reason = refused(THREE_LEVELS, silent, prompts);
    assert!(reason.contains("a.parquet: row 3: has no field \"say\"; its fields: \"ask\""), "{reason}");
    let nobody = json!({"ask": "1=", "messages": [{"content": "a"}]});
    assert!(refused(THREE_LEVELS, nobody, messages).contains("row 3: message 1 has no role"));
    let Examples::Messages { template, .. } = messages(&path).examples else { unreachable!() };
    let of = |field: &str| {
        let examples = Examples::Messages { field: field.to_owned(), template: template.clone() };
        refusal(&Source { examples, ..Source::path(&path) })
    };
    assert!(
        of("chat").contains("has no field \"chat\"; its fields: \"ask\", \"say\", \"messages\""),
        "{}",
        of("chat")
    );
    assert!(of("ask").contains("the column \"ask\" does not hold a list of messages a row"), "{}", of("ask"));
    let list =
        Examples::Prompts { prompt: "messages".into(), completion: "say".into(), prompt_end: "=".into() };
    let reason = refusal(&Source { examples: list, ..Source::path(&path) });
    assert!(reason.contains("the column \"messages\" does not hold one text a row"), "{reason}");
    let properties = Arc::new(WriterProperties::builder().build());
    for (schema, words) in [
        (NESTED.to_owned(), "the field \"messages.list.element.call.name\" is no text of a message"),
        (
            THREE_LEVELS.replace("ask", "tools"),
            "tools (the column \"tools\") are read from .jsonl files only",
        ),
    ] {
        let parsed = Arc::new(parse_message_type(&schema).unwrap());
        let empty = SerializedFileWriter::new(File::create(&path).unwrap(), parsed, Arc::clone(&properties));
        empty.unwrap().close().unwrap();
        let reason = refusal(&messages(&path));
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn damaged_lists_are_one_line_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, THREE_LEVELS, &[&rows()[..3]]);
    let whole = fs_err::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x55;
        fs_err::write(&path, &altered).unwrap();
        for of in [prompts, messages] {
            if let Err(error) = Documents::of(&of(&path)).unwrap().collect::<Result<Vec<_>, _>>() {
                let message = error.to_string();
                assert!(message.contains("a.parquet") && !message.contains('\n'), "{at}: {message}");
            }
        }
    }
}
