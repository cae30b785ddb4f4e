//! Text to batches for a run: tokens, the held-out part, the loader.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::{
    CacheOutcome, Corpus, Examples, Loader, Source, SplitRule, Vocabulary, Watch, load_or_build_watched,
};

use crate::config::{DataSection, ExamplesKind, ObjectiveKind, RunConfig, SplitKind};
use crate::error::{Error, Result};
use crate::evaluate::HeldOut;

/// The data of a run.
pub struct RunData {
    /// Batches to train on, endless.
    pub training: Loader,
    /// Batches to evaluate on.
    pub held_out: HeldOut,
    /// Things that the user should know and that are no errors.
    pub notes: Vec<String>,
}

/// Tokens of the run's text, and which documents are for training and which are held out.
pub struct SplitText {
    /// Training text; the held-out text too, unless it has files of its own.
    pub training: Arc<Corpus>,
    /// Documents of `training` to train on.
    pub training_documents: Vec<usize>,
    /// Held-out text.
    pub held_out: Arc<Corpus>,
    /// Documents of `held_out` to evaluate on.
    pub held_out_documents: Vec<usize>,
    /// Things that the user should know and that are no errors.
    pub notes: Vec<String>,
}

/// Where tokens, and states of a frozen trunk, are kept.
pub(crate) fn cache_folder(config: &RunConfig) -> PathBuf {
    match config.data.cache.as_os_str().is_empty() {
        true => config.run.folder.join("cache"),
        false => config.data.cache.clone(),
    }
}

/// Reads and splits the text of a run; `watch` is told how far it is and may stop it. Tokens are kept in `data.cache`, or
/// in the run's folder.
///
/// # Errors
/// When the text cannot be read or split, or `watch` stops it.
pub fn split_text(config: &RunConfig, vocabulary: &Vocabulary, watch: Watch) -> Result<SplitText> {
    let settings = &config.data;
    let cache = cache_folder(config);
    let mut notes = Vec::new();
    let training = Arc::new(tokens(&settings.train, settings, vocabulary, &cache, &mut notes, watch)?);
    if !settings.held_out.is_empty() {
        let held_out = Arc::new(tokens(&settings.held_out, settings, vocabulary, &cache, &mut notes, watch)?);
        let both = [&settings.train[..], &settings.held_out].concat();
        let repeated = |paths: &[PathBuf]| source(paths, settings, &Examples::Text).repeated();
        let alone = repeated(&settings.train)?.len() + repeated(&settings.held_out)?.len();
        let shared = repeated(&both)?.len().saturating_sub(alone);
        if shared > 0 {
            notes.push(format!(
                "{shared} of the files in data.held_out are in data.train too: the loss on held-out text will look too good"
            ));
        }
        return Ok(SplitText {
            training_documents: (0..training.documents()).collect(),
            held_out_documents: (0..held_out.documents()).collect(),
            training,
            held_out,
            notes,
        });
    }
    let fraction = settings.held_out_fraction;
    let rule = match settings.split {
        SplitKind::Random => SplitRule::Random { fraction, seed: config.run.seed },
        SplitKind::Last => SplitRule::LastFraction { fraction },
    };
    let (training_documents, held_out_documents) = rule.apply(training.documents())?;
    Ok(SplitText { held_out: Arc::clone(&training), training, training_documents, held_out_documents, notes })
}

/// The loader and the held-out batches of a run.
///
/// # Errors
/// When the text cannot be read or split, or is too short for the depths of the objective.
pub fn prepare(config: &RunConfig, vocabulary: &Vocabulary, watch: Watch) -> Result<RunData> {
    let text = split_text(config, vocabulary, watch)?;
    let (batch, length, depths) = (config.train.batch, config.train.length, config.lookahead());
    if config.objective.kind == ObjectiveKind::Registers && text.training.is_answered() {
        answers_reach(&text, config.objective.d_max, depths)?;
        answers_have_registers(&text, config)?;
    }
    let longest = text.held_out_documents.iter().map(|&index| text.held_out.length(index)).max();
    if longest.is_none_or(|longest| longest <= depths) {
        let (key, what) = match config.data.held_out.is_empty() {
            true => ("data.held_out_fraction", "holds out no document"),
            false => ("data.held_out", "has no document"),
        };
        let problem = format!(
            "{what} of more than {depths} tokens, so that depth {depths} has nothing to predict: hold out longer documents"
        );
        return Err(Error::Setting { key: key.to_owned(), problem });
    }
    let (documents, corpus) = (text.training_documents, text.training);
    let training = Loader::new(corpus, documents, batch, length, depths, config.run.seed)?;
    let held_out = HeldOut::new(
        &text.held_out,
        &text.held_out_documents,
        vocabulary,
        batch,
        length,
        depths,
        config.evaluation.batches,
    )?;
    let training = if config.train.cache_states { training.keeping_windows() } else { training };
    let mut notes = text.notes;
    if training.left_out() > 0 {
        notes.push(format!(
            "{} of the training examples are longer than a row of {length} tokens and left out",
            training.left_out()
        ));
    }
    Ok(RunData { training, held_out, notes })
}

/// Refuses offsets that no register could have: all that lies before its target is learnt too.
fn answers_reach(text: &SplitText, d_max: usize, depths: usize) -> Result<()> {
    let longest = text.training.longest_answer(&text.training_documents, depths)?;
    if longest >= depths {
        return Ok(());
    }
    let problem = match depths == d_max {
        true => format!(
            "is {d_max}, and the longest answer has {longest} tokens, its end included: give at most {longest}"
        ),
        false => format!(
            "is {d_max}, which looks {depths} tokens ahead in the grid, and the longest answer has {longest}: give less"
        ),
    };
    Err(Error::Setting { key: "objective.d_max".to_owned(), problem })
}

/// Refuses a density that leaves the longest answer without a register.
fn answers_have_registers(text: &SplitText, config: &RunConfig) -> Result<()> {
    let objective = &config.objective;
    if objective.registers > 0 || objective.grid_width > 0 {
        return Ok(());
    }
    // A register stands behind each token that has a target d_min tokens ahead; a share of them, rounded.
    let places = (0.5 / objective.density).ceil() as usize;
    let longest = text.training.longest_answer(&text.training_documents, places + objective.d_min - 1)?;
    let here = (longest + 1).saturating_sub(objective.d_min);
    if here >= places {
        return Ok(());
    }
    let problem = format!(
        "is {:?}, and even in the longest answer, which has room for {here}, it leaves no register: give at least {:?}, or \
         objective.registers",
        objective.density,
        0.5 / here as f64
    );
    Err(Error::Setting { key: "objective.density".to_owned(), problem })
}

fn tokens(
    paths: &[PathBuf],
    settings: &DataSection,
    vocabulary: &Vocabulary,
    cache: &Path,
    notes: &mut Vec<String>,
    watch: Watch,
) -> Result<Corpus> {
    let source = source(paths, settings, &examples(settings, vocabulary)?);
    if let repeated @ [first, ..] = &source.repeated()?[..] {
        notes.push(format!(
            "{} of the files are named more than once and read once, the first of them {}",
            repeated.len(),
            first.display()
        ));
    }
    let (corpus, outcome) = load_or_build_watched(Some(cache), &source, vocabulary, watch)?;
    if let CacheOutcome::NotKept(reason) = outcome {
        notes.push(format!("the tokens could not be kept for the next run: {reason}"));
    }
    notes.extend(corpus.loss_note());
    Ok(corpus)
}

/// What the documents of a run are.
///
/// # Errors
/// When conversations are wanted and there is no chat template.
pub fn examples(settings: &DataSection, vocabulary: &Vocabulary) -> Result<Examples> {
    Ok(match settings.examples {
        ExamplesKind::Text => Examples::Text,
        ExamplesKind::Prompts => Examples::Prompts {
            prompt: settings.prompt_field.clone(),
            completion: settings.completion_field.clone(),
            prompt_end: settings.prompt_end.clone(),
        },
        ExamplesKind::Messages => {
            let Some(template) = vocabulary.chat_template() else {
                let problem = "is needed: the tokenizer has no chat template; name a .jinja file";
                return Err(Error::Setting {
                    key: "data.chat_template".to_owned(),
                    problem: problem.to_owned(),
                });
            };
            Examples::Messages { field: settings.messages_field.clone(), template: template.clone() }
        }
    })
}

fn source(paths: &[PathBuf], settings: &DataSection, examples: &Examples) -> Source {
    Source {
        examples: examples.clone(),
        paths: paths.to_vec(),
        field: settings.field.clone(),
        separator: Some(settings.separator.clone()).filter(|separator| !separator.is_empty()),
        longest_document_bytes: settings.longest_document_bytes,
    }
}
