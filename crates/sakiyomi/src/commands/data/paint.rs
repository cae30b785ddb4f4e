//! How tokens look: documents by background, what is learnt by colour, or by marks where there are no colours.
//!
//! One function decides the look of a token in each form; further kinds of tokens join in [`Look::of`].

use std::fmt::Write;
use std::io::IsTerminal;

use data::{ShownRegister, ShownToken};

/// Whether standard output takes colours: a terminal, and nobody asked for none (no-color.org).
pub fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What the colours mean, or the marks; `registers` says whether there may be some.
pub fn legend(colour: bool, depths: usize, registers: bool) -> String {
    let (all, some, nothing) = match depths {
        1 => ("learns the next token", None, "learns nothing"),
        _ => ("has targets at every depth", Some("at the nearer depths only"), "at none"),
    };
    let given = "counted by no loss, since it is given (a prompt), or nothing before it in the row is of its document";
    let register = |sign: &str, carrying: &str| match registers {
        true => format!(
            "; {sign}: a register behind the token, with its offset; {carrying}: one that carries a token in training"
        ),
        false => String::new(),
    };
    if colour {
        let some = some.map_or(String::new(), |some| format!("\u{1b}[{SOME}myellow\u{1b}[0m: {some}; "));
        let registers =
            register(&format!("\u{1b}[{REGISTER}m2\u{1b}[0m"), &format!("\u{1b}[{REGISTER}m2:text\u{1b}[0m"));
        format!(
            "\nbackground: documents, in turn; \u{1b}[{LEARNT}mgreen\u{1b}[0m: {all}; {some}\u{1b}[{NOTHING}mred\u{1b}[0m: \
             {nothing}; \u{1b}[{BEYOND}mgrey\u{1b}[0m: behind the row, a target only; underlined: {given}{registers}"
        )
    } else {
        let marks = match some {
            Some(_) => format!("text<k> has targets at k of the {depths} depths, all others at every depth"),
            None => format!("text<0> {nothing}, all others the next token"),
        };
        let registers = register("{2}", "{2:text}");
        format!(
            "\n| stands between documents; [text] is {given}; {marks}; (text) lies behind the row and is a target only{registers}"
        )
    }
}

/// A row of tokens, documents apart.
pub fn row(row: &[ShownToken], depths: usize, colour: bool) -> String {
    let mut text = String::new();
    let mut before = None;
    for token in row {
        if !colour && before.is_some_and(|segment| segment != token.segment) {
            text.push('|');
        }
        before = Some(token.segment);
        let shown = visible(&token.text);
        let look = Look::of(token, depths);
        if colour { coloured(&mut text, &shown, look, token) } else { marked(&mut text, &shown, look, token) }
    }
    text
}

/// What a position is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Has targets at all depths.
    Learnt,
    /// Has targets at some depths.
    Some,
    /// Has no target.
    Nothing,
    /// Is no input.
    Beyond,
}

impl Look {
    fn of(token: &ShownToken, depths: usize) -> Self {
        match token.depths {
            None => Self::Beyond,
            Some(0) => Self::Nothing,
            Some(some) if some < depths => Self::Some,
            Some(_) => Self::Learnt,
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Learnt => LEARNT,
            Self::Some => SOME,
            Self::Nothing => NOTHING,
            Self::Beyond => BEYOND,
        }
    }
}

const LEARNT: &str = "32";
const SOME: &str = "33";
const NOTHING: &str = "31";
const BEYOND: &str = "90";
const REGISTER: &str = "30;45";

/// Backgrounds of documents: that of the terminal, and a grey of the 256 colours that suits dark ones.
const BACKGROUNDS: [&str; 2] = ["49", "48;5;236"];

fn coloured(text: &mut String, shown: &str, look: Look, token: &ShownToken) {
    let background = BACKGROUNDS[token.segment as usize % BACKGROUNDS.len()];
    let line = if token.target { "" } else { ";4" };
    let _ = write!(text, "\u{1b}[{background};{}{line}m{shown}\u{1b}[0m", look.colour());
    for register in &token.registers {
        let _ = write!(text, "\u{1b}[{REGISTER}m{}\u{1b}[0m", described(register));
    }
}

fn marked(text: &mut String, shown: &str, look: Look, token: &ShownToken) {
    let shown = if token.target { shown.to_owned() } else { format!("[{shown}]") };
    let _ = match (look, token.depths) {
        (Look::Beyond, _) => write!(text, "({shown})"),
        (Look::Some | Look::Nothing, Some(depths)) => write!(text, "{shown}<{depths}>"),
        _ => write!(text, "{shown}"),
    };
    for register in &token.registers {
        let _ = write!(text, "{{{}}}", described(register));
    }
}

fn described(ShownRegister { offset, carried }: &ShownRegister) -> String {
    match carried {
        None => offset.to_string(),
        Some(carried) => format!("{offset}:{}", visible(&carried.text)),
    }
}

/// Text that leaves the terminal as it is: line ends can be seen, other control characters stand for themselves as signs.
fn visible(text: &str) -> String {
    let sign = |character: char| match character {
        '\n' => "\u{21b5}\n".to_owned(),
        '\t' => character.to_string(),
        // Unicode has a picture of each at U+2400 and onwards.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + character as u32).unwrap_or(' ').to_string(),
        '\u{7f}'..='\u{9f}' => "\u{fffd}".to_owned(),
        _ => character.to_string(),
    };
    text.chars().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use data::CarriedToken;

    use super::*;

    fn token(text: &str, segment: u32, target: bool, depths: Option<usize>) -> ShownToken {
        ShownToken { text: text.to_owned(), id: 0, segment, target, depths, registers: Vec::new() }
    }

    fn tokens() -> Vec<ShownToken> {
        vec![
            token("a", 0, false, Some(2)),
            token("b", 0, true, Some(1)),
            token("\u{1b}\n", 0, true, Some(0)),
            token("c", 1, false, Some(2)),
            token("d", 1, true, None),
        ]
    }

    #[test]
    fn registers_stand_behind_their_token() {
        let carried = CarriedToken { id: 7, text: "x".to_owned(), share: 0.5 };
        let registers = vec![
            ShownRegister { offset: 2, carried: None },
            ShownRegister { offset: 3, carried: Some(carried) },
        ];
        let shown = [ShownToken { registers, ..token("a", 0, true, Some(1)) }, token("b", 0, true, Some(0))];
        assert_eq!(row(&shown, 1, false), "a{2}{3:x}b<0>");
        let told = legend(false, 1, true);
        assert!(
            told.contains("text<0> learns nothing, all others the next token") && told.contains("{2:text}")
        );
        let told = legend(false, 3, false);
        assert!(told.contains("at k of the 3 depths") && !told.contains("register"));
        assert!(row(&shown, 1, true).contains("\u{1b}[30;45m3:x\u{1b}[0m"));
    }

    #[test]
    fn without_colours_there_are_marks() {
        assert_eq!(row(&tokens(), 2, false), "[a]b<1>\u{241b}\u{21b5}\n<0>|[c](d)");
    }

    #[test]
    fn colours_tell_documents_and_targets() {
        let painted = row(&tokens(), 2, true);
        assert!(painted.starts_with("\u{1b}[49;32;4ma\u{1b}[0m\u{1b}[49;33mb\u{1b}[0m"), "{painted:?}");
        assert!(painted.contains("\u{1b}[48;5;236;32;4mc") && painted.contains("\u{1b}[48;5;236;90md"));
        assert!(!painted.contains("\u{1b}\u{21b5}"));
    }
}
