//! The data model on Redis: keys, commands, partitions and their layout. No other room names the
//! `redis` crate.
//!
//! # Keys
//!
//! | key | type | member | score | written by | deleted by |
//! |---|---|---|---|---|---|
//! | `segment:<name>` | sorted set | a user's id | Unix time of the last visit in seconds, milliseconds as the fraction | [`Store::write`], [`Store::write_bulk`], [`Store::copy`] | Redis, when pruning removes the last member; [`Store::delete_keys`] |
//! | `segments` | sorted set | a segment's name | always 0, so that members are in name order | [`Store::write`] | [`Store::drop_unless_occupied`], [`Store::delete_keys`], name by name |
//! | `forgotten` | sorted set | the id of a user who was removed while data moves here | always 0; the key has a TTL | [`Store::delete_user`] | [`Store::delete_tombstones`]; Redis, when the window of the data set is over |
//! | `layout` | string | | | [`Store::layout`], when there is none or its window is too short, [`Store::change_layout`], [`Store::set_window`] and [`Store::adopt`] | nobody; in a partition, [`Store::delete_keys`] |
//! | `history:<name>` | list, and a stream beyond 500 samples | the time and the count of each sample in turn; in the stream `n`, the count | in the stream, the id: Unix time in milliseconds | [`Store::add_samples`] | Redis, 90 days after the last sample |
//! | `history:` | string | | | [`Store::acquire_lease`], [`Store::complete_tick`] | nobody |
//!
//! `segments` is the index: every segment that may have members. A name stands in its key as it is, whatever it holds
//! (braces, colons, spaces): the prefix has no variable part before it, so two names never share a key, and no name can
//! be taken for the index.
//!
//! # Partitions
//!
//! All keys of a data set may begin with a [`KeyPrefix`], in front of the tag.
//!
//! Past one server, users are split by a hash of their ids into [`Partitions`], and each has keys of its own, with the
//! partition's tag in front: `{p07}:segment:<name>`, `{p07}:segments`, `{p07}:layout`. All keys of a partition share a slot of a
//! cluster, so that one pipeline serves it; a user's whole record is there; and the count of a segment is the sum of its
//! partitions' counts. The tag is ours, and no name gets into it. A history is of all partitions together, and its key has no tag. How many partitions there are stands in `layout`, with the
//! rest that everybody must agree on ([`Layout`]).
//!
//! # Why the index never loses a segment
//!
//! [`Store::write`] writes members first and names second. [`Store::drop_unless_occupied`] looks at the segment and
//! removes the name in one atomic script. If the script runs before the member is written, the name is written after
//! it; if it runs after, the segment isn't empty and the name stays.
//!
//! Both go out in one pipeline, so the name is written even if the segment's key holds another type and refuses the member.
//! [`Store::write`] then runs the same script before it answers: a key of another type has no members. Should Redis die between the two commands, the visit is
//! not acknowledged, and the name comes with its repetition or with the segment's next visit. Until then the member counts
//! as it should, and only pruning doesn't know of it.
//!
//! # Request
//!
//! The list stands in the module [`permissions`](self::diagnostics::Permissions), and tests compare it with what the service sends. The service
//! works without `INFO`, and without `TIME`, by its own clock then. With [`WriteAcks`] it also sends `WAIT`, or `WAITAOF`, which
//! needs Redis 7.2 or Valkey; to sentinels, `SENTINEL MASTER` and `SENTINEL GET-MASTER-ADDR-BY-NAME`; before the first data set is
//! made, `SCAN`, which it works without. `segment-estimator check` also asks `ACL WHOAMI`, `ACL DRYRUN`, `COMMAND INFO` and
//! `CONFIG GET`. `ZADD GT` and `ZRANGE BYLEX` need Redis 6.2 or Valkey.

pub mod diagnostics;
mod error;
mod write;

mod count;

mod history;
mod index;
mod keys;
mod layout;
mod members;
mod own_keys;
mod prune;
mod segment_limit;

mod users;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;

pub use self::error::Error;
pub use self::history::{Lease, LeaseRequest, NamedSample, Sample};
pub use self::index::{IndexCursor, IndexPage};
use self::keys::KeyNames;
pub use self::keys::{KeyPrefix, KeySet, Partition, Partitions};
pub use self::layout::{Candidate, Layout, Phase, Resharding, Unrecorded, WindowChange};
use self::layout::{KnownLayout, Refusal};
pub use self::members::{MembersCursor, MembersPage};
pub use self::own_keys::Coverage;
pub use self::prune::{Expired, Slice};
use self::segment_limit::SegmentLimit;
pub use self::write::{Batch, WriteOutcome};
use crate::domain::{Timestamp, UserId, Window};
use crate::redis::{Client, Limits, WriteAcks};
use crate::telemetry::{Metrics, Traffic};

/// The sorted sets in Redis. Cheap to clone; clones share the connections and what is known of the layout.
///
/// Redis answers a connection's commands in order and serves connections in turn, so that what goes over one doesn't wait for
/// what goes over another.
#[derive(Debug, Clone)]
pub struct Store {
    /// For all but visits. Pruning goes over it, too: at each server it has one slice under way at a time, which holds up every
    /// connection for as long as this one.
    client: Client,
    /// For single visits.
    visits: Client,
    /// For batches, whose thousands of visits a single one has not to wait for.
    batches: Client,
    acks: WriteAcks,
    /// How many partitions there must be; any number if none.
    partitions: Option<Partitions>,
    names: Arc<KeyNames>,
    /// What members are counted over, for which they must be kept. Without it, nothing is counted.
    window: Option<Window>,
    /// Whether the servers are private ones of this service, so that all they have is ours.
    is_private: bool,
    layout: Arc<ArcSwapOption<KnownLayout>>,
    refusal: Arc<Refusal>,
    /// How many segments there may be; any number if none.
    segment_limit: Option<Arc<SegmentLimit>>,
}

impl Store {
    /// The store behind `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let [visits, batches] = [Traffic::Visits, Traffic::Batches].map(|traffic| client.for_traffic(traffic));
        Self {
            client,
            visits,
            batches,
            acks: WriteAcks::default(),
            partitions: None,
            names: Arc::default(),
            window: None,
            is_private: false,
            layout: Arc::default(),
            refusal: Arc::default(),
            segment_limit: None,
        }
    }

    /// The same store, of the data set whose keys begin with `prefix`.
    #[must_use]
    pub fn with_key_prefix(self, prefix: KeyPrefix) -> Self {
        Self { names: Arc::new(KeyNames::new(prefix)), layout: Arc::default(), refusal: Arc::default(), ..self }
    }

    /// What the keys of the data set begin with.
    #[must_use]
    pub fn key_prefix(&self) -> &KeyPrefix {
        self.names.prefix()
    }

    /// The same store, whose members are kept for `window` at least: a data set with a shorter one is extended before it is used.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window: Some(window), ..self }
    }

    /// The same store on a private Redis, whose data is taken for this service's without a record.
    #[must_use]
    pub fn on_private_redis(self) -> Self {
        Self { is_private: true, ..self }
    }

    /// Patterns of all keys that it may write while `layout` is in force, as an ACL has them.
    #[must_use]
    pub fn key_patterns(&self, layout: Option<&Layout>) -> Vec<String> {
        if !self.names.prefix().as_str().is_empty() {
            return vec![self.names.pattern("*")];
        }
        let is_plain = layout.is_none_or(|layout| layout.all().any(|keys| keys.partitions() == Partitions::ONE));
        let own = if is_plain { &["segments", "segment:*", "forgotten"][..] } else { &[] };
        let partitions = if layout.is_some_and(|layout| layout.all().any(|keys| keys.partitions() != Partitions::ONE)) {
            &["{p*}:*", "{q*}:*"][..]
        } else {
            &[]
        };
        [&["layout", "history:*"], own, partitions].concat().into_iter().map(str::to_owned).collect()
    }

    /// The same store, which refuses a data set with another number of partitions, and makes one with as many if there is none.
    /// Without a number, it takes any, and makes one partition on one server and [`Partitions::OF_A_CLUSTER`] on a cluster.
    #[must_use]
    pub fn with_partitions(self, partitions: Option<Partitions>) -> Self {
        Self { partitions, ..self }
    }

    /// The same store, whose visits are acknowledged when so many replicas have them.
    #[must_use]
    pub fn with_acks(self, acks: WriteAcks) -> Self {
        Self { acks, ..self }
    }

    /// The same store, which refuses visits to new segments when there are so many.
    #[must_use]
    pub fn with_max_segments(self, max: u64) -> Self {
        Self { segment_limit: Some(Arc::new(SegmentLimit::new(max))), ..self }
    }

    /// How many replicas must have a visit.
    #[must_use]
    pub fn acks(&self) -> WriteAcks {
        self.acks
    }

    /// Whether keys are shared out among several servers.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.client.is_cluster()
    }

    /// Whether visits are being written through this store: sent to Redis, and not answered yet.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.visits.is_busy() || self.batches.is_busy()
    }

    /// What Redis may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.client.limits()
    }

    /// What the service is measured with.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.client.metrics()
    }

    /// Has a failure logged that a caller met before Redis was asked.
    pub(crate) fn report_error(&self, error: &Error) {
        self.client.log(error.as_failure());
    }

    /// Asks every server whether it can serve, and sees that the layout is known.
    ///
    /// # Errors
    ///
    /// As [`Self::time`], and as [`Self::layout`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.time().await?;
        self.check_layout().await
    }

    /// Asks every server whether it can serve, and one, always the same, for its time, to the millisecond: `None` when an ACL
    /// forbids to ask for that. Nothing is written.
    ///
    /// # Errors
    ///
    /// An [`Error`] if not; `LOADING` counts as not, and so does that it has become a replica.
    pub async fn time(&self) -> Result<Option<Timestamp>, Error> {
        self.client.confirm_primary().await;
        let masters = self.client.masters().await?;
        // The one that all services can agree on.
        let first = self.client.masters_of(vec![self.layout_slot()]).await?[0];
        let times = join_all(masters.into_iter().map(|(slot, _)| self.client.ping(slot))).await;
        // Errors first: one that can't serve is reason enough.
        let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.client.report_recovery();
        let millis = |(seconds, micros): (i64, i64)| seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        Ok(times.get(first).copied().flatten().map(|time| Timestamp::from_millis(millis(time))))
    }

    /// The partitions that counts are of, in groups that are at one server each.
    ///
    /// # Errors
    ///
    /// An [`Error`] when the layout isn't known, or who has which partition.
    pub async fn partitions_by_server(&self) -> Result<Vec<Vec<Partition>>, Error> {
        self.by_server(self.layout().await?.read()).await
    }

    async fn by_server(&self, keys: KeySet) -> Result<Vec<Vec<Partition>>, Error> {
        Ok(self.client.by_server(keys.all().collect(), |partition: &Partition| partition.slot()).await?)
    }
}

/// What decides which visits share a round trip. Users of one partition have it in common, however many partitions there are.
#[must_use]
pub fn shard_of(user_id: &UserId<'_>, partitions: Partitions) -> usize {
    partitions.of(keys::hash(user_id.as_str())).into()
}
