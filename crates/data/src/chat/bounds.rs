//! How deeply a template may be chained.
//!
//! The parser bounds how deeply parentheses and blocks nest. It does not bound chains, `a.b.c`, `1 + 1 + 1`, `not not a` or one
//! `elif` after another, whose every link takes a frame of the stack: a template of a hundred kilobytes would end the program.
//! So links are counted before it is parsed, by the lexer's own rules for where a tag ends.

/// Words, signs and texts in one tag. Published templates have about fifty.
const MOST_PIECES: usize = 500;

/// `elif` in the whole template. Published templates have about ten.
const MOST_BRANCHES: usize = 500;

/// Refuses what the parser could not parse on any stack.
pub(super) fn check(source: &str) -> Result<(), String> {
    let (mut rest, mut branches) = (source, 0);
    while let Some((marker, behind)) = next_marker(rest) {
        rest = match marker {
            b'#' => after(behind, "#}"),
            b'%' if basic_tag(skip_mark(behind), "raw").is_some() => after_raw(behind),
            _ => {
                let tag = Tag::of(behind, marker);
                if tag.pieces > MOST_PIECES {
                    let line = 1 + source[..source.len() - behind.len()].matches('\n').count();
                    return Err(format!(
                        "the tag in line {line} of the chat template has more than {MOST_PIECES} words and signs: break it up"
                    ));
                }
                branches += usize::from(skip_mark(behind).trim_start().starts_with("elif"));
                &behind[tag.length..]
            }
        };
    }
    if branches > MOST_BRANCHES {
        return Err(format!("the chat template has {branches} times elif: at most {MOST_BRANCHES}"));
    }
    Ok(())
}

/// The second sign of the next `{{`, `{%` or `{#`, and what stands behind it.
fn next_marker(text: &str) -> Option<(u8, &str)> {
    let mut pairs = text.as_bytes().windows(2).enumerate();
    let (at, pair) = pairs.find(|(_, pair)| pair[0] == b'{' && b"{%#".contains(&pair[1]))?;
    Some((pair[1], &text[at + 2..]))
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, behind)| behind)
}

/// A tag may begin with a sign that says what becomes of the white space before it.
fn skip_mark(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

/// What stands behind a tag that is `name` and nothing else; `text` begins inside of it.
fn basic_tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let blank = |character: char| character.is_ascii_whitespace();
    let behind = text.trim_start_matches(blank).strip_prefix(name)?.trim_start_matches(blank);
    skip_mark(behind).strip_prefix("%}")
}

/// What stands behind the end of the raw block that begins at `text`; nothing in it is a tag.
fn after_raw(mut text: &str) -> &str {
    while let Some((_, tag)) = text.split_once("{%") {
        if let Some(behind) = basic_tag(skip_mark(tag), "endraw") {
            return behind;
        }
        text = tag;
    }
    ""
}

/// A tag from behind its opening signs on.
#[derive(Default)]
struct Tag {
    /// Bytes, its closing signs included.
    length: usize,
    /// Words, signs and texts.
    pieces: usize,
}

impl Tag {
    fn of(text: &str, marker: u8) -> Self {
        let bytes = text.as_bytes();
        let close: &[u8] = if marker == b'{' { b"}}" } else { b"%}" };
        let (mut tag, mut open, mut in_word) = (Self::default(), 0_isize, false);
        while let Some(&byte) = bytes.get(tag.length) {
            if open == 0 && bytes[tag.length..].starts_with(close) {
                tag.length += close.len();
                break;
            }
            let of_word = byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
            tag.pieces += usize::from(!(byte.is_ascii_whitespace() || of_word && in_word));
            in_word = of_word;
            open += match byte {
                b'(' | b'[' | b'{' => 1,
                b')' | b']' | b'}' => -1,
                _ => 0,
            };
            tag.length += if matches!(byte, b'\'' | b'"') { string_length(&bytes[tag.length..]) } else { 1 };
        }
        tag
    }
}

/// Bytes of the text in quotes that `bytes` begin with, quotes included.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(tag: &str) -> usize {
        let (marker, behind) = next_marker(tag).unwrap();
        let tag = Tag::of(behind, marker);
        assert_eq!(tag.length, behind.len());
        tag.pieces
    }

    #[test]
    fn a_tag_ends_where_the_lexer_ends_it() {
        assert_eq!(pieces("{{ a.b }}"), 3);
        assert_eq!(pieces("{{ '}}' + \"%} \\\" x\" }}"), 3);
        assert_eq!(pieces("{{ {'a': {'b': 1}} }}"), 9);
        assert_eq!(pieces("{%- if not x -%}"), 5);
        assert_eq!(pieces("{{ 'unclosed }}"), 1);
        assert_eq!(pieces("{{ \u{e9}t\u{e9} }}"), 1);
    }

    #[test]
    fn long_chains_are_refused_wherever_they_hide() {
        let chain = format!("{{{{ 1{} }}}}", "+1".repeat(MOST_PIECES));
        let refused = |template: String| {
            let reason = check(&template).unwrap_err();
            assert!(
                reason.starts_with("the tag in line 2 of the chat template has more than 500"),
                "{reason}"
            );
        };
        refused(format!("\n{chain}"));
        refused(format!("{{{{ '}}}}' }}}}\n{chain}"));
        refused(format!("{{# {{{{ ' #}}\n{chain}"));
        refused(format!("{{% raw %}}{{{{ ' {{%- endraw -%}}\n{chain}"));
        refused(format!("{{%- raw %}}{{{{ ' {{% endraw %}}\n{chain}"));
        assert!(check(&format!("{{% raw %}}{chain}{{% endraw %}}")).is_ok());
        assert!(check(&format!("{{{{ '{}' }}}}", "1 + ".repeat(MOST_PIECES))).is_ok());
        assert!(check(&"{{ 1 + 1 }}\n".repeat(MOST_PIECES)).is_ok());
        let branches = |count: usize| format!("{{% if a %}}{}{{% endif %}}", "{%- elif b %}".repeat(count));
        assert!(check(&branches(MOST_BRANCHES)).is_ok());
        assert!(check(&branches(MOST_BRANCHES + 1)).unwrap_err().contains("501 times elif: at most 500"));
    }
}
