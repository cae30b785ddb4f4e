//! Text from ids that arrive one by one, in whole characters only.

use std::sync::Arc;

use super::loaded::Loaded;

/// Takes ids in order and gives back the text that they complete.
///
/// All pieces together, with [`TextStream::finish`], are the decoded text; a character whose bytes come in
/// several tokens is held back until it is whole.
pub struct TextStream {
    kind: Kind,
}

enum Kind {
    Bytes { pending: Vec<u8> },
    Loaded(Window),
}

/// The newest tokens of a loaded tokenizer's stream.
///
/// What a token adds depends on those before it (a sentencepiece decoder drops the space of the very first
/// one), so the tokens are decoded together with the piece before, and only the difference is given out.
struct Window {
    vocabulary: Arc<Loaded>,
    /// The last piece given out, then what is held back.
    ids: Vec<u32>,
    /// How many of `ids` have been given out.
    given: usize,
    /// The text of those.
    given_text: String,
}

/// More tokens than any character has bytes: beyond this the held text is broken bytes, not an unfinished
/// character.
const LONGEST_HOLD: usize = 16;

/// An unfinished character has at most this many bytes, hence tokens.
const UNFINISHED: usize = 3;

impl TextStream {
    pub(super) fn bytes() -> Self {
        Self { kind: Kind::Bytes { pending: Vec::new() } }
    }

    pub(super) fn loaded(vocabulary: Arc<Loaded>) -> Self {
        let window = Window { vocabulary, ids: Vec::new(), given: 0, given_text: String::new() };
        Self { kind: Kind::Loaded(window) }
    }

    /// Takes the next id; gives the characters that are complete now, often none or several.
    pub fn push(&mut self, id: u32) -> String {
        match &mut self.kind {
            Kind::Bytes { pending } => {
                pending.extend(u8::try_from(id).ok());
                complete_characters(pending)
            }
            Kind::Loaded(window) => window.push(id),
        }
    }

    /// What was held back, with U+FFFD for bytes that never became a character. The stream is empty
    /// afterwards.
    pub fn finish(&mut self) -> String {
        match &mut self.kind {
            Kind::Bytes { pending } => String::from_utf8_lossy(&std::mem::take(pending)).into_owned(),
            Kind::Loaded(window) => window.finish(),
        }
    }
}

/// Moves the complete characters out of `pending`, each stretch of invalid bytes as one U+FFFD.
fn complete_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    loop {
        match std::str::from_utf8(pending) {
            Ok(valid) => {
                text.push_str(valid);
                pending.clear();
                return text;
            }
            Err(error) => {
                let (valid, rest) = pending.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(invalid) = error.error_len() else {
                    *pending = rest.to_vec();
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                *pending = rest[invalid..].to_vec();
            }
        }
    }
}

impl Window {
    fn push(&mut self, id: u32) -> String {
        self.ids.push(id);
        let text = self.decode(0, self.ids.len());
        if !text.ends_with(char::REPLACEMENT_CHARACTER) {
            return self.give(self.ids.len(), text);
        }
        let held = self.ids.len() - self.given;
        if held < LONGEST_HOLD {
            return String::new();
        }
        let broken = self.ids.len() - UNFINISHED;
        self.give(broken, self.decode(0, broken))
    }

    fn finish(&mut self) -> String {
        let rest = self.give(self.ids.len(), self.decode(0, self.ids.len()));
        self.ids.clear();
        self.given = 0;
        self.given_text.clear();
        rest
    }

    /// Gives out the tokens up to `until`, where `text` is what the window up to there decodes to.
    fn give(&mut self, until: usize, text: String) -> String {
        let piece = match text.strip_prefix(self.given_text.as_str()) {
            Some(piece) => piece.to_owned(),
            // Broken bytes can change how the decoder reads the ones before them; those are out already.
            None => self.decode(self.given, until),
        };
        if piece.is_empty() {
            // Special tokens, or a space that the decoder drops at the start: they stay for the next
            // difference.
            return piece;
        }
        self.ids.drain(..self.given);
        self.given = until - self.given;
        self.given_text = self.decode(0, self.given);
        piece
    }

    fn decode(&self, from: usize, to: usize) -> String {
        // A decoder that fails on a window has nothing to show for it; `Vocabulary::decode` reports the
        // error.
        self.vocabulary.decode(&self.ids[from..to]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::vocabulary::Vocabulary;

    #[test]
    fn bytes_come_out_as_whole_characters() {
        let vocabulary = Vocabulary::bytes();
        let text = "aß—🦙\u{0}";
        let mut stream = vocabulary.stream();
        let pieces: Vec<String> =
            vocabulary.encode(text).unwrap().into_iter().map(|id| stream.push(id)).collect();
        assert_eq!(pieces, ["a", "", "ß", "", "", "—", "", "", "", "🦙", "\u{0}"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn broken_bytes_are_the_same_as_in_one_go() {
        let vocabulary = Vocabulary::bytes();
        for bytes in
            [&[0xff, b'a', 0xe2, 0x80][..], &[0xf0, 0x9f, b'x'], &[0x80, 0x80], &[0xe2, 0x80, 0xc3, 0xa9]]
        {
            let ids = vocabulary.encode_bytes(bytes).unwrap();
            let mut stream = vocabulary.stream();
            let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
            streamed += &stream.finish();
            assert_eq!(streamed, vocabulary.decode(&ids).unwrap());
        }
    }
}
