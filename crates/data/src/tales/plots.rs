//! What happens in a tale: its scenes in order, the sentences that each may use, and the phrases inside them.
//!
//! `{name}` is a slot: a word list, a phrase of this file, someone or something of the tale, or a number of
//! its sum. The fixed text between two slots is short throughout, or long stretches of one tale would stand
//! in another.

/// The scenes of a tale, in order. Each contributes one of its sentences; an optional one is left out in some
/// tales.
///
/// A scene begins or ends in its own way (a journey with what was looked for, a sum with a number), so that
/// what comes next can be told from what stands right before.
pub(super) const SCENES: &[Scene] = &[
    Scene { sentences: OPENINGS, optional: false, paragraph: false },
    Scene { sentences: WISHES, optional: false, paragraph: false },
    Scene { sentences: JOURNEYS, optional: false, paragraph: true },
    Scene { sentences: MEETINGS, optional: false, paragraph: false },
    Scene { sentences: SUMS, optional: false, paragraph: false },
    Scene { sentences: QUARRELS, optional: false, paragraph: true },
    Scene { sentences: ANSWERS, optional: true, paragraph: false },
    Scene { sentences: HELPERS, optional: false, paragraph: false },
    Scene { sentences: PRICES, optional: true, paragraph: false },
    Scene { sentences: PEACES, optional: false, paragraph: true },
    Scene { sentences: ENDINGS, optional: false, paragraph: false },
];

/// A step of the plot.
pub(super) struct Scene {
    pub(super) sentences: &'static [&'static str],
    pub(super) optional: bool,
    /// Whether a new paragraph begins here.
    pub(super) paragraph: bool,
}

const OPENINGS: &[&str] = &[
    "{when} {hero} of {village} found {thing} {where}.",
    "{hero} lived {where} in {village} with {a} {temper} {pet}.",
    "{a} {temper} {child} called {hero} lived {where} in {village}.",
    "{when} the {helper} of {village} gave {hero} {thing}.",
    "nobody in {village} was as {temper} as {hero}, who lived {where}.",
];

const WISHES: &[&str] = &[
    "{he} wished for {thing}, but {obstacle}.",
    "{he} wanted {item}s for {his} {kin}, who was {feeling}.",
    "\"If only I had {thing}!\" {he} said {adverb}.",
    "{his} {kin} had promised {him} {thing}, but {obstacle}.",
];

const JOURNEYS: &[&str] = &[
    "so {he} {motion} {where} and found {item}s.",
    "so {he} packed {food} and {food} and {motion} {where} to look for {item}s.",
    "{adverb} {he} {motion} past the {place} to look for {item}s.",
    "then {hero} {motion} from the {place} to the {place}, and there lay {item}s.",
];

const MEETINGS: &[&str] = &[
    "there {he} met {friend}, {a} {temper} {friend's child} with {thing}.",
    "there stood {friend}, {feeling}, with {a} {temper} {animal}.",
    "along came {friend} and {adverb} {deed} {thing}.",
    "there {friend} the {trade} {deed} {thing}.",
];

const SUMS: &[&str] = &[
    "{hero} had {n} {item}s. {he} gave {m} to {friend}, so {n-m} were left.",
    "{hero} found {n} {item}s, {friend} found {m}, and that made {n+m}.",
    "of {n} {item}s {a} {temper} {animal} {deed} {m}, so {n-m} were left.",
    "{friend} had {k} {noun}s with {j} {item}s in each, and that made {k*j}.",
    "{hero} counted {n} {item}s. then {friend} {deed} {m}, so {n-m} were left.",
];

const QUARRELS: &[&str] = &[
    "\"{claim},\" said {friend} {adverb}. \"{retort}!\" cried {hero}.",
    "then {friend} {adverb} {deed} the best {item}. \"{retort}!\" cried {hero}.",
    "\"{claim},\" said {hero}. {friend} was {feeling} and {deed} {thing}.",
    "{hero} called {friend} {a} {temper} {animal}, and {friend} called {him} {a} {temper} {noun}.",
    "they quarrelled over {a} {item} until {daytime}, {feeling} and {feeling}.",
];

const ANSWERS: &[&str] = &[
    "\"Why are you so {feeling}?\" asked {friend}. \"Because {reason},\" said {hero}.",
    "\"Who {deed} my {noun}?\" asked {hero}. \"{a} {temper} {animal},\" said {friend}.",
    "\"Where is the {adjective} {noun}?\" asked {hero}. \"{where},\" said {friend}.",
    "\"What is {size} and {adjective}?\" asked {friend}. \"{a} {noun},\" said {hero}.",
];

const HELPERS: &[&str] = &[
    "the {helper} heard it {where} and {adverb} {deed} {thing}.",
    "\"{advice},\" said the {helper}, who {deed} {food} {where}.",
    "the {helper}, {temper} and {temper}, gave {friend} {food} and {hero} {thing}.",
    "the {helper} told them of {a} {temper} {animal} that {deed} {thing}.",
];

const PRICES: &[&str] = &[
    "{hero} paid {n} pennies for {food} and {m} for {food}, which made {n+m}.",
    "{hero} bought {k} {noun}s at {j} pennies each, which made {k*j}.",
    "of {n} {noun}s they sold {m}, so {n-m} were left.",
];

const PEACES: &[&str] = &[
    "in the end {hero} {adverb} gave {friend} {thing}.",
    "\"I am {feeling},\" said {hero}. \"So am I,\" said {friend}, and they shared {food}.",
    "in the end they {deed} the {item}s and {motion} home, {feeling} and {feeling}.",
    "in the end {friend} {deed} {thing} for {hero}, who was {feeling}.",
];

const ENDINGS: &[&str] = &[
    "and {a} {adjective} {noun} still stands {where} in {village}.",
    "since that {daytime} they {verb} {a} {noun} {where} in {village}.",
    "\"{advice},\" {hero} says {when} in {village}.",
    "and whoever comes to {village} may {verb} the {item}s.",
];

/// A phrase by its name; `None` if there is none.
pub(super) fn phrase(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "when" => &["one {weather} {daytime}", "on {a} {weather} {daytime}", "late one {daytime}"],
        "where" => &["{preposition} the {place}", "{preposition} {a} {state} {place}"],
        "thing" => {
            &["{a} {adjective} {noun}", "{a} {size}, {adjective} {noun}", "{a} {noun} of {adjective} {food}"]
        }
        "obstacle" => &[
            "{a} {temper} {animal} {deed} it",
            "the {trade} {deed} it first",
            "it lay {where}",
            "{his} {kin} was too {feeling}",
        ],
        "claim" => &["The {item}s are mine", "You {deed} my {noun}", "Your {animal} {deed} my {food}"],
        "retort" => {
            &["Go and {verb} your {noun}", "You {temper} {animal}", "Ask the {trade}", "Eat your {food}"]
        }
        "reason" => &["you {deed} my {noun}", "{a} {animal} {deed} me", "I {deed} the {food}"],
        "advice" => &[
            "Whoever wants to {verb} must first {verb}",
            "Better {a} {adjective} {noun} than {a} {adjective} {noun}",
            "{a} {temper} {animal} eats no {food}",
        ],
        _ => return None,
    })
}
