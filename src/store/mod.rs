//! The data model on Redis: keys, commands, partitions and their layout.
//!
//! # Keys
//!
//! | key | type | member | score | written by | deleted by |
//! |---|---|---|---|---|---|
//! | `segment:<name>` | sorted set | a user's id | Unix time of the user's last visit in seconds, with milliseconds as the fraction | [`Store::write`], [`Store::write_bulk`], [`Store::copy`] | Redis, when the last member is removed; [`Store::delete_segment`], [`Store::delete_keys`] |
//! | `segment@<level>:<name>` | sorted set | the id of a user of this level | as above; instead of `segment:<name>`, if segments are bounded | as above | as above; a raise of the depth, which unlinks it |
//! | `depths` | hash, if segments are bounded | a segment's name | the text of its depth; the field is missing if the segment keeps all users | raises, [`Store::adjust_samples`], [`Store::delete_segment`] | the same, [`Store::delete_keys`] |
//! | `segments` | sorted set | a segment's name | always 0, which sorts members by name | [`Store::write`], [`Store::adopt`] | name by name: [`Store::drop_unless_occupied`], [`Store::delete_segment`], [`Store::delete_keys`] |
//! | `forgotten` | sorted set | a tombstone: the id of a user deleted during a resharding, or a space and the name of a segment | always 0; the key has a TTL | [`Store::delete_user`], [`Store::remove_user`], [`Store::delete_segment`] | [`Store::delete_tombstones`], [`Store::delete_keys`]; Redis, after the window of the data set |
//! | `layout` | string | | | [`Store::layout`] if there is none or its window is too short, [`Store::change_layout`], [`Store::set_window`], [`Store::adopt`] | never; the copy in a partition by [`Store::delete_keys`] |
//! | `history:<name>` | list of alternating times and counts; a stream beyond [`Store::MAX_LIST_SAMPLES`] samples | in the stream, field `n`: the count | in the stream, the id: Unix time in milliseconds | [`Store::add_samples`] | Redis, 90 days after the last sample; [`Store::delete_history`] |
//! | `history: <name>`, with a space | string: time and count of the last sample, time of the first, counts of a day and of a week before, or `-`, with `+` and seconds if these samples are later; the window in seconds, with `@` and a time if it was another one before | | | [`Store::update_changes`] | Redis, 90 days after the last sample; [`Store::delete_history`] |
//! | `history:` | string: tick, expiry and holder of the lease | | | [`Store::acquire_lease`], [`Store::complete_tick`] | never |
//!
//! `segments` is the index: every segment that may have members. A key ends in the segment's name, unescaped, and
//! nothing variable precedes the prefix `segment:`. Therefore two names never share a key, and no name collides with
//! another key, whatever it contains (braces, colons, spaces). No name is empty or begins with a space, which
//! distinguishes the lease and the change records from histories, and tombstones of segments from those of users.
//!
//! # Partitions
//!
//! All keys of a data set may begin with a [`KeyPrefix`], which precedes the tag of the partition.
//!
//! Beyond one server, a hash of the user's id assigns each user to one of the [`Partitions`]. Each partition has its
//! own keys, which begin with its tag: `{p07}:segment:<name>`, `{p07}:segments`, `{p07}:layout`. All keys of a
//! partition share a slot of a cluster, so that one pipeline reads and writes them. A partition has all data of its
//! users, and the count of a segment is the sum over the partitions. The tag comes first, so that braces in a segment's
//! name have no effect. A history covers all partitions, and its key has no tag. `layout` records the number of
//! partitions and everything else that all instances must agree on ([`Layout`]).
//!
//! # Why the index never loses a segment
//!
//! [`Store::write`] writes members first and names second. [`Store::drop_unless_occupied`] checks the segment and
//! removes its name in one atomic script. If the script runs before the member is written, the write adds the name
//! afterwards. If it runs later, the segment has a member and the name stays.
//!
//! [`Store::delete_segment`] removes the members and the name in one atomic script as well. A member that is written
//! before it is deleted, and the name that follows is that of an empty segment, which pruning drops. A member that is
//! written after it is followed by its name.
//!
//! One pipeline contains both commands, so the name is written even if the segment's key holds another type and Redis
//! refuses the member. [`Store::write`] then runs the same script before it answers: a key of another type has no
//! members. If Redis crashes between the two commands, the visit is not acknowledged, and a retry or the segment's next
//! visit adds the name. Until then the member is counted, and only pruning misses it.
//!
//! # Commands
//!
//! [`Permissions`](self::diagnostics::Permissions) lists the required commands. Tests compare the list with the
//! commands that the service sends. `INFO` and `TIME` are optional; without `TIME`, the service uses its own clock.
//! `SCAN` is optional as well: it looks for foreign keys before the first data set is created. [`WriteAcks`] needs
//! `WAIT`, or `WAITAOF` of Redis 7.2 or Valkey. Sentinels receive `SENTINEL MASTER` and `SENTINEL
//! GET-MASTER-ADDR-BY-NAME`. `segment-estimator check` also sends `ACL WHOAMI`, `ACL DRYRUN`, `COMMAND INFO` and
//! `CONFIG GET`. `ZADD GT` and `ZRANGE BYLEX` require Redis 6.2 or Valkey.

mod batch;
mod changes;
mod count;
mod delete_segment;
mod deletion;
pub mod diagnostics;
mod error;
mod history;
mod index;
mod key_prefix;
mod key_set;
mod keys;
mod known;
mod layout;
mod members;
mod own_keys;
mod partition;
mod prune;
mod reconcile;
mod sampling;
mod segment_limit;
mod tombstones;
mod users;
mod write;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;

pub use self::batch::Batch;
pub use self::changes::{ChangeRecord, SampledWindow};
pub use self::count::CountQuery;
pub use self::delete_segment::DeletedSegment;
pub use self::error::Error;
pub use self::history::{Lease, LeaseRequest, NamedSample, Sample};
pub use self::index::{IndexCursor, IndexPage};
pub use self::key_prefix::KeyPrefix;
pub use self::key_set::KeySet;
use self::keys::KeyNames;
pub use self::layout::{Candidate, Layout, Phase, Resharding, UnrecordedData, WindowChange};
use self::layout::{KnownLayout, Refusal};
pub use self::members::{KeyPage, Member, MembersCursor, MembersPage};
pub use self::own_keys::Coverage;
pub use self::partition::{Partition, Partitions, SegmentKey};
pub use self::prune::{MemberCounts, SliceOutcome};
pub use self::reconcile::UserInSegment;
use self::sampling::Depths;
pub use self::sampling::max_members::MaxMembers;
pub(crate) use self::sampling::segment_depth::SegmentDepth;
use self::segment_limit::SegmentLimit;
pub use self::tombstones::{Tombstone, TombstonesPage};
pub use self::users::Presence;
pub use self::write::WriteOutcome;
use crate::domain::{Timestamp, UserId, Window};
use crate::redis::{Client, Limits, WriteAcks};
use crate::telemetry::{Metrics, Traffic};

/// A data set in Redis. Clones are cheap and share the connections and the known layout.
///
/// Redis answers the commands of a connection in order and serves connections in turn, so that requests on one
/// connection don't wait for those on another.
#[derive(Debug, Clone)]
pub struct Store {
    /// For all requests but writes of visits. Pruning has one slice in flight per server, which delays every connection
    /// equally.
    client: Client,
    /// For single visits.
    visits: Client,
    /// For batches, so that single visits don't wait for their thousands of visits.
    batches: Client,
    acks: WriteAcks,
    /// The required number of partitions; any number if `None`.
    partitions: Option<Partitions>,
    key_names: Arc<KeyNames>,
    /// The window of counts, for which members must be kept; `None` if nothing is counted.
    window: Option<Window>,
    /// Whether Redis is private, so that all its keys belong to this service.
    is_private: bool,
    layout: Arc<ArcSwapOption<KnownLayout>>,
    refusal: Arc<Refusal>,
    /// The maximum number of segments; no limit if `None`.
    segment_limit: Option<Arc<SegmentLimit>>,
    /// The required maximum number of members of a segment; any if `None`.
    max_members: Option<MaxMembers>,
    depths: Arc<Depths>,
}

impl Store {
    /// Returns a store that sends its requests through `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let [visits, batches] = [Traffic::Visits, Traffic::Batches].map(|traffic| client.for_traffic(traffic));
        Self {
            client,
            visits,
            batches,
            acks: WriteAcks::default(),
            partitions: None,
            key_names: Arc::default(),
            window: None,
            is_private: false,
            layout: Arc::default(),
            refusal: Arc::default(),
            segment_limit: None,
            max_members: None,
            depths: Arc::default(),
        }
    }

    /// Sets the prefix of the data set's keys.
    #[must_use]
    pub fn with_key_prefix(self, prefix: KeyPrefix) -> Self {
        let key_names = Arc::new(KeyNames::new(prefix));
        Self { key_names, layout: Arc::default(), refusal: Arc::default(), depths: Arc::default(), ..self }
    }

    /// Sets the minimum time for which members are kept. A data set with a shorter window is extended before it is
    /// used.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        Self { window: Some(window), ..self }
    }

    /// Marks Redis as private, so that its data belongs to this service even without a record.
    #[must_use]
    pub fn on_private_redis(self) -> Self {
        Self { is_private: true, ..self }
    }

    /// Sets the number of partitions. The store refuses a data set with another number, and creates a new one with this
    /// number. If `None`, it accepts any number, and creates one partition on a server and
    /// [`Partitions::CLUSTER_DEFAULT`] on a cluster.
    #[must_use]
    pub fn with_partitions(self, partitions: Option<Partitions>) -> Self {
        Self { partitions, ..self }
    }

    /// Sets the maximum number of members of a segment. The store refuses a data set with another one, and creates a
    /// new one with this one. If `None`, it accepts any, and segments of a new data set keep all members.
    #[must_use]
    pub fn with_max_members(self, max_members: Option<MaxMembers>) -> Self {
        Self { max_members, ..self }
    }

    /// Sets the number of replicas that must have a visit before it is acknowledged.
    #[must_use]
    pub fn with_acks(self, acks: WriteAcks) -> Self {
        Self { acks, ..self }
    }

    /// Sets the maximum number of segments. The store refuses visits to new segments beyond it.
    #[must_use]
    pub fn with_max_segments(self, max: u64) -> Self {
        Self { segment_limit: Some(Arc::new(SegmentLimit::new(max))), ..self }
    }

    /// Returns the prefix of the data set's keys.
    #[must_use]
    pub fn key_prefix(&self) -> &KeyPrefix {
        self.key_names.prefix()
    }

    /// Returns the number of replicas that must have a visit.
    #[must_use]
    pub fn acks(&self) -> WriteAcks {
        self.acks
    }

    /// Whether Redis is a cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.client.is_cluster()
    }

    /// Whether writes of visits are in flight.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.visits.is_busy() || self.batches.is_busy()
    }

    /// Returns the limits of the client.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.client.limits()
    }

    /// Returns the metrics of the client.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.client.metrics()
    }

    /// Logs an error that occurred before a request was sent to Redis.
    pub(crate) fn log_error(&self, error: &Error) {
        self.client.log(error.as_failure());
    }

    /// Checks that every server can serve and that the layout is known.
    ///
    /// # Errors
    ///
    /// As [`Self::time`], and as [`Self::layout`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.time().await?;
        self.check_layout().await
    }

    /// Checks that every server can serve, and returns the time of one in milliseconds. It is always the same server,
    /// so that all instances agree. Returns `None` if an ACL forbids `TIME`. Writes nothing.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a server can't serve. It can't while it loads its data, nor as a replica.
    pub async fn time(&self) -> Result<Option<Timestamp>, Error> {
        self.client.confirm_primary().await;
        let primaries = self.client.primaries().await?;
        let first = self.client.primaries_of(vec![self.layout_slot()]).await?[0];
        let times = join_all(primaries.into_iter().map(|(slot, _)| self.client.ping(slot))).await;
        // One server that can't serve fails the call.
        let times = times.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.client.report_recovery();
        let millis = |(seconds, micros): (i64, i64)| seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
        Ok(times.get(first).copied().flatten().map(|time| Timestamp::from_millis(millis(time))))
    }

    /// Returns the partitions that counts read, grouped by server.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the layout or the servers of the partitions are unknown.
    pub async fn partitions_by_server(&self) -> Result<Vec<Vec<Partition>>, Error> {
        self.group_by_server(self.layout().await?.read()).await
    }

    async fn group_by_server(&self, keys: KeySet) -> Result<Vec<Vec<Partition>>, Error> {
        Ok(self.client.group_by_server(keys.all().collect(), |partition: &Partition| partition.slot()).await?)
    }
}

/// Returns the shard of a user, whose visits share a batch: the number of the user's partition.
#[must_use]
pub fn shard_of(user_id: &UserId<'_>, partitions: Partitions) -> usize {
    partitions.of(partition::hash(user_id.as_str())).into()
}
