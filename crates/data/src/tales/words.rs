//! The words of the tales: plain lists.
//!
//! The first word of a list is the common one (see [`super::teller`]), the others are equally likely. Long
//! words whose beginnings differ suit a model that reads ahead: once begun, they are decided. Every noun
//! takes a plain `s`.

/// The list that a slot of a sentence takes its word from; `None` if the slot is no list.
pub(super) fn list(slot: &str) -> Option<&'static [&'static str]> {
    Some(match slot {
        "adjective" => ADJECTIVES,
        "noun" => NOUNS,
        "temper" => TEMPERS,
        "animal" => ANIMALS,
        "trade" => TRADES,
        "place" => PLACES,
        "state" => STATES,
        "size" => SIZES,
        "preposition" => PREPOSITIONS,
        "adverb" => ADVERBS,
        "weather" => WEATHERS,
        "daytime" => DAYTIMES,
        "food" => FOODS,
        "verb" => VERBS,
        "deed" => DEEDS,
        "motion" => MOTIONS,
        "feeling" => FEELINGS,
        _ => return None,
    })
}

pub(super) const GIRLS: &[&str] = &[
    "Mira", "Adela", "Agnes", "Alma", "Anouk", "Beatrix", "Berta", "Bianca", "Briony", "Camilla", "Celeste",
    "Clara", "Cosima", "Dagmar", "Delia", "Dorothea", "Edith", "Elowen", "Emmeline", "Esther", "Fenna",
    "Flora", "Frieda", "Gerda", "Ginevra", "Greta", "Hanna", "Helga", "Hilda", "Ingrid", "Isolde", "Ivy",
    "Josefa", "Judith", "Katrin", "Kirsten", "Lavinia", "Leonie", "Linnea", "Louisa", "Magda", "Mette",
    "Minna", "Nadia", "Nerys", "Odette", "Olga", "Ottilie", "Paloma", "Petra", "Philippa", "Quilla",
    "Ramona", "Rosalind", "Ruth", "Sabine", "Selma", "Sigrid", "Tamsin", "Thea", "Ursula", "Verena",
    "Wilma", "Yrsa", "Zelda",
];

pub(super) const BOYS: &[&str] = &[
    "Oren", "Albin", "Anselm", "Arvid", "August", "Balthasar", "Benno", "Bertil", "Caspar", "Cedric",
    "Clemens", "Conrad", "Dario", "Desmond", "Dunstan", "Edgar", "Einar", "Emil", "Erasmus", "Felix",
    "Finnian", "Florian", "Gideon", "Gustav", "Hannes", "Hector", "Henrik", "Horatio", "Ignaz", "Isidor",
    "Ivo", "Jasper", "Joachim", "Julius", "Kilian", "Konstantin", "Lambert", "Leopold", "Linus", "Lorenz",
    "Magnus", "Marten", "Milo", "Nestor", "Nicodemus", "Olaf", "Osric", "Otto", "Pascal", "Peregrine",
    "Quentin", "Ragnar", "Roland", "Rufus", "Sander", "Silas", "Stellan", "Tobias", "Torvald", "Urban",
    "Valentin", "Victor", "Walter", "Xaver", "Yorick",
];

/// First halves of the names of villages.
pub(super) const VILLAGE_BEGINNINGS: &[&str] = &[
    "Alder", "Amber", "Ash", "Barley", "Birch", "Bramble", "Candle", "Cherry", "Clover", "Copper", "Dapple",
    "Drift", "Elder", "Ember", "Fennel", "Frost", "Goose", "Granite", "Hazel", "Heron", "Ivory", "Juniper",
    "Kettle", "Lark", "Linden", "Marble", "Mallow", "Nettle", "North", "Oaken", "Otter", "Pebble", "Quill",
    "Raven", "Rowan", "Saffron", "Silver", "Thistle", "Timber", "Under", "Velvet", "Walnut", "Willow",
    "Yarrow",
];

/// Second halves of the names of villages.
pub(super) const VILLAGE_ENDINGS: &[&str] = &[
    "ford", "bridge", "combe", "dale", "field", "gate", "haven", "hollow", "mere", "mouth", "stead", "ton",
    "wick", "wold",
];

pub(super) const ADJECTIVES: &[&str] = &[
    "wooden", "ancient", "battered", "beaded", "carved", "dented", "elegant", "faded", "gilded", "handsome",
    "indigo", "knitted", "leaky", "marbled", "narrow", "orange", "painted", "quilted", "rattling",
    "scarlet", "tarnished", "unlucky", "velvet", "yellow",
];

pub(super) const NOUNS: &[&str] = &[
    "lantern", "acorn", "almanac", "banner", "blanket", "candle", "chisel", "dagger", "earring", "envelope",
    "fiddle", "garland", "hammer", "inkwell", "jacket", "kettle", "mallet", "needle", "ornament", "paddle",
    "quill", "rattle", "saddle", "teapot", "umbrella", "violin", "waistcoat", "yoke",
];

const TEMPERS: &[&str] = &[
    "cheerful", "absent", "bashful", "daring", "eager", "famous", "gentle", "honest", "impatient",
    "jealous", "kindly", "lanky", "modest", "nervous", "obedient", "patient", "quiet", "reckless",
    "sensible", "talkative",
];

pub(super) const ANIMALS: &[&str] = &[
    "badger", "beaver", "camel", "cricket", "donkey", "duckling", "falcon", "ferret", "gander", "hamster",
    "hedgehog", "jackdaw", "kitten", "lizard", "magpie", "newt", "otter", "parrot", "peacock", "rabbit",
    "sparrow", "tortoise", "vole", "weasel",
];

pub(super) const TRADES: &[&str] = &[
    "baker", "apothecary", "beekeeper", "carpenter", "chandler", "dairymaid", "doctor", "falconer",
    "ferryman", "gardener", "goldsmith", "hatter", "innkeeper", "jeweller", "librarian", "mason", "nurse",
    "organist", "painter", "quarryman", "roofer", "sailor", "tailor", "watchman",
];

/// Where things happen, after a preposition and `the`.
const PLACES: &[&str] = &[
    "mill", "abbey", "aqueduct", "bakehouse", "boathouse", "canal", "chapel", "dairy", "dovecote",
    "east gate", "forge", "glacier", "granary", "harbour", "hedge", "icehouse", "jetty", "kitchen garden",
    "laundry", "orchard", "paddock", "quay", "railway", "shipyard", "tannery", "vicarage", "waterfall",
    "yew tree",
];

/// What places look like.
const STATES: &[&str] = &[
    "old", "abandoned", "beautiful", "charming", "deserted", "echoing", "famous", "gloomy", "haunted",
    "ivy-clad", "lonely", "muddy", "neglected", "peaceful", "quaint", "remote", "sandy", "thorny",
    "unfinished", "weathered",
];

/// What stands before another adjective.
const SIZES: &[&str] = &[
    "small", "broad", "cheap", "dainty", "fine", "giant", "large", "plain", "quaint", "round", "useful",
    "weighty",
];

const PREPOSITIONS: &[&str] = &[
    "behind", "above", "close to", "far from", "inside", "near", "opposite", "past", "round", "under",
];

const ADVERBS: &[&str] = &[
    "quietly", "absently", "bitterly", "calmly", "drily", "eagerly", "faintly", "gently", "happily",
    "in a hurry", "kindly", "lazily", "merrily", "nervously", "obligingly", "patiently", "readily", "sadly",
    "tearfully", "warmly",
];

const WEATHERS: &[&str] = &[
    "windy", "balmy", "bitter", "clear", "drizzly", "foggy", "freezing", "golden", "humid", "icy", "misty",
    "moonless", "pale", "rainy", "snowy", "thundery",
];

const DAYTIMES: &[&str] = &[
    "morning", "afternoon", "dawn", "evening", "feast day", "holiday", "midnight", "night", "Saturday",
    "spring day", "Thursday", "winter day",
];

const FOODS: &[&str] = &[
    "apples", "bacon", "biscuits", "cabbage", "cheese", "dates", "dumplings", "figs", "garlic", "hazelnuts",
    "honey", "jam", "lemons", "marzipan", "mushrooms", "noodles", "oatcakes", "pancakes", "quinces",
    "radishes", "sausages", "toast", "vinegar", "waffles",
];

/// What can be done to a thing, as `mend`.
const VERBS: &[&str] = &[
    "mend", "admire", "balance", "carry", "decorate", "empty", "fetch", "gather", "heat", "inspect",
    "juggle", "keep", "lend", "paint", "repair", "scrub", "trade", "unpack", "varnish", "weigh",
];

/// What was done to a thing, as `mended`.
const DEEDS: &[&str] = &[
    "mended", "admired", "balanced", "borrowed", "carried", "cleaned", "decorated", "emptied", "fetched",
    "gathered", "hammered", "inspected", "juggled", "kicked", "lifted", "named", "oiled", "painted",
    "repaired", "scratched", "traded", "unpacked", "varnished", "washed",
];

const MOTIONS: &[&str] = &[
    "walked", "ambled", "bounded", "climbed", "crept", "danced", "drifted", "galloped", "hobbled", "jogged",
    "limped", "marched", "paddled", "raced", "sailed", "tiptoed",
];

const FEELINGS: &[&str] = &[
    "happy", "afraid", "alone", "bored", "brave", "certain", "content", "delighted", "dizzy", "empty",
    "faint", "grateful", "important", "jealous", "light", "miserable", "nervous", "offended", "peaceful",
    "relieved", "small", "thirsty", "uneasy", "wretched",
];

pub(super) const KIN: &[&str] = &[
    "mother", "aunt", "brother", "cousin", "father", "godfather", "grandfather", "nephew", "niece",
    "sister", "twin", "uncle",
];
