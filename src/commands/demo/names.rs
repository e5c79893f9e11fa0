//! Names of segments, as a publisher might have them.

use rand::seq::SliceRandom as _;

const TOPICS: [&str; 25] = [
    "sports",
    "news",
    "travel",
    "food",
    "music",
    "movies",
    "games",
    "fashion",
    "beauty",
    "health",
    "fitness",
    "finance",
    "cars",
    "technology",
    "science",
    "books",
    "home",
    "garden",
    "pets",
    "family",
    "education",
    "jobs",
    "art",
    "weather",
    "outdoors",
];

const KINDS: [&str; 11] =
    ["fans", "newsletter", "video", "deals", "mobile", "local", "premium", "weekend", "returning", "new", "search"];

/// So many names, each once: those that are for many people first.
pub(super) fn names(count: usize, random: &mut impl rand::Rng) -> Vec<String> {
    let mut wide = TOPICS.map(str::to_owned);
    wide.shuffle(random);
    let kinds = KINDS.iter().flat_map(|kind| TOPICS.iter().map(move |topic| format!("{topic}-{kind}")));
    let mut narrow: Vec<_> = kinds.collect();
    narrow.shuffle(random);
    let names: Vec<_> = wide.into_iter().chain(narrow).collect();
    let again = (2..).flat_map(|number| names.iter().map(move |name| format!("{name}-{number}")));
    names.iter().cloned().chain(again).take(count).collect()
}
