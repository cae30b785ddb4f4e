//! Chat templates: how a conversation becomes text, for training, for evaluation and for generation alike.
//!
//! A template is rendered as transformers does it (jinja2 with `trim_blocks` and `lstrip_blocks`, Python's JSON, Python's names of
//! the constants), so that a model sees what it saw elsewhere. What is learnt of a conversation is found by rendering it step by
//! step: up to an answer with the words that ask for one, and then with the answer.

mod bounds;
mod python;
mod render;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::{Error, Result};
use render::{Renderer, on_a_deep_stack};

/// A template and the special tokens that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatTemplate {
    /// The Jinja source.
    pub source: String,
    /// Special tokens by the names under which a template knows them, such as `eos_token`.
    pub special_tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Checks that the source can be understood.
    ///
    /// # Errors
    /// If it is no template.
    pub fn new(source: String, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let template = Self { source, special_tokens };
        render::check(&template).map_err(|reason| Error::ChatTemplate { reason })?;
        Ok(template)
    }

    /// The text of a conversation, a list of objects with `role` and `content`. With `asks`, what asks for an answer follows.
    ///
    /// # Errors
    /// In a few words, if the template refuses it.
    pub fn render(
        &self,
        messages: &Value,
        tools: Option<&Value>,
        asks: bool,
    ) -> std::result::Result<String, String> {
        on_a_deep_stack(|| Renderer::new(self, render::local_time)?.render(messages, tools, asks))
    }

    /// The text of a conversation, and which bytes of it the assistant says, the end of each turn included.
    ///
    /// # Errors
    /// In a few words, if there is no answer, or the template writes an answer in another way once the conversation goes on.
    pub fn answers(
        &self,
        messages: &Value,
        tools: Option<&Value>,
    ) -> std::result::Result<(String, Vec<Range<usize>>), String> {
        let list = messages.as_array().ok_or("the messages are no list")?;
        for (number, message) in (1..).zip(list) {
            if !message["role"].is_string() {
                return Err(format!("message {number} has no role"));
            }
        }
        in_order(list)?;
        let (text, spans) = on_a_deep_stack(|| self.spans(list, tools))?;
        if spans.is_empty() {
            let answered = list.iter().any(|message| message["role"] == "assistant");
            return Err(match answered {
                true => "the chat template leaves out what the assistant says: there is nothing to learn",
                false => "the conversation has no answer of the assistant: there is nothing to learn",
            }
            .to_owned());
        }
        if spans[0] == (0..text.len()) {
            return Err("the conversation is nothing but an answer".to_owned());
        }
        Ok((text, spans))
    }

    /// The text of a conversation, and what each answer adds to that which asks for it.
    fn spans(
        &self,
        list: &[Value],
        tools: Option<&Value>,
    ) -> std::result::Result<(String, Vec<Range<usize>>), String> {
        let renderer = Renderer::new(self, render::local_time)?;
        let text = renderer.render(&json!(list), tools, false)?;
        let answers = list.iter().enumerate().filter(|(_, message)| message["role"] == "assistant");
        let mut spans = Vec::new();
        for (index, _) in answers {
            let asked = renderer.render(&json!(list[..index]), tools, true)?;
            let answered = renderer.render(&json!(list[..=index]), tools, false)?;
            if !text.starts_with(&asked) || !answered.starts_with(&asked) || !text.starts_with(&answered) {
                return Err(format!(
                    "the chat template writes message {} in another way once the conversation goes on: make one \
                     conversation for each answer, which is then its end",
                    index + 1
                ));
            }
            if asked.len() < answered.len() {
                spans.push(asked.len()..answered.len());
            }
        }
        Ok((text, spans))
    }

    /// 32 hexadecimal digits that change with the template or its special tokens.
    pub fn digest(&self) -> String {
        let mut digest = Digest::new();
        digest.text(&self.source);
        for (name, token) in &self.special_tokens {
            digest.text(name).text(token);
        }
        digest.hex()
    }

    /// The template in `tokenizer_config.json`, or in `chat_template.jinja` beside it; `None` if there is none.
    pub(crate) fn in_files(tokenizer_config: &Value, separate: Option<&str>) -> Option<Self> {
        let within = match &tokenizer_config["chat_template"] {
            Value::String(source) => Some(source.as_str()),
            // Several by name: the one for conversations is called default.
            Value::Array(named) => {
                let default = named.iter().find(|one| one["name"] == "default");
                default.and_then(|one| one["template"].as_str())
            }
            _ => None,
        };
        let source = separate.or(within)?.to_owned();
        let text = |value: &Value| value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned);
        let tokens = tokenizer_config.as_object().into_iter().flatten();
        let special_tokens = tokens
            .filter(|(name, _)| name.ends_with("_token"))
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect();
        Some(Self { source, special_tokens })
    }
}

/// Refuses answers to nothing, and answers that say nothing.
fn in_order(list: &[Value]) -> std::result::Result<(), String> {
    let mut before = "";
    for (number, message) in (1..).zip(list) {
        let role = message["role"].as_str().unwrap_or_default();
        let mut said = message.as_object().into_iter().flatten().filter(|(name, _)| *name != "role");
        if role != "assistant" && said.clone().count() == 0 {
            return Err(format!("message {number} ({role}) has nothing but a role: give its content"));
        }
        if role == "assistant" {
            match before {
                _ if list[..number - 1].iter().all(|message| message["role"] == "system") => {
                    return Err("the conversation begins with an answer: roles out of order".to_owned());
                }
                "assistant" => {
                    return Err(format!(
                        "messages {} and {number} are both the assistant's: roles out of order; make them one message",
                        number - 1
                    ));
                }
                _ => {}
            }
            if said.all(|(_, value)| is_nothing(value)) {
                return Err(format!(
                    "message {number}, an answer, is empty: there is nothing to learn from it"
                ));
            }
        }
        before = role;
    }
    Ok(())
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
