//! The projection to many more users: nodes, memory, work.
//!
//! Nothing here is measured. The notes of the parts name the basis of each column. Assumptions are constants below.

use crate::counts::percentile;
use crate::curves::points;
use crate::engine::Kind;
use crate::fit::{Line, Power};
use crate::report::{Part, median, thousands};
use crate::run::Figures;

/// The projected loads: users, and segments per user.
const LOADS: [(&str, f64, f64); 2] = [("100M users x 20", 1e8, 20.0), ("1B users x 20", 1e9, 20.0)];
/// Memory of a node, in bytes.
const NODE: f64 = 64.0 * GIBIBYTE;
/// The share of a node for data; the rest is for forks, buffers and growth.
const FULL: f64 = 0.7;
/// The maximum share of a master's time for visits at the peak of a day.
const BUSY: f64 = 0.5;
/// Seconds between two visits of a pair.
const SEEN_AGAIN: f64 = 24.0 * 60.0 * 60.0;
/// The ratio of the peak of a day to the average.
const PEAK: f64 = 3.0;
/// The maximum ratio of the fullest master to the mean.
const SPREAD: f64 = 1.15;
/// The maximum size of a partition, in bytes. A partition moves to another master key by key. The key of the largest
/// segment has a sixth of it, and blocks both masters while it moves.
const PARTITION: f64 = 4.0 * GIBIBYTE;
/// Bytes per pair of engines that the run doesn't measure, with ids of 8 bytes: the table in docs/operating.md.
const KNOWN: [(&str, f64); 2] = [("Redis 8.0", 110.0), ("Valkey 9.1", 71.0)];
/// The same for Redis 7.0, which is usually measured.
const KNOWN_REDIS: f64 = 110.0;
const GIBIBYTE: f64 = 1024.0 * 1024.0 * 1024.0;

/// The measured figures that the projection uses.
pub struct Basis {
    /// Each engine, its bytes per pair, and their source.
    engines: Vec<(String, f64, &'static str)>,
    /// A master's CPU time for a written pair, in microseconds, by the number of its pairs.
    write: Power,
    /// The p50 of a count of one partition, in microseconds.
    count: f64,
    /// The addition of each partition, in microseconds; `None` without a cluster in the run.
    partition: Option<f64>,
    /// The masters' CPU time for one partition of a count, in microseconds.
    answer: f64,
    /// Pairs that a starting server loads per second.
    restart: f64,
}

/// A sufficient number of masters.
struct Cluster {
    masters: f64,
    partitions: f64,
    /// The fullest master's share of all data.
    fullest: f64,
    /// Pairs that can be written per second.
    writes: f64,
}

impl Basis {
    /// Uses `figures`. They must include a single server, the first engine. `versions` names the server of each engine.
    pub fn of(figures: &[Figures], versions: &[(Kind, String)]) -> Option<Self> {
        let single =
            [Kind::Redis, Kind::Valkey].into_iter().find(|kind| figures.iter().any(|one| one.kind == *kind))?;
        let bytes = |kind| Line::of(&points(figures, kind, |one| one.memory.iter().sum())).slope;
        let mut engines = Vec::new();
        for (kind, version) in versions.iter().filter(|(kind, _)| ![Kind::Cluster, Kind::Bounded].contains(kind)) {
            engines.push((version.clone(), bytes(*kind), "measured"));
        }
        let has = |kind| versions.iter().any(|(other, _)| *other == kind);
        if has(Kind::Redis) {
            let unknown = KNOWN.iter().filter(|(name, _)| !(name.starts_with("Valkey") && has(Kind::Valkey)));
            engines.extend(unknown.map(|(name, known)| {
                ((*name).to_owned(), bytes(Kind::Redis) * known / KNOWN_REDIS, "by the ratio in docs/operating.md")
            }));
        }
        let written = if has(Kind::Cluster) { Kind::Cluster } else { single };
        let most = figures.iter().filter(|one| one.kind != Kind::Bounded).map(|one| one.pairs).max()?;
        let largest = |kind| figures.iter().filter(move |one| one.kind == kind && one.pairs == most);
        let p50 = |kind| median(largest(kind).map(|one| percentile(&one.counts, 50.0)));
        let cpu: Vec<_> = figures
            .iter()
            .filter(|one| one.kind == written)
            .map(|one| (one.pairs as f64 / one.memory.len() as f64, one.cpu_a_pair()))
            .collect();
        let count = p50(single);
        let partitions = Kind::Cluster.partitions() as f64;
        Some(Self {
            engines,
            write: Power::of(&cpu),
            count,
            partition: has(Kind::Cluster).then(|| (p50(Kind::Cluster) - count).max(0.0) / partitions),
            answer: median(largest(written).map(Figures::cpu_a_count)) / written.partitions() as f64,
            restart: median(largest(single).map(|one| one.pairs as f64 / one.restart.read)),
        })
    }

    /// Reports memory and work.
    pub fn parts(&self) -> [Part; 2] {
        [self.memory(), self.work()]
    }

    /// Returns the smallest cluster for so many pairs of so many bytes and so many visits per second.
    fn cluster(&self, pairs: f64, bytes: f64, visits: f64) -> Cluster {
        let mut masters = 3.0;
        loop {
            let partitions = partitions(masters, pairs * bytes);
            let fullest = (partitions / masters).ceil() / partitions;
            let writes = 1e6 / self.write.at(pairs * fullest) / fullest;
            let is_enough = pairs * bytes * fullest <= NODE * FULL && visits <= writes * BUSY;
            if is_enough || masters >= 1_000.0 {
                return Cluster { masters, partitions, fullest, writes };
            }
            masters += 1.0;
        }
    }

    /// Returns a row for each load and engine, with `cells` after their names.
    fn rows(&self, cells: impl Fn(f64, f64, &Cluster) -> Vec<String>) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (load, users, segments) in LOADS {
            let pairs = users * segments;
            for (engine, bytes, _) in &self.engines {
                let cluster = self.cluster(pairs, *bytes, PEAK * pairs / SEEN_AGAIN);
                let mut row = vec![load.to_owned(), engine.clone()];
                row.extend(cells(pairs, *bytes, &cluster));
                rows.push(row);
            }
        }
        rows
    }

    fn memory(&self) -> Part {
        let sources = self.engines.iter().map(|(engine, bytes, source)| format!("{engine}: {bytes:.1}, {source}"));
        let rows = self.rows(|pairs, bytes, cluster| {
            let gibibytes = |bytes: f64| thousands(bytes / GIBIBYTE);
            vec![
                format!("{:.0}", bytes),
                gibibytes(pairs * bytes),
                gibibytes(pairs * bytes * 2.0),
                thousands(cluster.masters),
                thousands(cluster.masters * 2.0),
                thousands(cluster.partitions),
                format!("{:.1}", pairs * bytes * cluster.fullest / GIBIBYTE),
            ]
        });
        Part {
            title: "projection: memory and nodes",
            note: format!(
                "Computed, not measured. Bytes a pair, with ids of 8 bytes, are the slope of a single server's line ({}). A \
                 replica for each master doubles memory and nodes. The fullest master may take {:.0} % of a node of {:.0} GiB: \
                 a fork and the buffers need the rest. There are at least three masters, and enough for the memory and the \
                 visits. There are enough partitions that the fullest master exceeds the mean by at most {:.0} %, if slots \
                 are laid so that each master has as many partitions as the others. No partition exceeds {:.0} GiB: a \
                 partition moves key by key, and a large key blocks both masters.",
                sources.collect::<Vec<_>>().join("; "),
                100.0 * FULL,
                NODE / GIBIBYTE,
                100.0 * (SPREAD - 1.0),
                PARTITION / GIBIBYTE
            ),
            columns: vec![
                "load",
                "engine",
                "bytes a pair",
                "data GiB",
                "with replicas GiB",
                "masters",
                "nodes of 64 GiB",
                "partitions",
                "fullest master GiB",
            ],
            rows,
            checks: Vec::new(),
        }
    }

    fn work(&self) -> Part {
        let rows = self.rows(|pairs, _, cluster| {
            let visits = pairs / SEEN_AGAIN;
            let of_master = pairs * cluster.fullest;
            // A master counts only its own partitions.
            let counts = 1e6 / self.answer / (cluster.partitions * cluster.fullest);
            let latency = self.partition.map(|added| self.count + added * cluster.partitions);
            vec![
                thousands(visits),
                thousands(visits * PEAK),
                thousands(cluster.writes),
                format!("{:.0} %", 100.0 * visits * PEAK / cluster.writes),
                format!("{:.1}", pairs / cluster.writes / 3_600.0),
                latency.map_or_else(|| "not measured".to_owned(), |latency| format!("{:.2}", latency / 1e3)),
                thousands(counts),
                format!("{:.1}", of_master / self.restart / 60.0),
            ]
        });
        let count = match self.partition {
            Some(added) => format!("{:.0} µs and {added:.1} µs for each partition", self.count),
            None => format!("{:.0} µs; the addition of a partition was not measured", self.count),
        };
        Part {
            title: "projection: work",
            note: format!(
                "Computed, not measured, for the same clusters. Every pair is seen again once a day, and at the peak there are \
                 {PEAK:.0} times as many visits as on average. *Can* is what the masters' CPU allows, by their CPU time for a \
                 loaded pair ({:.2} µs at 10 million pairs a master, {:.2} at 300 million, by the fit). *Busy* should be at \
                 most {:.0} %. Visits outside batches cost several times as much: see docs/benchmarks.md. *Load* is the time \
                 of the first load of everything at that rate. A count takes {count}, measured with client and masters on two \
                 cores; with a machine for each it takes at most that. *Counts/s* is what the masters could answer without \
                 other work, at {:.1} µs for each partition. *Restart* is that of the fullest master, at {} pairs a second.",
                self.write.at(1e7),
                self.write.at(3e8),
                100.0 * BUSY,
                self.answer,
                thousands(self.restart)
            ),
            columns: vec![
                "load",
                "engine",
                "visits/s",
                "at the peak",
                "can",
                "busy",
                "load h",
                "count p50 ms",
                "counts/s",
                "restart min",
            ],
            rows,
            checks: Vec::new(),
        }
    }
}

/// Returns the fewest partitions, a power of two, that are small enough and evenly distributed over so many masters. A
/// cluster has at least 64.
fn partitions(masters: f64, bytes: f64) -> f64 {
    let is_enough = |partitions: f64| {
        let share = partitions / masters;
        share.ceil() / share <= SPREAD && bytes / partitions <= PARTITION
    };
    [64.0, 128.0, 256.0, 512.0].into_iter().find(|partitions| is_enough(*partitions)).unwrap_or(1_024.0)
}
