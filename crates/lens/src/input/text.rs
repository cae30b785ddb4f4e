//! Text in windows of the model's length.

use data::{Documents, Source, Vocabulary};
use model::taps::Input;
use tensor::random::{self, Seeded};

use crate::error::{Error, Result};
use crate::item::Item;

/// How text becomes tokens.
#[derive(Clone, Debug)]
pub enum TokenReader {
    /// By the model's vocabulary.
    Vocabulary(Vocabulary),
    /// Bytes, for models that came without one.
    Bytes,
}

impl TokenReader {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Vocabulary(vocabulary) => Ok(vocabulary.encode(text)?),
            Self::Bytes => Ok(text.bytes().map(u32::from).collect()),
        }
    }

    fn begin(&self) -> Option<u32> {
        match self {
            Self::Vocabulary(vocabulary) => vocabulary.begin(),
            Self::Bytes => None,
        }
    }

    /// The id of a token that has a name, such as `[MASK]`.
    pub fn named(&self, name: &str) -> Option<u32> {
        match self {
            Self::Vocabulary(vocabulary) => match vocabulary.encode(name).ok()?.as_slice() {
                [id] => Some(*id),
                _ => None,
            },
            Self::Bytes => None,
        }
    }

    /// The text of one token, with marks in the place of what cannot be seen alone.
    pub fn shown(&self, token: u32) -> String {
        let text = match self {
            Self::Vocabulary(vocabulary) => vocabulary
                .special_name(token)
                .unwrap_or_else(|| vocabulary.decode(&[token]).unwrap_or_default()),
            Self::Bytes => match u8::try_from(token) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => String::new(),
            },
        };
        match text.is_empty() || text.contains('\u{fffd}') {
            true => format!("<{token}>"),
            false => text,
        }
    }
}

/// Tokens are hidden and to be guessed (BERT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masking {
    /// What stands in the place of a hidden token.
    pub mask: u32,
    /// What stands before and after every window, if the vocabulary has it.
    pub around: Option<(u32, u32)>,
}

/// One in so many tokens is hidden, about 15 %.
const HIDDEN: f32 = 0.15;

/// Purpose of the random stream that hides tokens.
const HIDING: u64 = 42;

/// Windows of text, in order.
pub struct Text {
    documents: Documents,
    reader: TokenReader,
    /// Tokens of a window, at most.
    length: usize,
    masking: Option<(Masking, Seeded)>,
    group: usize,
    waiting: std::collections::VecDeque<Item>,
}

impl Text {
    /// Windows of `length` tokens of the documents of `source`.
    ///
    /// # Errors
    /// When the files cannot be read, or the length leaves no room for a token.
    pub fn new(
        source: &Source,
        reader: TokenReader,
        length: usize,
        masking: Option<Masking>,
        seed: u64,
    ) -> Result<Self> {
        let around = masking.and_then(|masking| masking.around).map_or(0, |_| 2);
        if length < around + 2 {
            return Err(Error::setting("length", format!("{length} tokens: give at least {}", around + 2)));
        }
        let documents = Documents::of(source)?;
        let masking = masking.map(|masking| (masking, random::seeded(seed, HIDING)));
        Ok(Self { documents, reader, length, masking, group: 0, waiting: Default::default() })
    }

    fn cut(&mut self, text: &str) -> Result<()> {
        let tokens = self.reader.encode(text)?;
        let group = self.group;
        self.group += 1;
        match &mut self.masking {
            None => {
                let begin = self.reader.begin().filter(|begin| tokens.first() != Some(begin));
                let tokens: Vec<u32> = begin.into_iter().chain(tokens).collect();
                // A single token has no next one, and nothing before it.
                let windows = tokens.chunks(self.length).filter(|window| window.len() > 1);
                self.waiting.extend(windows.map(|window| Item::text(window.to_vec(), group)));
            }
            Some((masking, rng)) => {
                let room = self.length - masking.around.map_or(0, |_| 2);
                let windows = tokens.chunks(room).filter(|window| window.len() > 1);
                self.waiting.extend(windows.map(|window| masked(window, *masking, rng, group)));
            }
        }
        Ok(())
    }
}

impl Iterator for Text {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Result<Item>> {
        while self.waiting.is_empty() {
            let read = match self.documents.next()? {
                Ok(document) => self.cut(&document.text),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = read {
                return Some(Err(error));
            }
        }
        self.waiting.pop_front().map(Ok)
    }
}

/// A window some of whose tokens are hidden, at least one; they are what is read.
fn masked(window: &[u32], masking: Masking, rng: &mut Seeded, group: usize) -> Item {
    let shift = usize::from(masking.around.is_some());
    let mut tokens: Vec<u32> =
        masking.around.map(|(first, _)| first).into_iter().chain(window.iter().copied()).collect();
    tokens.extend(masking.around.map(|(_, last)| last));
    let mut hidden: Vec<usize> = (0..window.len()).filter(|_| random::uniform(rng) < HIDDEN).collect();
    if hidden.is_empty() {
        hidden.push((random::uniform(rng) * window.len() as f32) as usize);
    }
    let targets = hidden.iter().map(|place| Some(window[*place])).collect();
    let read: Vec<usize> = hidden.iter().map(|place| place + shift).collect();
    read.iter().for_each(|row| tokens[*row] = masking.mask);
    Item { input: Input::Tokens(tokens), read, targets, group }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str, length: usize, masking: Option<Masking>) -> Vec<Item> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        fs_err::write(&file, text).unwrap();
        let text = Text::new(&Source::path(file), TokenReader::Bytes, length, masking, 1).unwrap();
        text.collect::<Result<_>>().unwrap()
    }

    #[test]
    fn text_is_cut_into_windows_whose_tokens_predict_the_next() {
        let items = items("abcdefg", 3, None);
        assert_eq!(items.len(), 2);
        assert_eq!(items[1].input, Input::Tokens(vec![100, 101, 102]));
        assert_eq!(items[1].targets, [Some(101), Some(102), None]);
    }

    #[test]
    fn hidden_tokens_are_read_and_their_truth_is_kept() {
        let masking = Masking { mask: 0, around: Some((1, 2)) };
        let text = "what is hidden here is to be guessed, and nothing else is read at all";
        for item in items(text, 20, Some(masking)) {
            let Input::Tokens(tokens) = &item.input else { panic!("no tokens") };
            assert_eq!((tokens[0], tokens[tokens.len() - 1]), (1, 2));
            assert!(!item.read.is_empty());
            for (row, target) in item.read.iter().zip(&item.targets) {
                assert!(tokens[*row] == 0 && target.is_some_and(|target| target > 2));
            }
            assert_eq!(tokens.iter().filter(|token| **token == 0).count(), item.read.len());
        }
    }

    #[test]
    fn tokens_show_what_can_be_seen() {
        assert_eq!(
            [TokenReader::Bytes.shown(97), TokenReader::Bytes.shown(200)],
            ["a".to_owned(), "<200>".into()]
        );
        let message = Text::new(&Source::path("nowhere.txt"), TokenReader::Bytes, 1, None, 1)
            .err()
            .unwrap()
            .to_string();
        assert!(message.contains("length"), "{message}");
    }
}
