//! What the numbers of a run say, in sentences: whether drafting pays, why or why not, and what must not be concluded.
//!
//! The rules are fixed here and not left to whoever writes about a run, so that a page is as plain about a failure as
//! about a success.

use super::{DecodingFigures, DraftLengthFigures, HeldOutFigures, LooksAhead, MainJobFigures};
use crate::number::{fixed, percent, times};

/// Within this of 1 a ratio of two speeds is called no difference, whatever the repeats say.
pub(super) const NO_DIFFERENCE: f64 = 0.03;
/// Below this many tokens per forward the drafts themselves are the problem.
const TOKENS_PER_FORWARD_LOW: f64 = 1.3;
/// Where less than this part of the tokens per forward arrives as speed, the cost of a round is worth a sentence.
const SHARE_ARRIVING: f64 = 0.85;
/// A corpus that repeats more of itself, or is more predictable, says little about other text.
const REPEATED_SHARE_HIGH: f64 = 0.10;
const BITS_PER_BYTE_LOW: f64 = 0.6;
/// Greedy text that repeats more of itself than this goes in circles.
const LOOPING_SHARE: f64 = 0.25;
/// From about this size on, multi-token heads were reported to improve language benchmarks (arXiv 2404.19737).
const HEADS_HELP_FROM_PARAMETERS: u64 = 1_000_000_000;

/// Paragraphs, the most important first. Backquotes mark code.
pub(super) fn verdict(figures: &MainJobFigures) -> Vec<String> {
    let mut words = Vec::new();
    words.extend(lost_text(figures));
    if let Some(decoding) = &figures.decoding {
        words.extend(decoding.best().and_then(|best| speed(decoding, best)));
        let kind = figures.settings.heads_kind.as_str();
        words.extend(decoding.best().and_then(|best| reason(decoding, best, kind)));
        words.extend(decoding.best().and_then(|best| longer_is_slower(decoding, best)));
        words.extend(loops(decoding));
    }
    words.extend(easy_text(figures));
    words.extend(figures.held_out.as_ref().and_then(next_token_cost));
    words.extend(small_model(figures));
    words
}

/// Said first, since no speed counts without it.
fn lost_text(figures: &MainJobFigures) -> Option<String> {
    let losslessness = figures.losslessness.as_ref().filter(|losslessness| !losslessness.identical)?;
    let place = losslessness.first_divergence.as_ref().map_or(String::new(), |first| {
        format!(
            " The first difference is at byte {} of prompt {} (both counted from 0), with draft length {}.",
            first.byte, first.prompt, first.draft_length
        )
    });
    Some(format!(
        "Decoding with drafts did not write the same text as plain decoding.{place} That is a defect: until it is \
         found, none of the speeds below counts."
    ))
}

fn speed(decoding: &DecodingFigures, best: &DraftLengthFigures) -> Option<String> {
    let (middle, low, high) = decoding.speedup(best)?;
    let length = drafted_tokens(best.draft_length);
    let repeats = best.tokens_per_second.len();
    let range = match repeats {
        0 | 1 => " (one measurement, so without a spread)".to_string(),
        _ if times(low) == times(high) => format!(" (the same in {repeats} repeats)"),
        _ => format!(" ({} to {} over {repeats} repeats)", times(low), times(high)),
    };
    Some(if (middle - 1.0).abs() <= NO_DIFFERENCE || (low < 1.0 && high > 1.0) {
        format!(
            "Drafting makes no difference that these measurements can show: at best, with {length} per round, decoding \
             runs at {} the speed of plain decoding{range}.",
            times(middle)
        )
    } else if middle < 1.0 {
        format!(
            "Drafting does not pay here. Even with the best draft length, {length} per round, decoding runs at only {} \
             the speed of plain decoding by the same engine{range}. Decode this model plainly.",
            times(middle)
        )
    } else {
        format!(
            "Drafting pays here: with {length} per round, decoding runs at {} the speed of plain decoding by the same \
             engine{range}.",
            times(middle)
        )
    })
}

/// Where the tokens per forward went.
fn reason(decoding: &DecodingFigures, best: &DraftLengthFigures, heads_kind: &str) -> Option<String> {
    let tokens = best.tokens_per_forward;
    let (speedup, ..) = decoding.speedup(best)?;
    if !tokens.is_finite() || tokens <= 0.0 {
        return None;
    }
    if tokens < TOKENS_PER_FORWARD_LOW {
        return Some(format!(
            "The drafts are seldom right: a forward commits only {} tokens, where 1 is plain decoding. Longer training \
             of the heads or more predictable text would help, a faster engine would not.",
            fixed(tokens, 2)
        ));
    }
    let cost = decoding.round_cost(best)?;
    let sum = format!(
        "A forward commits {} tokens, and a round (the forward over several rows, its verification and the heads) costs {} \
         plain forwards.",
        fixed(tokens, 2),
        fixed(cost, 2)
    );
    Some(if speedup < SHARE_ARRIVING * tokens {
        // Which part of the tokens beyond the first was lost again.
        let spent = match (tokens - speedup) / (tokens - 1.0) {
            lost if lost >= 1.0 => "all of the gain".to_string(),
            lost => format!("{}\u{a0}% of the gain", fixed(lost * 100.0, 0)),
        };
        let cause = match heads_kind {
            "" => "",
            "linear" => {
                " A linear head adds little more than its product with the unembedding; the forward over several rows is \
                 the rest."
            }
            _ => {
                " A head that is a whole layer adds one layer to each round: the shallower the trunk, the more that is."
            }
        };
        format!("{sum} So {spent} in tokens per forward is spent on the rounds themselves.{cause}")
    } else {
        format!("{sum} Nearly all of the gain in tokens per forward arrives as speed.")
    })
}

fn longer_is_slower(decoding: &DecodingFigures, best: &DraftLengthFigures) -> Option<String> {
    let longest = decoding.lengths.iter().max_by_key(|length| length.draft_length)?;
    let (best_speed, ..) = decoding.speedup(best)?;
    let (longest_speed, ..) = decoding.speedup(longest)?;
    (longest.draft_length > best.draft_length && longest_speed < best_speed - NO_DIFFERENCE).then(|| {
        format!(
            "Longer drafts are not better: with {} per round it is {}.",
            drafted_tokens(longest.draft_length),
            times(longest_speed)
        )
    })
}

/// A loop is easy to foresee, so that a gain on looping text is no gain on text that somebody wants.
fn loops(decoding: &DecodingFigures) -> Option<String> {
    let greedy = decoding.texts.iter().find(|text| text.temperature == 0.0)?;
    let share = greedy.repeated_share.filter(|&share| share > LOOPING_SHARE)?;
    let drawn = decoding.texts.iter().find(|text| text.temperature > 0.0).map_or(String::new(), |text| {
        format!(
            " Drawn at temperature {} instead, where {} repeat, a forward commits {} tokens.",
            text.temperature,
            text.repeated_share.map_or("fewer".to_string(), percent),
            fixed(text.tokens_per_forward[0], 2)
        )
    });
    Some(format!(
        "The greedy text goes in circles: {} of its spans of 16 tokens stand earlier in the same continuation, and what \
         repeats is easy to draft. Take the speed above as that of this text, not of good text.{drawn}",
        percent(share)
    ))
}

fn easy_text(figures: &MainJobFigures) -> Option<String> {
    let repeated = figures.corpus.as_ref().and_then(|corpus| corpus.repeated_spans);
    let share = repeated.and_then(|spans| spans.share()).filter(|&share| share > REPEATED_SHARE_HIGH);
    let bits = figures.held_out.as_ref().and_then(|held_out| held_out.next_token_bits_per_byte);
    let easy = bits.filter(|&bits| bits < BITS_PER_BYTE_LOW);
    let cause = match (share.zip(repeated), easy) {
        (Some((share, spans)), _) => {
            format!(
                "{} of the held-out spans of {} bytes stand in the training text",
                percent(share),
                spans.span_bytes
            )
        }
        (None, Some(bits)) => format!("held-out text costs only {} bits per byte", fixed(bits, 2)),
        (None, None) => return None,
    };
    Some(format!("The text is easy: {cause}. Acceptance and speed on other text will be lower."))
}

fn next_token_cost(held_out: &HeldOutFigures) -> Option<String> {
    let with_heads = held_out.next_token_bits_per_byte?;
    let without = held_out.next_token_only_bits_per_byte?;
    let difference = with_heads - without;
    Some(format!(
        "The next-token loss is {} bits per byte with the additional heads and {} when trained for the next token alone: \
         the heads {}.",
        fixed(with_heads, 3),
        fixed(without, 3),
        if difference.abs() < 0.0005 {
            "cost nothing that shows".to_string()
        } else if difference > 0.0 {
            format!("cost {} bits per byte", fixed(difference, 3))
        } else {
            format!("gain {} bits per byte", fixed(-difference, 3))
        }
    ))
}

fn small_model(figures: &MainJobFigures) -> Option<String> {
    let parameters = figures.settings.trunk_parameters;
    match figures.settings.looks_ahead {
        LooksAhead::Heads | LooksAhead::Joint => {}
        LooksAhead::Nothing => return None,
        LooksAhead::Registers => return Some(
            "Registers change what a model learns, and nothing of how it decodes. Whether they made it better is not said by \
             their losses: compare its held-out loss, or the share of right answers (`sakiyomi eval --task`), with those of a run \
             without registers that had the same tokens, and of one that had the same time."
                .to_string(),
        ),
    }
    (parameters > 0 && parameters < HEADS_HELP_FROM_PARAMETERS).then(|| {
        "Nothing here says that the text is better: below about one billion parameters multi-token heads do not improve \
         language benchmarks, and training them may cost some next-token loss. What can be gained at this size is speed."
            .to_string()
    })
}

fn drafted_tokens(length: usize) -> String {
    format!("{length} drafted token{}", if length == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::main_job::{Divergence, LosslessnessFigures, TextFigures};

    fn decoded(tokens_per_forward: f64, plain: &[f64], drafted: &[f64]) -> MainJobFigures {
        let length = |draft_length, tokens_per_forward, speeds: &[f64]| DraftLengthFigures {
            draft_length,
            tokens_per_forward,
            tokens_per_second: speeds.to_vec(),
            round_ms: None,
        };
        MainJobFigures {
            decoding: Some(DecodingFigures {
                lengths: vec![length(0, 1.0, plain), length(3, tokens_per_forward, drafted)],
                ..DecodingFigures::default()
            }),
            ..MainJobFigures::default()
        }
    }

    fn said(figures: &MainJobFigures) -> String {
        verdict(figures).join("\n")
    }

    #[test]
    fn a_gain_is_called_a_gain() {
        let words = said(&decoded(2.8, &[100.0, 102.0], &[190.0, 198.0]));
        assert!(words.contains("Drafting pays here"), "{words}");
        assert!(words.contains("3 drafted tokens"), "{words}");
        assert!(words.contains("A forward commits 2.80 tokens"), "{words}");
    }

    #[test]
    fn a_loss_is_called_a_loss_and_its_reason_given() {
        let words = said(&decoded(2.4, &[100.0, 101.0], &[80.0, 82.0]));
        assert!(words.contains("Drafting does not pay here"), "{words}");
        assert!(words.contains("costs 2.9"), "{words}");
        assert!(words.contains("all of the gain"), "{words}");
        let words = said(&decoded(1.1, &[100.0, 101.0], &[80.0, 82.0]));
        assert!(words.contains("seldom right"), "{words}");
    }

    #[test]
    fn overlapping_repeats_are_no_difference() {
        let words = said(&decoded(2.0, &[100.0, 100.0, 100.0], &[96.0, 108.0, 112.0]));
        assert!(words.contains("no difference"), "{words}");
    }

    #[test]
    fn text_that_goes_in_circles_is_told() {
        let text = |temperature, tokens, share| TextFigures {
            temperature,
            draft_length: 3,
            tokens_per_forward: [tokens, tokens - 0.1, tokens + 0.1],
            repeated_share: Some(share),
        };
        let mut figures = decoded(3.6, &[100.0], &[190.0]);
        let texts = |greedy, drawn| vec![text(0.0, 3.6, greedy), text(1.0, 1.7, drawn)];
        figures.decoding.as_mut().expect("decoded").texts = texts(0.8, 0.0);
        let words = said(&figures);
        assert!(words.contains("in circles: 80.0\u{a0}%"), "{words}");
        assert!(words.contains("a forward commits 1.70 tokens"), "{words}");
        figures.decoding.as_mut().expect("decoded").texts = texts(0.1, 0.0);
        assert!(!said(&figures).contains("circles"));
    }

    #[test]
    fn a_lost_byte_comes_first() {
        let mut figures = decoded(2.8, &[100.0], &[190.0]);
        figures.losslessness = Some(LosslessnessFigures {
            identical: false,
            first_divergence: Some(Divergence {
                prompt: 4,
                draft_length: 2,
                byte: 17,
                ..Divergence::default()
            }),
            ..LosslessnessFigures::default()
        });
        let words = verdict(&figures);
        assert!(words[0].contains("did not write the same text") && words[0].contains("byte 17 of prompt 4"));
    }

    #[test]
    fn registers_are_not_spoken_of_as_heads() {
        let mut figures = MainJobFigures::default();
        figures.settings.trunk_parameters = 3_000_000;
        figures.settings.looks_ahead = LooksAhead::Nothing;
        assert_eq!(said(&figures), "");
        figures.settings.looks_ahead = LooksAhead::Registers;
        let words = said(&figures);
        assert!(
            words.starts_with("Registers change what a model learns") && !words.contains("heads"),
            "{words}"
        );
    }

    #[test]
    fn small_models_are_warned_about_and_large_ones_not() {
        let mut figures = decoded(2.8, &[100.0], &[190.0]);
        assert!(!said(&figures).contains("one billion"));
        figures.settings.trunk_parameters = 3_000_000;
        assert!(said(&figures).contains("one billion"));
        figures.settings.trunk_parameters = 7_000_000_000;
        assert!(!said(&figures).contains("one billion"));
    }

    #[test]
    fn the_cost_to_the_next_token_is_stated() {
        let held_out = |with, without| HeldOutFigures {
            next_token_bits_per_byte: Some(with),
            next_token_only_bits_per_byte: Some(without),
            depths: vec![],
        };
        assert!(next_token_cost(&held_out(1.03, 1.01)).expect("both known").contains("cost 0.020 bits"));
        assert!(next_token_cost(&held_out(1.01, 1.01)).expect("both known").contains("nothing that shows"));
    }

    #[test]
    fn nothing_measured_nothing_said() {
        assert!(verdict(&MainJobFigures::default()).is_empty());
    }
}
