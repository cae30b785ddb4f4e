//! Blockwise self-speculation (Stern et al. 1811.03115; Gloeckle et al. 2404.19737, section 2): one run of the model
//! verifies a draft, and its last accepted row makes the next one.
//!
//! In greedy decoding every token is the model's own choice at its row, with or without drafts: a draft only decides how many
//! rows one run has. In sampling every token has the distribution that it has without drafts ([`crate::rejection`]). A row is
//! read while the tokens before it were confirmed, so repetition penalty and stop rules see the same history that they see
//! without drafts.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rejection::{Drafted, Exact, Rule};
use crate::sampling::{Sampler, SamplingSettings};
use crate::statistics::Statistics;
use crate::target::Target;

/// How to continue a prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeSettings {
    /// The continuation has at most this many tokens; fewer where the context ends.
    pub max_new_tokens: usize,
    /// Tokens drafted per round; 0 decodes plainly and never runs the drafter.
    pub draft_length: usize,
    /// How tokens are chosen.
    pub sampling: SamplingSettings,
    /// Tokens that end the text.
    pub end_tokens: Vec<u32>,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        Self {
            max_new_tokens: 256,
            draft_length: 0,
            sampling: SamplingSettings::default(),
            end_tokens: Vec::new(),
        }
    }
}

impl DecodeSettings {
    /// Refuses settings that `target` cannot follow.
    ///
    /// # Errors
    ///
    /// Naming the setting.
    pub fn validate(&self, target: &Target) -> Result<()> {
        self.sampling.validate()?;
        if self.max_new_tokens == 0 {
            return Err(Error::setting("max_new_tokens", "0 tokens: give at least 1"));
        }
        let longest = target.longest_draft();
        if self.draft_length > longest {
            let problem = match longest {
                0 => format!(
                    "{} tokens: this model has no heads, and nothing else drafts: use 0",
                    self.draft_length
                ),
                _ => format!("{} tokens: draft 1 to {longest} here", self.draft_length),
            };
            return Err(Error::setting("draft_length", problem));
        }
        Ok(())
    }
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The model's own decision.
    Verifier,
    /// The k-th token of a draft, from 1, which the model confirmed.
    Draft(usize),
}

impl Origin {
    /// Place in its draft, if the token was drafted.
    pub fn drafted_depth(self) -> Option<usize> {
        match self {
            Self::Verifier => None,
            Self::Draft(depth) => Some(depth),
        }
    }
}

/// Why a continuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model gave an end token, which is the last of the ids and has no text.
    EndToken,
    /// A stop string was complete.
    StopString,
    /// As many tokens as were asked for.
    MaxNewTokens,
    /// Prompt and continuation fill the context.
    ContextFull,
    /// The receiver wanted no more.
    Interrupted,
}

/// A continuation as tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decoded {
    /// The new tokens, an end token included.
    pub ids: Vec<u32>,
    /// Where each came from.
    pub origins: Vec<Origin>,
    /// Why there are no more.
    pub ending: Ending,
    /// What it cost.
    pub statistics: Statistics,
}

/// Continues `prompt`. `sink` gets every token except an end token as soon as it is decided, and may end the text; tokens
/// that the same run of the model gave after that one are dropped.
///
/// # Errors
///
/// If settings or prompt are refused (see [`DecodeSettings::validate`], [`Target::prefill`]), or logits are not finite.
pub fn decode(
    target: &mut Target,
    prompt: &[u32],
    settings: &DecodeSettings,
    sink: &mut dyn FnMut(u32, Origin) -> ControlFlow<Ending>,
) -> Result<Decoded> {
    decode_by(&Manner::default(), target, prompt, settings, &mut |_| {}, sink)
}

/// How drafts are verified, and which tokens there are.
pub(crate) struct Manner<'a> {
    /// The way to verify.
    pub(crate) rule: &'a dyn Rule,
    /// The only tokens that target and draft may choose.
    pub(crate) allowed: Option<&'a [u32]>,
}

impl Default for Manner<'_> {
    fn default() -> Self {
        Self { rule: &Exact, allowed: None }
    }
}

/// What was drafted for a token of the text before it was decided.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The draft's token at this place, if the draft reached it.
    pub(crate) drafted: Option<&'a Drafted>,
    /// The draft's token at the place before.
    pub(crate) earlier: Option<&'a Drafted>,
}

/// As [`decode`] in another manner; `watch` is told of every token of the text what was drafted there.
pub(crate) fn decode_by(
    manner: &Manner,
    target: &mut Target,
    prompt: &[u32],
    settings: &DecodeSettings,
    watch: &mut dyn FnMut(Row),
    sink: &mut dyn FnMut(u32, Origin) -> ControlFlow<Ending>,
) -> Result<Decoded> {
    settings.validate(target)?;
    if prompt.len() >= target.capacity() {
        return Err(Error::PromptTooLong { tokens: prompt.len(), capacity: target.capacity() });
    }
    let draft_length = settings.draft_length;
    let room = target.capacity() - prompt.len();
    let mut text = Text::new(settings, manner.allowed, prompt.len(), room, sink)?;

    let start = Instant::now();
    let mut logits = target.prefill(prompt, draft_length > 0)?;
    prompt.iter().for_each(|token| text.sampler.observe(*token));
    let first = text.choose(&mut logits.data)?;
    target.recycle(logits);
    let first_at = Instant::now();
    let mut statistics = Statistics { generations: 1, prompt_tokens: prompt.len(), ..Statistics::default() };
    watch(Row { drafted: None, earlier: None });
    let mut ending = text.take(first, Origin::Verifier);
    let mut rows = vec![first];
    let ending = loop {
        if let Some(ending) = ending {
            break ending;
        }
        ending = round(manner.rule, target, &mut text, draft_length, &mut rows, watch, &mut statistics)?;
    };
    statistics.committed_tokens = text.ids.len() - 1;
    statistics.first_token_seconds = (first_at - start).as_secs_f64();
    statistics.decode_seconds = first_at.elapsed().as_secs_f64();
    Ok(Decoded { ids: text.ids, origins: text.origins, ending, statistics })
}

/// Drafts, runs the model over the decided token and the draft, and takes the tokens that its rows decide. `rows` begins
/// with the decided token, and does so again afterwards.
fn round(
    rule: &dyn Rule,
    target: &mut Target,
    text: &mut Text,
    draft_length: usize,
    rows: &mut Vec<u32>,
    watch: &mut dyn FnMut(Row),
    statistics: &mut Statistics,
) -> Result<Option<Ending>> {
    let most = draft_length.min(text.most_drafts());
    let draft_length = target.draft_length(most);
    let mut draft = Vec::new();
    if draft_length > 0 {
        let mut drafting = text.sampler.drafting();
        statistics.forwards += target.draft(rows[0], draft_length, &mut drafting);
        draft = drafting.finish();
        rows.extend(draft.iter().map(|drafted| drafted.token));
    } else if most == 0 {
        // What is left only shrinks, so that no later round will want a draft either.
        target.stop_drafting();
    }
    let mut logits = target.forward(rows)?;
    let width = logits.width;
    let settled = settle(rule, text, &mut logits.data, width, &draft, watch, statistics)?;
    target.recycle(logits);
    target.commit(settled.committed);
    target.observe_draft(draft.len(), settled.accepted);
    rows.clear();
    rows.push(settled.decided);
    Ok(settled.ending)
}

/// What the rows of a run came to.
pub(crate) struct Settled {
    /// Why the text ends, if it does.
    pub(crate) ending: Option<Ending>,
    /// The last token decided.
    pub(crate) decided: u32,
    /// Rows that stay.
    pub(crate) committed: usize,
    /// Tokens of the draft that were accepted.
    pub(crate) accepted: usize,
}

/// Takes the tokens that the rows of a run decide: those of the draft that are accepted, and the one after them. `logits` are
/// those of the decided token and the draft, `width` wide.
pub(crate) fn settle(
    rule: &dyn Rule,
    text: &mut Text,
    logits: &mut [f32],
    width: usize,
    draft: &[Drafted],
    watch: &mut dyn FnMut(Row),
    statistics: &mut Statistics,
) -> Result<Settled> {
    statistics.forwards += 1;
    let mut settled = Settled { ending: None, decided: 0, committed: 0, accepted: 0 };
    for (row, logits) in logits.chunks_exact_mut(width).enumerate() {
        settled.committed = row + 1;
        let (drafted, earlier) = (draft.get(row), row.checked_sub(1).and_then(|row| draft.get(row)));
        watch(Row { drafted, earlier });
        let accepted = match drafted {
            None => {
                settled.decided = text.choose(logits)?;
                false
            }
            Some(drafted) => {
                let judged = text.sampler.judge(rule, logits, text.position, drafted, earlier)?;
                statistics.count_draft(row + 1, judged.accepted, judged.expected);
                settled.decided = judged.token;
                judged.accepted
            }
        };
        settled.accepted += usize::from(accepted);
        let origin = if accepted { Origin::Draft(row + 1) } else { Origin::Verifier };
        settled.ending = text.take(settled.decided, origin);
        if !accepted || settled.ending.is_some() {
            break;
        }
    }
    Ok(settled)
}

/// The continuation so far, and the rules that end it.
pub(crate) struct Text<'a> {
    pub(crate) sampler: Sampler,
    settings: &'a DecodeSettings,
    /// At most this many tokens.
    limit: usize,
    /// Position of the newest token that the model has seen.
    position: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) origins: Vec<Origin>,
    sink: &'a mut dyn FnMut(u32, Origin) -> ControlFlow<Ending>,
}

impl<'a> Text<'a> {
    /// After a prompt of `prompt` tokens, with room for so many more.
    pub(crate) fn new(
        settings: &'a DecodeSettings,
        allowed: Option<&[u32]>,
        prompt: usize,
        room: usize,
        sink: &'a mut dyn FnMut(u32, Origin) -> ControlFlow<Ending>,
    ) -> Result<Self> {
        Ok(Self {
            sampler: Sampler::within(&settings.sampling, allowed)?,
            settings,
            limit: settings.max_new_tokens.min(room),
            position: prompt.saturating_sub(1),
            ids: Vec::new(),
            origins: Vec::new(),
            sink,
        })
    }

    /// Tokens that a draft may have before the text is at its limit: a run gives one more.
    pub(crate) fn most_drafts(&self) -> usize {
        self.limit - self.ids.len() - 1
    }

    pub(crate) fn choose(&mut self, logits: &mut [f32]) -> Result<u32> {
        self.sampler.choose(logits, self.position)
    }

    /// Takes a decided token in; says whether it is the last.
    pub(crate) fn take(&mut self, token: u32, origin: Origin) -> Option<Ending> {
        self.ids.push(token);
        self.origins.push(origin);
        self.sampler.observe(token);
        self.position += 1;
        if self.settings.end_tokens.contains(&token) {
            return Some(Ending::EndToken);
        }
        if let ControlFlow::Break(ending) = (self.sink)(token, origin) {
            return Some(ending);
        }
        if self.ids.len() < self.limit {
            return None;
        }
        Some(if self.limit < self.settings.max_new_tokens {
            Ending::ContextFull
        } else {
            Ending::MaxNewTokens
        })
    }
}
