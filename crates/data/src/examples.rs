//! What a document is made of: plain text, or a prompt and the answer that is to be learnt.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::chat::ChatTemplate;
use crate::error::Result;
use crate::vocabulary::Vocabulary;

/// What the documents of a source are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Examples {
    /// Text, all of which is learnt.
    #[default]
    Text,
    /// A prompt and a completion, of which the completion is learnt: two fields of a `.jsonl` line or a `.parquet` row, or a line of
    /// a `.txt` file.
    Prompts {
        /// Field of the prompt.
        prompt: String,
        /// Field of the completion.
        completion: String,
        /// What ends the prompt in a line of a `.txt` file, and belongs to it.
        prompt_end: String,
    },
    /// A conversation, of which what the assistant says is learnt.
    Messages {
        /// Field of the list of messages.
        field: String,
        /// How a conversation becomes text.
        template: ChatTemplate,
    },
}

/// Which part of a document is learnt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Learnt {
    /// Everything.
    #[default]
    All,
    /// These bytes, in order and apart.
    Answers {
        /// Ranges of the text.
        spans: Vec<Range<usize>>,
        /// Whether the vocabulary's begin and end tokens stand around the text; a chat template writes its own.
        framed: bool,
    },
}

/// Marks a token that is given and not learnt, in a corpus of prompts and answers.
pub(crate) const GIVEN: u32 = 1 << 31;

/// A prompt and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// What is given.
    pub prompt: String,
    /// What is to be said.
    pub answer: String,
}

impl Example {
    /// The document that it is trained as.
    ///
    /// # Errors
    /// In a few words, if one of them is empty.
    pub fn document(self) -> std::result::Result<(String, Learnt), String> {
        if self.prompt.is_empty() {
            return Err("the prompt is empty: all of it would be learnt; read it as text instead".to_owned());
        }
        if self.answer.is_empty() {
            return Err("the completion is empty: there is nothing to learn from it; leave it out".to_owned());
        }
        let (start, text) = (self.prompt.len(), self.prompt + &self.answer);
        let spans = std::iter::once(start..text.len()).collect();
        Ok((text, Learnt::Answers { spans, framed: true }))
    }
}

impl Examples {
    /// Whether only a part of each document is learnt.
    pub fn are_answered(&self) -> bool {
        *self != Self::Text
    }

    /// The document in a JSON object.
    ///
    /// # Errors
    /// In a few words, if fields are missing or of the wrong kind.
    pub(crate) fn of_object(
        &self,
        object: &Map<String, Value>,
    ) -> std::result::Result<(String, Learnt), String> {
        match self {
            Self::Text => Err("is read as text".to_owned()),
            Self::Prompts { prompt, completion, .. } => {
                let text = |field: &str| match object.get(field) {
                    Some(Value::String(text)) => Ok(text.clone()),
                    Some(_) => Err(format!("the field {field:?} is no string")),
                    None => Err(crate::documents::no_field(field, &field_names(object))),
                };
                Example { prompt: text(prompt)?, answer: text(completion)? }.document()
            }
            Self::Messages { field, template } => {
                let messages = object
                    .get(field)
                    .ok_or_else(|| crate::documents::no_field(field, &field_names(object)))?;
                let (text, spans) = template.answers(messages, object.get("tools"))?;
                Ok((text, Learnt::Answers { spans, framed: false }))
            }
        }
    }

    /// The document in a line of a `.txt` file.
    ///
    /// # Errors
    /// In a few words, if the line has no prompt.
    pub(crate) fn of_line(&self, line: &str) -> std::result::Result<(String, Learnt), String> {
        let Self::Prompts { prompt_end, .. } = self else {
            return Err("conversations are read from .jsonl and .parquet files".to_owned());
        };
        let Some((prompt, answer)) = line.split_once(prompt_end) else {
            return Err(format!("the line has no {prompt_end:?}, which ends a prompt (data.prompt_end)"));
        };
        Example { prompt: format!("{prompt}{prompt_end}"), answer: answer.trim_end().to_owned() }.document()
    }
}

fn field_names(object: &Map<String, Value>) -> Vec<String> {
    object.keys().map(|key| format!("{key:?}")).collect()
}

/// How many bytes of a document's text the tokens that [`encode`] made of it do not give back.
///
/// A tokenizer made for a task may leave out what stands between its tokens, and nothing is measured in bytes there: of prompts
/// and answers only those count in which a token stands for something unknown.
pub(crate) fn lost_bytes(
    vocabulary: &Vocabulary,
    text: &str,
    learnt: &Learnt,
    tokens: &[u32],
) -> Result<u64> {
    if vocabulary.is_bytes() {
        return Ok(0);
    }
    let framed = !matches!(learnt, Learnt::Answers { framed: false, .. });
    let around = |token: Option<u32>| usize::from(framed && token.is_some());
    let within = around(vocabulary.begin())..tokens.len() - around(vocabulary.end());
    let ids: Vec<u32> = tokens[within].iter().map(|token| token & !GIVEN).collect();
    let unknown = vocabulary.unknown().is_some_and(|unknown| ids.contains(&unknown));
    match learnt {
        Learnt::Answers { .. } if !unknown => Ok(0),
        _ => vocabulary.lost_bytes(text, &ids),
    }
}

/// The tokens of a document, those that are not learnt marked with [`GIVEN`].
///
/// A prompt has the tokens that it has alone, as when the model is asked. Where the whole text would join the end of a prompt and
/// the beginning of its answer in one token, they stay apart.
pub(crate) fn encode(vocabulary: &Vocabulary, text: &str, learnt: &Learnt) -> Result<Vec<u32>> {
    let (spans, framed) = match learnt {
        Learnt::All => {
            let mut tokens: Vec<u32> = vocabulary.begin().into_iter().collect();
            tokens.extend(vocabulary.encode(text)?);
            tokens.extend(vocabulary.end());
            return Ok(tokens);
        }
        Learnt::Answers { spans, framed } => (spans, *framed),
    };
    let mut tokens: Vec<u32> =
        vocabulary.begin().filter(|_| framed).map(|id| id | GIVEN).into_iter().collect();
    let mut place = 0;
    let mut before = 0;
    let whole = vocabulary.encode(text)?;
    for span in spans {
        for (end, given) in [(span.start, true), (span.end, false)] {
            let here = part(vocabulary, text, place..end, &whole, &mut before)?;
            let from = tokens.len();
            tokens.extend(here.iter().map(|&id| if given { id | GIVEN } else { id }));
            if !given && !framed {
                give_what_follows_the_end(vocabulary, &mut tokens[from..]);
            }
            place = end;
        }
    }
    let rest = part(vocabulary, text, place..text.len(), &whole, &mut before)?;
    tokens.extend(rest.iter().map(|&id| id | GIVEN));
    if framed {
        tokens.extend(vocabulary.end());
    }
    Ok(tokens)
}

/// Tokens of a part of the text: those of the whole where its borders are borders of tokens there. `before` counts the tokens of
/// the whole that were used up, as long as it is so.
fn part(
    vocabulary: &Vocabulary,
    text: &str,
    range: Range<usize>,
    whole: &[u32],
    before: &mut usize,
) -> Result<Vec<u32>> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let upto =
        if range.end == text.len() { whole.to_vec() } else { vocabulary.encode(&text[..range.end])? };
    if *before <= upto.len() && whole.starts_with(&upto) {
        let part = upto[*before..].to_vec();
        *before = upto.len();
        return Ok(part);
    }
    *before = usize::MAX;
    vocabulary.encode(&text[range])
}

/// Behind the token that ends a turn a template writes line ends, which nobody is to learn.
fn give_what_follows_the_end(vocabulary: &Vocabulary, answer: &mut [u32]) {
    let special = |&id: &u32| vocabulary.special_name(id).is_some();
    let Some(end) = answer.iter().rposition(special) else { return };
    let blank = vocabulary.decode(&answer[end + 1..]).is_ok_and(|text| text.trim().is_empty());
    if blank {
        answer[end + 1..].iter_mut().for_each(|id| *id |= GIVEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts() -> Examples {
        Examples::Prompts { prompt: "q".into(), completion: "a".into(), prompt_end: "=".into() }
    }

    /// The text of the given tokens and of those that are learnt.
    fn apart(tokens: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let of = |given: bool| {
            tokens.iter().filter(|&&id| (id & GIVEN != 0) == given).map(|id| id & !GIVEN).collect()
        };
        (of(true), of(false))
    }

    #[test]
    fn the_answer_and_the_end_are_learnt() {
        let vocabulary = Vocabulary::bytes();
        let (text, learnt) = prompts().of_line("1+2=3").unwrap();
        let tokens = encode(&vocabulary, &text, &learnt).unwrap();
        assert_eq!(
            apart(&tokens),
            (
                [&[256], "1+2=".as_bytes().iter().map(|&b| u32::from(b)).collect::<Vec<_>>().as_slice()]
                    .concat(),
                vec![u32::from(b'3'), 256]
            )
        );
        assert!(encode(&vocabulary, "ab", &Learnt::All).unwrap().iter().all(|id| id & GIVEN == 0));
    }

    #[test]
    fn examples_that_teach_nothing_are_refused() {
        let refusal = |line: &str| prompts().of_line(line).unwrap_err();
        assert!(refusal("no prompt").contains("\"=\""));
        assert!(refusal("1=").contains("completion is empty"));
        let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let refusal = |text: &str| prompts().of_object(&object(text)).unwrap_err();
        assert!(refusal(r#"{"q": "", "a": "b"}"#).contains("prompt is empty"));
        assert!(refusal(r#"{"q": "c"}"#).contains("has no field \"a\"; its fields: \"q\""));
        assert!(refusal(r#"{"q": 3, "a": "b"}"#).contains("no string"));
    }
}
