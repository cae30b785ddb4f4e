//! Text made safe for the three places a page puts it: element text, attributes, and a JSON script block.

/// Escapes for element text and quoted attributes. Characters that neither HTML nor XML allows (control characters such
/// as NUL) become their visible pictures, so that hostile bytes in a sample cannot break a page.
pub fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len() + raw.len() / 8);
    for character in raw.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            // U+2400.. are the pictures of the control codes in the same order; DEL has its own.
            '\u{0}'..='\u{1f}' => out.push(char::from_u32(0x2400 + character as u32).unwrap_or('\u{fffd}')),
            '\u{7f}' => out.push('\u{2421}'),
            '\u{80}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(character),
        }
    }
    out
}

/// JSON that can stand inside `<script type="application/json">`: no `<`, `>` or `&` is left, so neither `</script>` nor
/// `<!--` can end the block early, and the value read back is the same.
pub fn json_in_script(value: &serde_json::Value) -> String {
    let plain = value.to_string();
    let mut out = String::with_capacity(plain.len() + plain.len() / 16);
    for character in plain.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push_str(&format!("\\u{:04x}", character as u32));
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn markup_characters_are_escaped() {
        assert_eq!(text(r#"<a b="c">&'"#), "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
        assert_eq!(text("a\nb\tc"), "a\nb\tc");
        assert_eq!(text("\0\r\x1b\x7f"), "\u{2400}\u{240d}\u{241b}\u{2421}");
    }

    #[test]
    fn json_cannot_close_its_script_and_reads_back_unchanged() {
        let value = json!({"k</script>": ["<!--", "a & b", "\u{2028}", "\u{7f}"]});
        let embedded = json_in_script(&value);
        assert!(!embedded.contains(['<', '>', '&']));
        let back: serde_json::Value = serde_json::from_str(&embedded).expect("valid JSON");
        assert_eq!(back, value);
    }
}
