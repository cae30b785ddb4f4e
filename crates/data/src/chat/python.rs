//! Values as Python writes them: `str()` for what a template prints, `json.dumps` for `tojson`.

use minijinja::value::{Value, ValueKind};

/// `str(value)`
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Seq | ValueKind::Map => literal(value),
        _ => value.to_string(),
    }
}

/// `repr(value)`
fn literal(value: &Value) -> String {
    let items = |value: &Value| -> Vec<Value> { value.try_iter().map(Iterator::collect).unwrap_or_default() };
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let escaped =
                text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
            match text.contains('\'') && !text.contains('"') {
                true => format!("\"{escaped}\""),
                false => format!("'{}'", escaped.replace('\'', "\\'")),
            }
        }
        ValueKind::Seq => {
            let all: Vec<String> = items(value).iter().map(literal).collect();
            format!("[{}]", all.join(", "))
        }
        ValueKind::Map => {
            let entry = |key: &Value| {
                format!("{}: {}", literal(key), literal(&value.get_item(key).unwrap_or_default()))
            };
            let all: Vec<String> = items(value).iter().map(entry).collect();
            format!("{{{}}}", all.join(", "))
        }
        _ => text(value),
    }
}

/// `json.dumps(value, indent=indent, ensure_ascii=ascii)`
pub(super) fn json(value: &Value, indent: Option<usize>, ascii: bool) -> String {
    let mut out = String::new();
    write_json(&mut out, value, indent, ascii, 0);
    out
}

fn write_json(out: &mut String, value: &Value, indent: Option<usize>, ascii: bool, depth: usize) {
    let items: Vec<Value> = match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            value.try_iter().map(Iterator::collect).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let is_map = value.kind() == ValueKind::Map;
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), ascii),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let (open, close) = if is_map { ('{', '}') } else { ('[', ']') };
            out.push(open);
            for (index, item) in items.iter().enumerate() {
                match indent {
                    None if index > 0 => out.push_str(", "),
                    None => {}
                    Some(width) => {
                        out.push_str(if index > 0 { ",\n" } else { "\n" });
                        out.push_str(&" ".repeat(width * (depth + 1)));
                    }
                }
                if is_map {
                    write_string(out, &text(item), ascii);
                    out.push_str(": ");
                    let inner = value.get_item(item).unwrap_or_default();
                    write_json(out, &inner, indent, ascii, depth + 1);
                } else {
                    write_json(out, item, indent, ascii, depth + 1);
                }
            }
            if let Some(width) = indent.filter(|_| !items.is_empty()) {
                out.push('\n');
                out.push_str(&" ".repeat(width * depth));
            }
            out.push(close);
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn write_string(out: &mut String, text: &str, ascii: bool) {
    use std::fmt::Write as _;
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            character if (character as u32) < 0x20 || ascii && !character.is_ascii() => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            character => out.push(character),
        }
    }
    out.push('"');
}
