//! What happens in a tale: its scenes in order, the sentences that each may use, and the phrases inside them.
//!
//! `{name}` is a slot: a word list, a phrase of this file, someone or something of the tale, or a number of its sum. The
//! fixed text between two slots is short throughout, or long stretches of one tale would stand in another.

/// The scenes of a tale, in order. Each contributes one of its sentences; one in three tales leaves out an optional one.
pub(super) const SCENES: &[Scene] = &[
    Scene { sentences: OPENINGS, optional: false, paragraph: false },
    Scene { sentences: WISHES, optional: false, paragraph: false },
    Scene { sentences: JOURNEYS, optional: false, paragraph: true },
    Scene { sentences: MEETINGS, optional: true, paragraph: false },
    Scene { sentences: SUMS, optional: false, paragraph: false },
    Scene { sentences: QUARRELS, optional: false, paragraph: true },
    Scene { sentences: ANSWERS, optional: true, paragraph: false },
    Scene { sentences: HELPERS, optional: false, paragraph: false },
    Scene { sentences: SECOND_SUMS, optional: true, paragraph: false },
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
    "{hero} lived {where} in {village} with {a} {adjective} {pet}.",
    "{a} {temper} {child} called {hero} lived {where} in {village} with {his} {kin}.",
    "{when} the {helper} of {village} asked {hero} to {verb} {thing}.",
    "{hero}, {a} {temper} {child} from {village}, {deed} {thing} {when}.",
    "nobody in {village} was as {temper} as {hero}, who {deed} {thing} {when}.",
    "in {village}, {where}, {hero} and {his} {kin} sold {food} and {food}.",
];

const WISHES: &[&str] = &[
    "{he} wished for {thing}, but {obstacle}.",
    "{he} wanted {thing} to {verb} {when}, but {obstacle}.",
    "\"If only I had {thing},\" {he} said {adverb}, \"I would be {feeling}!\"",
    "{his} {kin} had promised {him} {thing}, yet {obstacle}.",
    "{he} needed {item}s for {his} {kin}, who was {feeling} and {feeling}.",
    "{he} dreamt of {item}s, {adjective} as {food}.",
    "there was {a} {noun} to {verb}, and {he} felt {feeling}.",
];

const JOURNEYS: &[&str] = &[
    "so {he} {motion} {where}, and there lay {item}s, {adjective} and {adjective}.",
    "so {hero} packed {food} and {food} and {motion} {where}.",
    "{adverb} {he} {motion} past the {place} and {deed} {thing}.",
    "{when} {he} {motion} {where}, {feeling} but {temper}.",
    "then {he} {motion} from the {place} to the {place} to look for {item}s.",
    "{his} {kin} {deed} {thing} and {motion} {where} with {him}.",
];

const MEETINGS: &[&str] = &[
    "{where} {he} met {friend}, {a} {temper} {friend's child} who {deed} {food}.",
    "{friend} the {trade} was there too, {feeling} and {adverb} eating {food}.",
    "{a} {temper} {animal} {motion} along, and after it {friend} with {thing}.",
    "there stood {friend} in {a} {adjective} hat, {feeling} as {a} {animal}.",
    "{friend}, whose {animal} was {temper}, {deed} {thing} {where}.",
];

const SUMS: &[&str] = &[
    "{hero} had {n} {item}s. {he} gave {m} to {friend}, so {n-m} were left.",
    "{where} {he} found {n} {item}s, {friend} found {m}, and that made {n+m}.",
    "of {n} {item}s {a} {animal} {deed} {m}, so {n-m} were left for {friend} and {hero}.",
    "{friend} brought {n} {item}s, {hero} {deed} {m} more, and so they had {n+m}.",
    "{friend} had {k} {noun}s with {j} {item}s in each, which made {k*j}.",
    "{hero} counted {n} {item}s. Then {friend} {adverb} {deed} {m}, and only {n-m} were left.",
];

const QUARRELS: &[&str] = &[
    "\"{claim},\" said {friend} {adverb}. \"{retort}!\" said {hero}.",
    "but {friend} {adverb} {deed} the best {item}. \"{retort}!\" cried {hero}.",
    "\"{claim},\" said {hero}, {feeling}. {friend} {motion} {where} and {deed} {thing}.",
    "then {friend} {deed} {his} {noun}, and {hero} {adverb} {deed} {friend's his} {noun}.",
    "{hero} called {friend} {a} {temper} {animal}, and {friend} called {him} {a} {temper} {noun}.",
    "over one {item} they quarrelled until {daytime}: {hero} was {feeling}, {friend} {feeling}.",
];

const ANSWERS: &[&str] = &[
    "\"Why are you so {feeling}?\" asked {friend}. \"Because {reason},\" said {hero} {adverb}.",
    "\"Who {deed} my {noun}?\" asked {hero}. \"{a} {animal} {where},\" said {friend}.",
    "\"What is {adjective} and {adjective}?\" asked {friend}. \"{a} {noun},\" said {hero} {adverb}.",
    "\"Where is the {adjective} {noun}?\" asked {hero}. \"{where},\" said {friend}, {feeling}.",
    "\"Shall we {verb} {thing}?\" asked {friend}. \"Not {where},\" said {hero}.",
];

const HELPERS: &[&str] = &[
    "the {helper} {motion} {where}, heard it and {adverb} {deed} {thing}.",
    "\"{advice},\" said the {helper}, who {deed} {food} {where}.",
    "just then {a} {temper} {animal} {deed} {thing}, and {hero} felt {feeling}.",
    "the {helper}, {temper} and {temper}, gave {friend} {thing} and {hero} {food}.",
    "{when} the {helper} told them of {a} {animal} that {deed} {thing}. \"{advice},\" {he} heard.",
];

const SECOND_SUMS: &[&str] = &[
    "so {hero} paid {n} pennies for {food} and {m} for {food}, {n+m} in all.",
    "{hero} bought {k} {noun}s at {j} pennies each for {k*j} pennies.",
    "of {n} {food} they ate {m} {adverb}, and {n-m} were left for the {pet}.",
    "the {helper} was {n}, {hero} {m}, so together they were {n+m}.",
];

const PEACES: &[&str] = &[
    "{hero} {adverb} gave {friend} {thing}, and {friend} was {feeling}.",
    "\"I am {feeling},\" said {hero}. \"So am I,\" said {friend}, and they shared {food} and {food}.",
    "they {deed} the {item}s {where} and {motion} home, {feeling} and {feeling}.",
    "{friend} {deed} {thing} for {hero}, who {adverb} {deed} the {item}.",
    "in the end {hero} and {friend} {deed} {thing} and {motion} {where}.",
];

const ENDINGS: &[&str] = &[
    "and the {adjective} {noun} still stands {where} in {village}.",
    "since that {daytime} {hero} and {friend} {verb} {a} {noun} {where} in {village}.",
    "\"{advice},\" {hero} says {when}, and the {helper} is {feeling}.",
    "to this day {a} {animal} {where} is called {hero}, and {a} {animal} {friend}.",
    "and whoever comes to {village} {when} may {verb} the {item}s.",
];

/// A phrase by its name; `None` if there is none.
pub(super) fn phrase(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "when" => &[
            "one {weather} {daytime}",
            "on {a} {weather} {daytime}",
            "every {weather} {daytime}",
            "late one {daytime}",
        ],
        "where" => &["{preposition} the {place}", "{preposition} {a} {state} {place}"],
        "thing" => {
            &["{a} {adjective} {noun}", "{a} {size}, {adjective} {noun}", "{a} {noun} of {adjective} {food}"]
        }
        "obstacle" => &[
            "{a} {animal} {deed} it",
            "the {trade} {deed} it first",
            "the {place} was {state}",
            "{his} {kin} was too {feeling}",
            "it lay {where}",
        ],
        "claim" => &[
            "The {item}s are mine",
            "You {deed} my {noun}",
            "Your {animal} {deed} my {food}",
            "I {deed} them first",
        ],
        "retort" => &[
            "Go and {verb} your {noun}",
            "You {temper} {animal}",
            "Never",
            "Ask the {trade}",
            "Eat your {food}",
        ],
        "reason" => {
            &["you {deed} my {noun}", "{a} {animal} {deed} me", "I {deed} the {food}", "it is {weather}"]
        }
        "advice" => &[
            "Whoever wants to {verb} must first {verb}",
            "Better {a} {adjective} {noun} than {a} {adjective} {noun}",
            "{a} {temper} {animal} eats no {food}",
            "Be {temper}, and {verb} what you {verb}",
        ],
        _ => return None,
    })
}
