//! Names of generated segments.

use rand::seq::SliceRandom as _;

const TOPICS: &str = "sports news travel food music movies games fashion beauty health fitness finance cars technology \
                      science books home garden pets family education jobs art weather outdoors";
const KINDS: &str = "fans newsletter video deals mobile local premium weekend returning new search";

/// Returns `count` different names. Those without a kind, for the largest segments, come first.
pub(super) fn names(count: usize, random: &mut impl rand::Rng) -> Vec<String> {
    let topics = || TOPICS.split(' ').map(str::to_owned);
    let mut wide: Vec<_> = topics().collect();
    wide.shuffle(random);
    let mut narrow: Vec<_> =
        topics().flat_map(|topic| KINDS.split(' ').map(move |kind| format!("{topic}-{kind}"))).collect();
    narrow.shuffle(random);
    let names = [wide, narrow].concat();
    let numbered = (2..).flat_map(|number| names.iter().map(move |name| format!("{name}-{number}")));
    names.iter().cloned().chain(numbered).take(count).collect()
}
