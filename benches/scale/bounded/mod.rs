//! Bounded segments: the errors of their estimates, counts while depths are raised, and an overlap.

mod errors;
mod overlap;
mod raises;

use segment_estimator::store::MaxMembers;
use tokio::runtime::Runtime;

pub use self::errors::Errors;
use crate::Result;
use crate::engine::Kind;
use crate::plan::Plan;
use crate::report::{Check, Part, median, thousands};
use crate::run::Figures;

/// The maximum number of members of a segment: the recommended one.
pub const MAX_MEMBERS: &str = "65536";
/// The maximum memory of Redis at any number of pairs, in bytes.
const MEMORY: f64 = 2.2e9;
/// The minimum ratio of the exact memory to the bounded one, both at the most bounded pairs.
const SMALLER: f64 = 15.0;
/// The minimum ratio of the load rate at the most bounded pairs to the exact one at the most exact pairs.
const FASTER: f64 = 3.0;
/// The maximum ratio of a bounded count to an exact one.
const COUNTS: f64 = 3.0;
/// The maximum ratio of a bounded count at the most pairs to that at the fewest.
const FLAT: f64 = 1.5;

/// Returns the bound.
pub fn max_members() -> Result<MaxMembers> {
    Ok(MaxMembers::parse(MAX_MEMBERS)?)
}

/// Reports the bounded engine beside the exact one, and what only bounded segments have.
pub fn parts(plan: &Plan, runtime: &Runtime, figures: &[Figures]) -> Result<Vec<Part>> {
    let mut parts = vec![beside_exact(figures)];
    parts.push(errors::part(figures));
    parts.push(raises::part(plan, runtime)?);
    parts.push(overlap::part(plan, runtime)?);
    Ok(parts)
}

/// Returns the figures of an engine with so many pairs.
fn of(figures: &[Figures], kind: Kind, pairs: u64, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
    figures.iter().filter(|one| (one.kind, one.pairs) == (kind, pairs)).map(figure).collect()
}

/// Compares both engines.
fn beside_exact(figures: &[Figures]) -> Part {
    let sizes = |kind: Kind| {
        let mut pairs: Vec<_> = figures.iter().filter(|one| one.kind == kind).map(|one| one.pairs).collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    };
    let (exact, bounded) = (sizes(Kind::Redis), sizes(Kind::Bounded));
    let memory = |figures: &Figures| figures.memory.iter().sum::<f64>();
    let p50 = |figures: &Figures| figures.count_percentile(50.0);
    let mut checks = Vec::new();
    if let (Some(&fewest), Some(&most)) = (bounded.first(), bounded.last()) {
        let of_bounded = |pairs, figure: fn(&Figures) -> f64| of(figures, Kind::Bounded, pairs, figure);
        let largest = bounded.iter().map(|pairs| median(of_bounded(*pairs, memory))).fold(0.0, f64::max);
        let size = |pairs: u64| thousands(pairs as f64);
        checks.push(Check::of(
            "memory, the most at any number of pairs",
            format!("{:.2} GB", largest / 1e9),
            &format!("≤ {:.1} GB", MEMORY / 1e9),
            largest <= MEMORY,
        ));
        if let Some(&most_exact) = exact.last() {
            let exact_at = |figure: fn(&Figures) -> f64| of(figures, Kind::Redis, most_exact, figure);
            let line: Vec<_> =
                exact_at(memory).into_iter().map(|bytes| bytes * most as f64 / most_exact as f64).collect();
            let what = format!("memory, exact to bounded, {} pairs by the exact bytes a pair", size(most));
            checks.push(Check::at_least(what, &line, &of_bounded(most, memory), SMALLER));
            let what = format!("pairs/s, bounded {} pairs to exact {}", size(most), size(most_exact));
            checks.push(Check::at_least(
                what,
                &of_bounded(most, Figures::load_rate),
                &exact_at(Figures::load_rate),
                FASTER,
            ));
            if bounded.contains(&most_exact) {
                let what = format!("p50 of counts, bounded to exact, {} pairs", size(most_exact));
                checks.push(Check::at_most(what, &of_bounded(most_exact, p50), &exact_at(p50), COUNTS));
            }
        }
        if fewest < most {
            let what = format!("p50 of counts, bounded, {} pairs to {}", size(most), size(fewest));
            checks.push(Check::at_most(what, &of_bounded(most, p50), &of_bounded(fewest, p50), FLAT));
        }
    }
    Part {
        title: "bounded segments beside exact ones",
        note: format!(
            "The engine *bounded* is one Redis with `max_members` {MAX_MEMBERS}. The tables above have its figures. It gets the \
             same pairs as the exact one, and then more. The exact memory at the most pairs is that of the most exact pairs in \
             proportion."
        ),
        columns: Vec::new(),
        rows: Vec::new(),
        checks,
    }
}
