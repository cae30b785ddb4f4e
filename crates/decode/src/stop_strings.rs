//! Stop strings in text that arrives in pieces.
//!
//! A stop string may begin in one token and end in another, so text that may be its beginning is held back until more is
//! known. The text is read as if it came character by character: the stop string that is complete first counts, whatever
//! the pieces were.

use crate::error::{Error, Result};
use crate::speculate::Origin;

/// Watches for stop strings.
#[derive(Debug)]
pub(crate) struct StopStrings<'a> {
    stops: &'a [String],
    held: String,
    /// Lengths in bytes of the pieces that `held` is made of.
    parts: Vec<(usize, Origin)>,
}

/// Longer stop strings would hold text back for too long, and are a mistake.
const LONGEST_STOP_STRING: usize = 1024;

impl<'a> StopStrings<'a> {
    pub(crate) fn new(stops: &'a [String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::setting("stop", "a stop string is empty: it would stop everywhere"));
        }
        if let Some(stop) = stops.iter().find(|stop| stop.len() > LONGEST_STOP_STRING) {
            let problem =
                format!("a stop string has {} bytes: give at most {LONGEST_STOP_STRING}", stop.len());
            return Err(Error::setting("stop", problem));
        }
        Ok(Self { stops, held: String::new(), parts: Vec::new() })
    }

    /// Takes text in and hands on what is certain. Returns whether a stop string is complete; the text before it has then
    /// been handed on, and nothing more will be.
    pub(crate) fn push(&mut self, text: &str, origin: Origin, sink: &mut dyn FnMut(&str, Origin)) -> bool {
        self.held.push_str(text);
        self.parts.push((text.len(), origin));
        if let Some(start) = self.first_stop() {
            self.release(start, sink);
            self.held.clear();
            self.parts.clear();
            return true;
        }
        self.release(self.held.len() - self.longest_beginning(), sink);
        false
    }

    /// Hands on what was held back: no more text will come.
    pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(&str, Origin)) {
        self.release(self.held.len(), sink);
    }

    /// Where the stop string begins that is complete first.
    fn first_stop(&self) -> Option<usize> {
        let places = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop.len())));
        places.min_by_key(|(start, length)| (start + length, *start)).map(|(start, _)| start)
    }

    /// How much of the end of the held text may be the beginning of a stop string.
    fn longest_beginning(&self) -> usize {
        let beginning = |stop: &String| {
            let lengths = (1..stop.len()).rev().filter(|length| stop.is_char_boundary(*length));
            lengths.into_iter().find(|length| self.held.ends_with(&stop[..*length])).unwrap_or(0)
        };
        self.stops.iter().map(beginning).max().unwrap_or(0)
    }

    /// Hands on the first `length` bytes, piece by piece.
    fn release(&mut self, length: usize, sink: &mut dyn FnMut(&str, Origin)) {
        let (mut start, mut whole) = (0, 0);
        for (part, origin) in &mut self.parts {
            let end = (start + *part).min(length);
            if end > start {
                sink(&self.held[start..end], *origin);
            }
            *part -= end - start;
            whole += usize::from(*part == 0);
            if *part > 0 {
                break;
            }
            start = end;
        }
        self.parts.drain(..whole);
        self.held.drain(..length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes pieces (origins alternate between drafts and the verifier); what came out of each, and whether it stopped.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut watch = StopStrings::new(&stops).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            let mut text = String::new();
            let stopped = watch.push(piece, Origin::Verifier, &mut |part, _| text.push_str(part));
            out.push(text);
            if stopped {
                return (out, true);
            }
        }
        let mut text = String::new();
        watch.finish(&mut |part, _| text.push_str(part));
        out.push(text);
        (out, false)
    }

    #[test]
    fn without_stop_strings_everything_passes_at_once() {
        assert_eq!(run(&[], &["a", "", "bc"]), (vec!["a".into(), "".into(), "bc".into(), "".into()], false));
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_cut_off() {
        let (out, stopped) = run(&["\n\nUser:"], &["Hi.", " \n", "\nUs", "er: more"]);
        assert!(stopped);
        assert_eq!(out, ["Hi.", " ", "", ""]);
    }

    #[test]
    fn text_that_only_began_like_a_stop_string_comes_out_later() {
        let (out, stopped) = run(&["aab"], &["a", "a", "a", "c", "aa"]);
        assert!(!stopped);
        assert_eq!(out, ["", "", "a", "aac", "", "aa"]);
    }

    #[test]
    fn the_stop_string_that_is_complete_first_counts() {
        // Character by character "b" is complete before "abc".
        for pieces in [&["xabc"][..], &["x", "a", "b", "c"], &["xa", "bc"]] {
            let (out, stopped) = run(&["abc", "b"], pieces);
            assert!(stopped);
            assert_eq!(out.concat(), "xa", "{pieces:?}");
        }
        // Of two that end together the longer one is cut off.
        assert_eq!(run(&["c", "abc"], &["xabc"]).0.concat(), "x");
    }

    #[test]
    fn characters_are_never_split() {
        let (out, stopped) = run(&["é—x"], &["é", "—", "é—x"]);
        assert!(stopped);
        assert_eq!(out, ["", "", "é—"]);
        assert_eq!(run(&["é"], &["e\u{301}", "ê"]).0.concat(), "e\u{301}ê");
    }

    #[test]
    fn pieces_keep_their_origins() {
        let stops = ["END".to_owned()];
        let mut watch = StopStrings::new(&stops).unwrap();
        let mut out = Vec::new();
        let mut push = |text: &str, origin| {
            watch.push(text, origin, &mut |part, from| out.push((part.to_owned(), from)))
        };
        push("aE", Origin::Verifier);
        push("N", Origin::Draft(1));
        push("bE", Origin::Draft(2));
        assert!(push("ND", Origin::Verifier));
        let expected = [
            ("a", Origin::Verifier),
            ("E", Origin::Verifier),
            ("N", Origin::Draft(1)),
            ("b", Origin::Draft(2)),
        ];
        assert_eq!(out, expected.map(|(text, origin)| (text.to_owned(), origin)));
    }

    #[test]
    fn an_empty_stop_string_is_refused() {
        assert!(StopStrings::new(&[String::new()]).is_err());
        assert!(StopStrings::new(&["x".repeat(2000)]).is_err());
    }
}
