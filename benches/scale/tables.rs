//! The parts of the report.

use crate::counts::percentile;
use crate::data::SEGMENTS;
use crate::engine::Kind;
use crate::plan::Plan;
use crate::report::{Check, Part, median, milliseconds, thousands};
use crate::run::Figures;

/// The maximum ratio of the latency of counts with the most pairs to that with the fewest.
const COUNTS: f64 = 2.0;
/// The minimum ratio of the load rate with the most pairs to that with the fewest.
const LOAD: f64 = 0.8;
/// The maximum ratio of the busiest master to the mean.
const SPREAD: f64 = 1.15;

/// The figures of a run, and its parameters.
pub struct Tables<'a> {
    pub plan: &'a Plan,
    pub figures: &'a [Figures],
    /// Pairs generated per second, without loading them.
    pub made: f64,
}

type Cell = (&'static str, fn(&[&Figures]) -> String);

/// Returns the median of a figure over the rounds.
fn over(rounds: &[&Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    median(rounds.iter().map(|&figures| figure(figures)))
}

impl Tables<'_> {
    /// Returns all parts except growth and projection.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![self.load(), self.counts(), self.memory(), self.restart(), self.prune()];
        if self.plan.engines.contains(&Kind::Cluster) {
            parts.push(self.spread());
        }
        parts
    }

    /// Returns the rounds of one engine and size.
    fn rounds(&self, kind: Kind, pairs: u64) -> Vec<&Figures> {
        self.figures.iter().filter(|figures| figures.kind == kind && figures.pairs == pairs).collect()
    }

    /// Returns a part with a row for each size and engine.
    fn part(&self, title: &'static str, note: String, cells: &[Cell], checks: Vec<Check>) -> Part {
        let mut rows = Vec::new();
        for &pairs in &self.plan.pairs {
            for kind in self.plan.engines_of(pairs) {
                let rounds = self.rounds(kind, pairs);
                let mut row = vec![thousands(pairs as f64), kind.name().to_owned()];
                row.extend(cells.iter().map(|(_, cell)| cell(&rounds)));
                rows.push(row);
            }
        }
        let mut columns = vec!["pairs", "engine"];
        columns.extend(cells.iter().map(|(column, _)| *column));
        Part { title, note, columns, rows, checks }
    }

    /// Checks each engine between the most pairs and the fewest. `check` gets the figures of both, round by round.
    fn checks(&self, what: &str, figure: fn(&Figures) -> f64, check: fn(&str, &[f64], &[f64]) -> Check) -> Vec<Check> {
        let check = |&kind: &Kind| {
            let sizes: Vec<_> =
                self.plan.pairs.iter().filter(|pairs| self.plan.engines_of(**pairs).contains(&kind)).collect();
            let [&fewest, .., &most] = sizes[..] else { return None };
            let values = |pairs| self.rounds(kind, pairs).into_iter().map(figure).collect::<Vec<_>>();
            let sizes = format!("{} pairs to {}", thousands(most as f64), thousands(fewest as f64));
            Some(check(&format!("{what}, {}, {sizes}", kind.name()), &values(most), &values(fewest)))
        };
        // Those of bounded segments are in a part of their own.
        self.plan.engines.iter().filter(|kind| **kind != Kind::Bounded).filter_map(check).collect()
    }

    fn load(&self) -> Part {
        let note = format!(
            "All pairs as lines of NDJSON, through the service's `Ingest` in the benchmark's process, with `appendfsync \
             everysec`. *Last tenth* is the rate of the last tenth of the pairs. The lines are generated during the load; \
             without a Redis, {} are generated in a second. Medians of {} rounds.",
            thousands(self.made),
            self.plan.rounds
        );
        let cells: [Cell; 6] = [
            ("pairs/s", |rounds| thousands(over(rounds, Figures::load_rate))),
            ("last tenth pairs/s", |rounds| {
                thousands(over(rounds, |figures| figures.pairs as f64 / 10.0 / figures.loaded.last_tenth))
            }),
            ("pairs a command", |rounds| {
                let commands = |figures: &Figures| figures.loaded.commands.iter().sum::<f64>();
                format!("{:.1}", over(rounds, |figures| figures.pairs as f64 / commands(figures)))
            }),
            ("servers' CPU µs/pair", |rounds| format!("{:.2}", over(rounds, Figures::cpu_a_pair))),
            ("our CPU µs/pair", |rounds| {
                format!("{:.2}", over(rounds, |figures| figures.loaded.own_cpu * 1e6 / figures.pairs as f64))
            }),
            ("cores busy", |rounds| {
                let cpu = |figures: &Figures| figures.loaded.cpu.iter().sum::<f64>() + figures.loaded.own_cpu;
                format!("{:.2}", over(rounds, |figures| cpu(figures) / figures.loaded.seconds))
            }),
        ];
        let at_least = |what: &str, most: &[f64], fewest: &[f64]| Check::at_least(what, most, fewest, LOAD);
        self.part("load", note, &cells, self.checks("pairs/s", Figures::load_rate, at_least))
    }

    fn counts(&self) -> Part {
        let note = format!(
            "Each of the {SEGMENTS} segments, one after the other, {} times in each of {} rounds, through the library. The \
             engines take turns, and every exact count is compared with the loaded data. *Of the largest* is the p50 of the \
             largest segment. *`ZCOUNT`* is the server's own time for one `ZCOUNT`. A count needs one for each partition, and of a sample one for each level.",
            self.plan.passes, self.plan.rounds
        );
        let cells: [Cell; 5] = [
            ("p50 µs", |rounds| thousands(over(rounds, |figures| figures.count_percentile(50.0)))),
            ("p99 µs", |rounds| thousands(over(rounds, |figures| figures.count_percentile(99.0)))),
            ("p50 of the largest µs", |rounds| {
                let largest = |figures: &Figures| figures.counts.iter().copied().step_by(SEGMENTS).collect::<Vec<_>>();
                thousands(over(rounds, |figures| percentile(&largest(figures), 50.0)))
            }),
            ("`ZCOUNT` µs", |rounds| format!("{:.1}", over(rounds, |figures| figures.zcount))),
            ("servers' CPU µs/count", |rounds| thousands(over(rounds, Figures::cpu_a_count))),
        ];
        let at_most = |what: &str, most: &[f64], fewest: &[f64]| Check::at_most(what, most, fewest, COUNTS);
        let mut checks = self.checks("p50 of counts", |figures| figures.count_percentile(50.0), at_most);
        checks.extend(self.checks("p99 of counts", |figures| figures.count_percentile(99.0), at_most));
        self.part("counts", note, &cells, checks)
    }

    fn memory(&self) -> Part {
        let note = format!(
            "`used_memory` after it has settled, minus that of the empty server, and the resident memory of the process, \
             summed over all masters. *In lists* is the share of members in sets of at most 128 members. The server keeps \
             such a set as a list instead of a tree: it takes less memory and costs more to write. More partitions make \
             smaller sets. Medians of {} rounds.",
            self.plan.rounds
        );
        let cells: [Cell; 5] = [
            ("`used_memory` MiB", |rounds| {
                thousands(over(rounds, |figures| figures.memory.iter().sum::<f64>() / 1024.0 / 1024.0))
            }),
            ("bytes a pair", |rounds| {
                format!("{:.1}", over(rounds, |figures| figures.memory.iter().sum::<f64>() / figures.pairs as f64))
            }),
            ("resident bytes a pair", |rounds| {
                format!("{:.1}", over(rounds, |figures| figures.resident.iter().sum::<f64>() / figures.pairs as f64))
            }),
            ("keys", |rounds| {
                thousands(over(rounds, |figures| figures.census.iter().map(|census| census.keys as f64).sum()))
            }),
            ("in lists", |rounds| {
                let listed = |figures: &Figures| figures.census.iter().map(|census| census.listed as f64).sum::<f64>();
                format!("{:.0} %", over(rounds, |figures| 100.0 * listed(figures) / figures.pairs as f64))
            }),
        ];
        self.part("memory", note, &cells, Vec::new())
    }

    fn restart(&self) -> Part {
        let note = format!(
            "The append-only file is rewritten, on all masters at once. Then the servers are stopped and started with it. \
             *All read* is when all have loaded their data. *All answer* is when all serve it, on a cluster two seconds \
             after the start at the earliest. *Copied* is the memory that a rewrite duplicates for concurrent writes; there \
             were none. Medians of {} rounds.",
            self.plan.rounds
        );
        let cells: [Cell; 6] = [
            ("rewrite s", |rounds| format!("{:.2}", over(rounds, |figures| figures.rewrite))),
            ("copied MiB", |rounds| format!("{:.1}", over(rounds, |figures| figures.copied / 1024.0 / 1024.0))),
            ("file, bytes a pair", |rounds| {
                format!("{:.1}", over(rounds, |figures| figures.file / figures.pairs as f64))
            }),
            ("all read s", |rounds| format!("{:.2}", over(rounds, |figures| figures.restart.read))),
            ("pairs/s", |rounds| thousands(over(rounds, |figures| figures.pairs as f64 / figures.restart.read))),
            ("all answer s", |rounds| format!("{:.2}", over(rounds, |figures| figures.restart.whole))),
        ];
        self.part("restart", note, &cells, Vec::new())
    }

    fn prune(&self) -> Part {
        let note = format!(
            "A day later, the first of the 14 days has expired and is pruned. During the prune every master gets a `PING` \
             each millisecond on a connection of its own: the longest answer is the longest wait of any client. *Quiet* is \
             the same before the prune. Medians of {} rounds.",
            self.plan.rounds
        );
        let cells: [Cell; 7] = [
            ("members", |rounds| thousands(over(rounds, |figures| figures.pruned.members as f64))),
            ("s", |rounds| format!("{:.2}", over(rounds, |figures| figures.pruned.seconds))),
            ("members/s", |rounds| {
                thousands(over(rounds, |figures| figures.pruned.members as f64 / figures.pruned.seconds))
            }),
            ("PING p99 ms", |rounds| milliseconds(over(rounds, |figures| figures.pruned.pings.p99))),
            ("PING max ms", |rounds| milliseconds(over(rounds, |figures| figures.pruned.pings.max))),
            ("quiet p99 ms", |rounds| milliseconds(over(rounds, |figures| figures.pruned.quiet.p99))),
            ("quiet max ms", |rounds| milliseconds(over(rounds, |figures| figures.pruned.quiet.max))),
        ];
        self.part("prune", note, &cells, Vec::new())
    }

    fn spread(&self) -> Part {
        type Work = (&'static str, fn(&Figures) -> Vec<f64>);
        const WORK: [Work; 6] = [
            ("members", |figures| figures.census.iter().map(|census| census.members as f64).collect()),
            ("memory", |figures| figures.memory.clone()),
            ("commands of the load", |figures| figures.loaded.commands.clone()),
            ("CPU of the load", |figures| figures.loaded.cpu.clone()),
            ("CPU of the counts", |figures| figures.count_cpu.clone()),
            ("CPU of the prune", |figures| figures.pruned.cpu.clone()),
        ];
        let most = self.plan.exact_pairs;
        let rounds = self.rounds(Kind::Cluster, most);
        let (mut rows, mut checks) = (Vec::new(), Vec::new());
        for (what, work) in WORK {
            let of_most = |figures: &&Figures| {
                let each = work(figures);
                each.iter().copied().fold(0.0, f64::max) * each.len() as f64 / each.iter().sum::<f64>()
            };
            let mean_share = |master: usize| {
                over(&rounds, |figures| 100.0 * work(figures)[master] / work(figures).iter().sum::<f64>())
            };
            let ratio = median(rounds.iter().map(of_most));
            let masters = rounds[0].memory.len();
            let mut row = vec![what.to_owned()];
            row.extend((0..masters).map(|master| format!("{:.1} %", mean_share(master))));
            row.push(format!("{ratio:.2}"));
            rows.push(row);
            let target = format!("≤ {SPREAD:.2} x");
            checks.push(Check::of(
                &format!("{what}, maximum to mean"),
                format!("{ratio:.2} x"),
                &target,
                ratio <= SPREAD,
            ));
        }
        Part {
            title: "spread",
            note: format!(
                "The share of each of the cluster's masters in {} pairs and in their work. Slots are distributed evenly, as by \
                 `redis-cli --cluster create`. Medians of {} rounds.",
                thousands(most as f64),
                self.plan.rounds
            ),
            columns: vec!["what", "master 1", "master 2", "master 3", "maximum / mean"],
            rows,
            checks,
        }
    }
}
