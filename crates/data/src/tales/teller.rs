//! Fills the slots of a tale and keeps account of how much was chosen.

use super::plots::{SCENES, phrase};
use super::words;
use crate::random::Random;

/// Tells one tale.
pub(super) struct Teller {
    random: Random,
    text: String,
    /// Sum of -log2 of the probability of each choice so far.
    chosen_bits: f64,
    hero: Person,
    friend: Person,
    /// What stays the same through the tale, by slot.
    of_the_tale: Vec<(&'static str, String)>,
    /// The numbers of the present scene, by slot.
    of_the_scene: Vec<(&'static str, usize)>,
}

#[derive(Clone, Copy)]
struct Person {
    name: &'static str,
    girl: bool,
}

/// The first entry of a list comes in one of this many cases, the others share the rest equally.
///
/// A flat choice has no likely first letter, so nothing could be drafted across it; with one common word
/// there is something to guess, while most of the entropy of the flat choice stays.
const COMMON: usize = 4;

/// An optional scene is left out in one of this many tales.
const LEFT_OUT: usize = 3;

/// Where `a` or `an` stands until the next word is known; no word contains it.
const ARTICLE: char = '\u{1}';

impl Teller {
    pub(super) fn new(random: Random) -> Self {
        let nobody = Person { name: "", girl: true };
        let mut teller = Self {
            random,
            text: String::new(),
            chosen_bits: 0.0,
            hero: nobody,
            friend: nobody,
            of_the_tale: Vec::new(),
            of_the_scene: Vec::new(),
        };
        teller.hero = teller.person();
        while teller.friend.name.is_empty() || teller.friend.name == teller.hero.name {
            teller.friend = teller.person();
        }
        teller
    }

    /// The tale and the bits of all choices made for it.
    pub(super) fn tell(mut self) -> (String, f64) {
        for scene in SCENES {
            if scene.optional && self.below(LEFT_OUT) == 0 {
                continue;
            }
            if !self.text.is_empty() {
                self.text.push(if scene.paragraph { '\n' } else { ' ' });
            }
            self.of_the_scene.clear();
            let sentence = self.common_or_any(scene.sentences);
            self.fill(sentence);
        }
        (finish(&self.text), self.chosen_bits)
    }

    /// Appends a template with its slots filled.
    fn fill(&mut self, template: &'static str) {
        let mut rest = template;
        while let Some((before, slot_and_rest)) = rest.split_once('{') {
            self.text.push_str(before);
            let (slot, after) = slot_and_rest.split_once('}').unwrap_or((slot_and_rest, ""));
            self.slot(slot);
            rest = after;
        }
        self.text.push_str(rest);
    }

    fn slot(&mut self, slot: &'static str) {
        if let Some(templates) = phrase(slot) {
            let template = self.common_or_any(templates);
            self.fill(template);
        } else if let Some(list) = words::list(slot) {
            let word = self.common_or_any(list);
            self.text.push_str(word);
        } else if let Some(number) = self.number(slot) {
            self.text.push_str(&number.to_string());
        } else {
            let word = self.someone_or_something(slot);
            self.text.push_str(&word);
        }
    }

    fn someone_or_something(&mut self, slot: &'static str) -> String {
        let of = |person: Person, she: &str, he: &str| if person.girl { she } else { he }.to_owned();
        match slot {
            "a" => ARTICLE.to_string(),
            "hero" => self.hero.name.to_owned(),
            "he" => of(self.hero, "she", "he"),
            "him" => of(self.hero, "her", "him"),
            "his" => of(self.hero, "her", "his"),
            "child" => of(self.hero, "girl", "boy"),
            "friend" => self.friend.name.to_owned(),
            "friend's his" => of(self.friend, "her", "his"),
            "friend's child" => of(self.friend, "girl", "boy"),
            "village" => self.remembered(slot, |teller| {
                teller.any(words::VILLAGE_BEGINNINGS).to_owned() + teller.any(words::VILLAGE_ENDINGS)
            }),
            "item" => self.remembered(slot, |teller| {
                format!("{} {}", teller.any(words::ADJECTIVES), teller.any(words::NOUNS))
            }),
            "helper" => self.remembered(slot, |teller| teller.any(words::TRADES).to_owned()),
            "pet" => self.remembered(slot, |teller| teller.any(words::ANIMALS).to_owned()),
            "kin" => self.remembered(slot, |teller| teller.any(words::KIN).to_owned()),
            _ => unreachable!("a test fills every slot; {slot:?} is none"),
        }
    }

    /// The numbers of a sum, if the slot is one.
    fn number(&mut self, slot: &str) -> Option<usize> {
        Some(match slot {
            "n" => self.drawn("n", 12, 60),
            "m" => self.drawn("m", 2, 9),
            "n+m" => self.drawn("n", 12, 60) + self.drawn("m", 2, 9),
            "n-m" => self.drawn("n", 12, 60) - self.drawn("m", 2, 9),
            "k" => self.drawn("k", 2, 9),
            "j" => self.drawn("j", 2, 9),
            "k*j" => self.drawn("k", 2, 9) * self.drawn("j", 2, 9),
            _ => return None,
        })
    }

    fn drawn(&mut self, slot: &'static str, least: usize, most: usize) -> usize {
        if let Some((_, number)) = self.of_the_scene.iter().find(|(known, _)| *known == slot) {
            return *number;
        }
        let number = least + self.below(most - least + 1);
        self.of_the_scene.push((slot, number));
        number
    }

    fn remembered(&mut self, slot: &'static str, choose: impl FnOnce(&mut Self) -> String) -> String {
        if let Some((_, word)) = self.of_the_tale.iter().find(|(known, _)| *known == slot) {
            return word.clone();
        }
        let word = choose(self);
        self.of_the_tale.push((slot, word.clone()));
        word
    }

    fn person(&mut self) -> Person {
        let girl = self.below(2) == 0;
        Person { name: self.any(if girl { words::GIRLS } else { words::BOYS }), girl }
    }

    fn any(&mut self, list: &[&'static str]) -> &'static str {
        list[self.below(list.len())]
    }

    fn common_or_any(&mut self, list: &[&'static str]) -> &'static str {
        if self.random.below(COMMON) == 0 {
            self.chosen_bits += (COMMON as f64).log2();
            return list[0];
        }
        self.chosen_bits += (COMMON as f64 / (COMMON - 1) as f64).log2();
        list[1 + self.below(list.len() - 1)]
    }

    fn below(&mut self, bound: usize) -> usize {
        self.chosen_bits += (bound as f64).log2();
        self.random.below(bound)
    }
}

/// Sets the articles, and a capital where a sentence or a speech begins.
fn finish(draft: &str) -> String {
    let mut text = String::with_capacity(draft.len() + 8);
    let (mut begins, mut ended, mut previous) = (true, false, '\n');
    let mut letters = draft.chars();
    while let Some(mut letter) = letters.next() {
        if letter == ARTICLE {
            letter = 'a';
            // After the article come a space and the word that decides.
            if letters.clone().nth(1).is_some_and(|next| "aeiou".contains(next)) {
                text.push(if begins { 'A' } else { 'a' });
                (letter, begins) = ('n', false);
            }
        }
        if begins && letter.is_alphabetic() {
            letter = letter.to_ascii_uppercase();
        }
        text.push(letter);
        match letter {
            '"' if previous.is_whitespace() => begins = true,
            // A full stop ends a speech and its sentence; after "...!" the sentence goes on with who said it.
            '"' => ended &= previous == '.',
            '\n' => begins = true,
            ' ' => begins |= ended,
            _ => (begins, ended) = (false, matches!(letter, '.' | '!' | '?')),
        }
        previous = letter;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_and_capitals_are_set() {
        let draft = "\u{1} owl sat.\n\"\u{1} duck!\" said \u{1} hen. \"yes,\" said Mira. so it was \"so.\" the end? yes!\"\nso.";
        let text =
            "An owl sat.\n\"A duck!\" said a hen. \"Yes,\" said Mira. So it was \"So.\" The end? Yes!\"\nSo.";
        assert_eq!(finish(draft), text);
    }
}
