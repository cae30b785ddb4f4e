//! From a prompt to text: decoding with stop strings, streamed in whole characters.

use std::ops::ControlFlow;

use data::{TextStream, Vocabulary};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::speculate::{DecodeSettings, Decoded, Ending, Origin, decode};
use crate::stop_strings::StopStrings;
use crate::target::Target;

/// How to continue a prompt, and which text ends it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateSettings {
    /// How tokens are decoded.
    pub decoding: DecodeSettings,
    /// Any of these ends the text and is not part of it, whatever tokens it comes in.
    pub stop: Vec<String>,
}

/// Some text of a continuation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Whole characters, at least one.
    pub text: String,
    /// Where the token came from that completed it.
    pub origin: Origin,
}

/// A continuation as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// Everything before the stop string.
    pub text: String,
    /// The same in pieces, for shading; tokens without visible text have none.
    pub pieces: Vec<Piece>,
    /// The tokens, up to the one that ended the text.
    pub decoded: Decoded,
}

/// Continues `prompt` (tokens, with whatever stands before a document). `sink` gets the text as soon as it is certain and
/// may end it.
///
/// # Errors
///
/// As [`decode`], and if a stop string is empty or very long.
pub fn generate(
    target: &mut Target,
    vocabulary: &Vocabulary,
    prompt: &[u32],
    settings: &GenerateSettings,
    sink: &mut dyn FnMut(&Piece) -> ControlFlow<()>,
) -> Result<Generation> {
    let mut writer = Writer { stops: StopStrings::new(&settings.stop)?, pieces: Vec::new(), given: 0, sink };
    let mut stream = stream_after(vocabulary, prompt);
    let mut decoded = decode(target, prompt, &settings.decoding, &mut |token, origin| {
        writer.push(&stream.push(token), origin)
    })?;
    if !matches!(decoded.ending, Ending::StopString | Ending::Interrupted) {
        let origin = decoded.origins.last().copied().unwrap_or(Origin::Verifier);
        match writer.push(&stream.finish(), origin) {
            ControlFlow::Break(ending) => decoded.ending = ending,
            ControlFlow::Continue(()) => writer.finish(),
        }
    }
    let text = writer.pieces.iter().map(|piece| piece.text.as_str()).collect();
    Ok(Generation { text, pieces: writer.pieces, decoded })
}

/// The text that `decoded` adds to `prompt`; an end token has none.
pub fn text_after(vocabulary: &Vocabulary, prompt: &[u32], decoded: &Decoded) -> String {
    let mut stream = stream_after(vocabulary, prompt);
    let ended = usize::from(decoded.ending == Ending::EndToken);
    let mut text: String =
        decoded.ids[..decoded.ids.len() - ended].iter().map(|token| stream.push(*token)).collect();
    text += &stream.finish();
    text
}

/// More tokens than one character has bytes.
const CONTEXT_OF_A_TOKEN: usize = 16;

/// A stream that stands after the prompt: what a token's text is depends on the tokens before it.
fn stream_after(vocabulary: &Vocabulary, prompt: &[u32]) -> TextStream {
    let mut stream = vocabulary.stream();
    for token in &prompt[prompt.len().saturating_sub(CONTEXT_OF_A_TOKEN)..] {
        stream.push(*token);
    }
    stream
}

/// Collects what is certain, and hands it on.
struct Writer<'a> {
    stops: StopStrings<'a>,
    pieces: Vec<Piece>,
    /// Pieces that the sink has seen.
    given: usize,
    sink: &'a mut dyn FnMut(&Piece) -> ControlFlow<()>,
}

impl Writer<'_> {
    fn push(&mut self, text: &str, origin: Origin) -> ControlFlow<Ending> {
        let pieces = &mut self.pieces;
        let stopped = self.stops.push(text, origin, &mut |text, origin| {
            pieces.push(Piece { text: text.to_owned(), origin });
        });
        let interrupted = self.give().is_break();
        match (stopped, interrupted) {
            (true, _) => ControlFlow::Break(Ending::StopString),
            (_, true) => ControlFlow::Break(Ending::Interrupted),
            _ => ControlFlow::Continue(()),
        }
    }

    fn finish(&mut self) {
        let pieces = &mut self.pieces;
        self.stops.finish(&mut |text, origin| pieces.push(Piece { text: text.to_owned(), origin }));
        // The text is at its end: there is nothing left to interrupt.
        let _ = self.give();
    }

    fn give(&mut self) -> ControlFlow<()> {
        while let Some(piece) = self.pieces.get(self.given) {
            self.given += 1;
            (self.sink)(piece)?;
        }
        ControlFlow::Continue(())
    }
}
