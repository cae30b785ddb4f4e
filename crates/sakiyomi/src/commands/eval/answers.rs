//! `sakiyomi eval --task`: prompts answered freely, and how many of the answers are right.

use std::ops::ControlFlow;

use anyhow::Context;
use data::{Document, Documents, Examples, Learnt, Source};
use decode::{Batch, DecodeSettings, Ending, text_after};
use serde::Serialize;

use crate::arguments::{DraftSource, Eval, EvaluationTask};
use crate::commands::checkpoint::Loaded;
use crate::failure::Verdict;
use crate::flags::told_as_typed;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::progress::Counter;

/// Tokens of an answer in words.
const LONG_ANSWER: usize = 256;

#[derive(Serialize)]
struct Answered {
    checkpoint: String,
    task: &'static str,
    finished: bool,
    answered: usize,
    right: usize,
    share: f64,
    tokens: usize,
    wrong: Vec<Wrong>,
}

#[derive(Serialize)]
struct Wrong {
    prompt: String,
    answer: String,
    said: String,
}

pub fn run(eval: &Eval, task: EvaluationTask, threads: usize, output: Output) -> anyhow::Result<Verdict> {
    anyhow::ensure!(!eval.prompt_end.is_empty(), "--prompt-end is empty: name what ends a prompt");
    let loaded = Loaded::read_as(&eval.packing, &eval.checkpoint, threads)?;
    let examples = Examples::Prompts {
        prompt: eval.prompt_field.clone(),
        completion: eval.completion_field.clone(),
        prompt_end: eval.prompt_end.clone(),
    };
    let source = Source { paths: eval.data.clone(), examples, ..Source::default() };
    let most = if eval.count == 0 { usize::MAX } else { eval.count };
    let mut all = Documents::of(&source)?;
    let documents = all.by_ref().take(most).collect::<data::Result<_>>();
    let documents: Vec<Document> = told_as_typed(documents, &[("data.prompt_end", "--prompt-end")])?;
    let questions: Vec<Question> = documents
        .iter()
        .filter_map(|document| Some((document, apart(document)?)))
        .map(|(document, (prompt, answer))| {
            Question::of(&loaded, task, eval, prompt, answer).with_context(|| all.place(document))
        })
        .collect::<anyhow::Result<_>>()?;
    let hopeless = task.hopeless(questions.iter().map(|question| &*question.right))?;
    hopeless.iter().for_each(|note| output.remark(note));
    crowded(&questions, loaded.checkpoint.decoder.config.context).iter().for_each(|note| output.remark(note));
    let mut answered = Answered {
        checkpoint: eval.checkpoint.display().to_string(),
        task: task.name(),
        finished: true,
        answered: 0,
        right: 0,
        share: 0.0,
        tokens: 0,
        wrong: Vec::new(),
    };
    for (question, said) in questions.iter().zip(answer(&loaded, &questions, eval.batch, output)?) {
        let Some(said) = said else {
            answered.finished = false;
            continue;
        };
        answered.answered += 1;
        answered.tokens += said.tokens;
        answered.right += usize::from(said.right);
        if !said.right && answered.wrong.len() < eval.show_wrong {
            let (prompt, answer) = (question.prompt.to_owned(), question.answer.to_owned());
            answered.wrong.push(Wrong { prompt, answer, said: said.text });
        }
    }
    anyhow::ensure!(answered.answered > 0, "no prompt was answered");
    answered.share = answered.right as f64 / answered.answered as f64;
    output.result(&answered, || answered.text())?;
    Ok(Verdict::Done)
}

/// What is asked, and what would be right.
struct Question<'a> {
    task: EvaluationTask,
    prompt: &'a str,
    answer: &'a str,
    /// The answer as the vocabulary writes it, so that spaces that it does not know do not count.
    right: String,
    ids: Vec<u32>,
    decoding: DecodeSettings,
    /// Whether the context ends before the answer may.
    crowded: bool,
}

impl<'a> Question<'a> {
    fn of(
        loaded: &Loaded,
        task: EvaluationTask,
        eval: &Eval,
        prompt: &'a str,
        answer: &'a str,
    ) -> anyhow::Result<Self> {
        let vocabulary = &loaded.checkpoint.vocabulary;
        let context = loaded.checkpoint.decoder.config.context;
        let (ids, wanted) = (loaded.encode(prompt)?, vocabulary.encode(answer)?);
        // What the right answer needs, and the end behind it.
        let (needed, usual) = match task {
            EvaluationTask::ExactMatch => (wanted.len(), wanted.len() + 1),
            EvaluationTask::Gsm8k => (LONG_ANSWER, LONG_ANSWER),
        };
        let most = eval.max_new_tokens.unwrap_or(usual);
        anyhow::ensure!(
            ids.len() < context,
            "the prompt has {} tokens, and the model's context is {context}: shorten it to at most {}, or leave it out",
            ids.len(),
            context.saturating_sub(1)
        );
        let room = context - ids.len();
        let decoding = DecodeSettings {
            max_new_tokens: most.min(room),
            end_tokens: loaded.end_tokens(),
            ..DecodeSettings::default()
        };
        let right = vocabulary.decode(&wanted)?;
        Ok(Self { task, prompt, answer, right, ids, decoding, crowded: needed.min(most) > room })
    }
}

/// A remark on the questions whose answers are cut off, if there are any.
fn crowded(questions: &[Question], context: usize) -> Option<String> {
    let count = questions.iter().filter(|question| question.crowded).count();
    (count > 0).then(|| {
        format!(
            "{count} of {} prompts leave less room than their answer may need in the model's context of {context}; what is beyond \
             it is cut off, and mostly counts as wrong",
            questions.len()
        )
    })
}

/// What was answered.
struct Said {
    text: String,
    tokens: usize,
    right: bool,
}

/// The answers to all `questions`, `batch` of them at a time in one run of the model; none where Ctrl-C came before. Without
/// drafts: rows of other texts take their place.
fn answer(
    loaded: &Loaded,
    questions: &[Question],
    batch: usize,
    output: Output,
) -> anyhow::Result<Vec<Option<Said>>> {
    anyhow::ensure!(batch > 0, "--batch 0: answer at least 1 prompt at a time");
    let positions = questions.iter().map(|question| question.ids.len() + question.decoding.max_new_tokens);
    let mut target = loaded.target_drafting(positions.max().unwrap_or(1), DraftSource::None)?;
    let vocabulary = &loaded.checkpoint.vocabulary;
    let interrupt = Interrupt::listen(None)?;
    let mut counter = Counter::new("answering", questions.len());
    let mut sinks: Vec<_> = questions
        .iter()
        .map(|_| {
            |_, _| match interrupt.raised() {
                true => ControlFlow::Break(Ending::Interrupted),
                false => ControlFlow::Continue(()),
            }
        })
        .collect();
    let mut said: Vec<Option<Said>> = questions.iter().map(|_| None).collect();
    let mut waiting = questions.iter().zip(&mut sinks).enumerate();
    let mut running = vec![0; batch];
    let mut together = Batch::new(&mut target, batch, batch)?;
    let (mut done, mut right) = (0_u32, 0_u32);
    loop {
        while together.has_room() && !interrupt.raised() {
            let Some((index, (question, sink))) = waiting.next() else { break };
            running[together.add(&question.ids, &question.decoding, sink)?] = index;
        }
        if together.is_empty() {
            break;
        }
        for (place, decoded) in together.step()? {
            let index = running[place];
            if decoded.ending == Ending::Interrupted {
                continue;
            }
            let Question { task, ids, right: wanted, .. } = &questions[index];
            let text = text_after(vocabulary, ids, &decoded);
            let is_right = task.is_right(&text, wanted);
            said[index] = Some(Said { text, tokens: decoded.ids.len(), right: is_right });
            (done, right) = (done + 1, right + u32::from(is_right));
            counter.set(done as usize, output, || {
                format!("{:.1} % right", 100.0 * f64::from(right) / f64::from(done))
            });
        }
    }
    counter.finish();
    Ok(said)
}

/// A prompt and its answer.
fn apart(document: &Document) -> Option<(&str, &str)> {
    let Learnt::Answers { spans, .. } = &document.learnt else { return None };
    let span = spans.first()?.clone();
    Some((&document.text[..span.start], &document.text[span]))
}

impl EvaluationTask {
    fn name(self) -> &'static str {
        match self {
            Self::ExactMatch => "exact-match",
            Self::Gsm8k => "gsm8k",
        }
    }

    /// A remark on right answers that nothing said can equal.
    ///
    /// # Errors
    /// If all are so.
    fn hopeless<'a>(self, right: impl ExactSizeIterator<Item = &'a str>) -> anyhow::Result<Option<String>> {
        let all = right.len();
        let hopeless = match self {
            Self::ExactMatch => 0,
            Self::Gsm8k => right.filter(|answer| last_number(answer).is_none()).count(),
        };
        anyhow::ensure!(
            hopeless == 0 || hopeless < all,
            "--task gsm8k: no right answer has a number (behind ####, where that stands), so that nothing could be right: give \
             --task exact-match, or another --completion-field"
        );
        let remark = || {
            format!(
                "{hopeless} of {all} right answers have no number (behind ####, where that stands): they count as wrong, whatever \
                 is said"
            )
        };
        Ok((hopeless > 0).then(remark))
    }

    fn is_right(self, said: &str, answer: &str) -> bool {
        match self {
            Self::ExactMatch => said.trim() == answer.trim(),
            Self::Gsm8k => last_number(said).is_some_and(|number| Some(number) == last_number(answer)),
        }
    }
}

/// The last number of a text, without the commas between thousands; behind `####` if that is there.
fn last_number(text: &str) -> Option<String> {
    let text = text.split_once("####").map_or(text, |(_, behind)| behind.lines().next().unwrap_or_default());
    let digit = |character: char| character.is_ascii_digit() || ",.-".contains(character);
    let numbers = text.split(|character| !digit(character)).map(|word| word.replace(',', ""));
    let trimmed = numbers.map(|word| word.trim_end_matches(['.', '-']).trim_start_matches('.').to_owned());
    let number = trimmed.filter_map(|word| word.parse::<f64>().ok()).next_back()?;
    Some(number.to_string())
}

impl Answered {
    fn text(&self) -> String {
        let stopped = if self.finished { "" } else { " (stopped early)" };
        let wrong: String = self
            .wrong
            .iter()
            .map(|wrong| {
                format!("\n  {}\n    answer {}\n    said   {}", wrong.prompt, wrong.answer, wrong.said)
            })
            .collect();
        let wrong = if wrong.is_empty() { wrong } else { format!("\nwrong, for example:{wrong}") };
        let Self { answered, right, tokens, .. } = self;
        let percent = 100.0 * self.share;
        format!("{right} of {answered} answers are right ({percent:.1} %), {tokens} tokens{stopped}{wrong}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_in_words() {
        let number = |text: &str| last_number(text);
        assert_eq!(number("so 3 + 4 = 7 apples."), Some("7".to_owned()));
        assert_eq!(number("it is $1,234.50.\n#### 1,200\nor 5"), Some("1200".to_owned()));
        assert_eq!(number("18.0"), number("18"));
        assert_eq!((number("-3"), number("none")), (Some("-3".to_owned()), None));
        assert!(EvaluationTask::Gsm8k.is_right("= 72", "48+24 = 72\n#### 72"));
        assert!(!EvaluationTask::Gsm8k.is_right("nothing", "nothing"));
        let hopeless = |task: EvaluationTask, right: &[&str]| task.hopeless(right.iter().copied());
        let told = hopeless(EvaluationTask::Gsm8k, &["a", "3", "4 is it #### four"]).unwrap().unwrap();
        assert!(told.starts_with("2 of 3 right answers have no number"), "{told}");
        assert!(hopeless(EvaluationTask::Gsm8k, &["3"]).unwrap().is_none());
        assert!(hopeless(EvaluationTask::ExactMatch, &["a"]).unwrap().is_none());
        let refused = hopeless(EvaluationTask::Gsm8k, &["a", "####"]).unwrap_err().to_string();
        assert!(refused.starts_with("--task gsm8k: no right answer has a number"), "{refused}");
        assert!(
            EvaluationTask::ExactMatch.is_right(" 1 2", "1 2 ")
                && !EvaluationTask::ExactMatch.is_right("1 2 3", "1 2")
        );
    }
}
