//! How the data set is laid out: which keys it has, and whether it is on its way to others.
//!
//! The record is one text, in the key `layout` and, so that every exchange can look at it where it is, once more in each
//! partition. Whoever writes or counts goes by the layout that he knows, and has the partition's record read *behind* what he
//! does, in the same pipeline. Is it the one that he went by, then it was in force when the server did what was asked, and all
//! is well. Is it another, he reads `layout` again and does his work once more: whatever is written may be written twice.
//!
//! So a step of a move is in force as soon as it stands in every partition: who went by the step before has his answer, or does
//! his work again. `layout` is written first, so that nobody finds a newer record in a partition than there. Steps that follow
//! each other may be in force at the same time, in one service and another; that is what [`Phase`] is made of.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{Value, pipe};
use serde::{Deserialize, Serialize};

use super::keys::{Keyspace, Partition, Partitions, Slot};
use super::{Error, Store};

/// The key of the record.
pub(super) const LAYOUT_KEY: &str = "layout";

/// Which keys the data set has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Counts the changes.
    epoch: u64,
    keys: Keyspace,
    #[serde(rename = "move", skip_serializing_if = "Option::is_none")]
    moving: Option<Move>,
}

/// A move to other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// To these.
    pub to: Keyspace,
    /// How far it is.
    pub phase: Phase,
}

/// How far a move to other keys is. Before the first everybody reads and writes the old keys, after the last the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Visits are written to both, counts are of the old. What is there already is copied meanwhile.
    Copying,
    /// Visits are written to both, for those who count the old still; counts are of the new, which have everything.
    Switched,
    /// Nobody looks at the old any more, and they are deleted.
    Cleaning,
}

impl Layout {
    /// The layout of a data set that is made now.
    pub(super) fn first(partitions: Partitions) -> Self {
        Self { epoch: 1, keys: Keyspace::first(partitions), moving: None }
    }

    /// The next step of this one.
    pub(super) fn next(&self, keys: Keyspace, moving: Option<Move>) -> Self {
        Self { epoch: self.epoch + 1, keys, moving }
    }

    /// The keys that it had before a move, if there is one, and those that it has if not.
    #[must_use]
    pub fn keys(&self) -> Keyspace {
        self.keys
    }

    /// The move that is under way.
    #[must_use]
    pub fn moving(&self) -> Option<Move> {
        self.moving
    }

    /// The keys that counts are of.
    #[must_use]
    pub fn read(&self) -> Keyspace {
        match self.moving {
            Some(Move { to, phase: Phase::Switched | Phase::Cleaning }) => to,
            Some(Move { phase: Phase::Copying, .. }) | None => self.keys,
        }
    }

    /// The keys that visits are written to: one set of them, or two.
    pub fn written(&self) -> impl Iterator<Item = Keyspace> {
        let read = self.read();
        let other = match self.moving {
            Some(Move { to, phase: Phase::Copying }) => Some(to),
            Some(Move { phase: Phase::Switched, .. }) => Some(self.keys),
            Some(Move { phase: Phase::Cleaning, .. }) | None => None,
        };
        [read].into_iter().chain(other)
    }

    /// All keys that it has, or is about to have. Those that are being deleted are nobody's.
    pub(super) fn in_use(&self) -> impl Iterator<Item = Keyspace> {
        let is_deleted = matches!(self.moving, Some(Move { phase: Phase::Cleaning, .. }));
        [self.keys].into_iter().filter(move |_| !is_deleted).chain(self.moving.map(|moving| moving.to))
    }

    /// How many changes there were before it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// As it is recorded.
    pub(super) fn record(&self) -> String {
        serde_json::to_string(self).expect("it is made of numbers and texts")
    }

    fn read_record(record: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(record).map_err(|_| Error::UnknownLayout)
    }

    /// Refuses it if the operator expects another number of partitions.
    fn check(&self, expected: Option<Partitions>) -> Result<(), Error> {
        let mut all = [self.keys].into_iter().chain(self.moving.map(|moving| moving.to));
        let mut is_expected = |expected| all.any(|keys| keys.partitions() == expected);
        match expected {
            Some(set) if !is_expected(set) => Err(Error::Partitions { recorded: self.read().partitions(), set }),
            _ => Ok(()),
        }
    }
}

/// A layout, and its record, which is compared at every exchange.
#[derive(Debug)]
pub(super) struct KnownLayout {
    pub(super) layout: Layout,
    record: Vec<u8>,
}

impl KnownLayout {
    pub(super) fn new(layout: Layout) -> Self {
        let record = layout.record().into_bytes();
        Self { layout, record }
    }

    /// Whether what a partition has in the place of the record, and which `answer` gives, is this one.
    pub(super) fn is_confirmed_by(&self, answer: &Value) -> bool {
        matches!(answer, Value::BulkString(record) if *record == self.record)
    }
}

/// What may be answered or has to be done again.
pub(super) enum Attempt<T> {
    /// The layout was in force all the while.
    Done(T),
    /// It was another.
    Outdated,
}

impl Store {
    /// The layout changes four times in a move, which takes minutes. Who finds another one more often than this meets something
    /// else.
    const ATTEMPTS: usize = 10;

    /// The layout, as far as this service knows. What goes by it must look at a partition's record at its end.
    ///
    /// # Errors
    ///
    /// An [`Error`] when it isn't known and Redis doesn't tell, or is another than is set.
    pub async fn layout(&self) -> Result<Layout, Error> {
        self.known_layout().await.map(|known| known.layout.clone())
    }

    pub(super) async fn known_layout(&self) -> Result<Arc<KnownLayout>, Error> {
        match self.layout.load_full() {
            Some(known) => Ok(known),
            None => self.read_layout().await,
        }
    }

    /// How many partitions there are, if that is known by now.
    #[must_use]
    pub fn partitions(&self) -> Option<Partitions> {
        self.layout.load().as_ref().map(|known| known.layout.read().partitions())
    }

    /// Sees that the layout is known, and is the one that is recorded. The number of partitions that is set is compared with the
    /// first that is found: later, the data may be moved.
    ///
    /// # Errors
    ///
    /// As [`Self::layout`].
    pub(crate) async fn check_layout(&self) -> Result<(), Error> {
        let known = self.layout.load_full();
        match self.recorded_layout().await? {
            Some(recorded) if known.is_some_and(|known| known.layout == recorded) => Ok(()),
            _ => self.read_layout().await.map(drop),
        }
    }

    /// Does `attempt` by the layout that is known, and again by the one that is in force as long as that is another.
    pub(super) async fn by_layout<T, F>(&self, attempt: impl Fn(Arc<KnownLayout>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Attempt<T>, Error>>,
    {
        let mut known = self.known_layout().await?;
        for _ in 0..Self::ATTEMPTS {
            match attempt(known).await? {
                Attempt::Done(done) => return Ok(done),
                Attempt::Outdated => known = self.read_layout().await?,
            }
        }
        Err(Error::UnknownLayout)
    }

    /// Reads the record, or makes it if there is none, and sees that those partitions have it whose servers answer.
    pub(super) async fn read_layout(&self) -> Result<Arc<KnownLayout>, Error> {
        let layout = self.find_layout().await.inspect_err(|error| {
            if error.is_of_the_layout() {
                self.connection.count_failure(error);
            }
        })?;
        let known = Arc::new(KnownLayout::new(layout));
        self.layout.store(Some(Arc::clone(&known)));
        Ok(known)
    }

    async fn find_layout(&self) -> Result<Layout, Error> {
        for _ in 0..Self::ATTEMPTS {
            let layout = match self.recorded_layout().await? {
                Some(layout) => layout,
                None => self.make_layout().await?,
            };
            if self.layout.load().is_none() {
                layout.check(self.partitions)?;
            }
            // A server that was replaced by one that lagged behind has forgotten steps that were taken. Others have not.
            let elsewhere = self.layout_in_partitions().await.filter(|other| other.epoch > layout.epoch);
            let newer = match elsewhere {
                Some(newer) => newer,
                // A partition has none, or an older one, when whoever changed it didn't get that far, and when its server has lost data.
                None => {
                    let others = self.record_in_partitions(&layout).await.into_iter().filter_map(Result::ok).flatten();
                    let Some(newer) = others.max_by_key(|other| other.epoch) else { return Ok(layout) };
                    newer
                }
            };
            self.record_at(LAYOUT_KEY, Slot::of_key(LAYOUT_KEY), &newer).await?;
        }
        Err(Error::UnknownLayout)
    }

    /// The layout that stands in Redis.
    pub(super) async fn recorded_layout(&self) -> Result<Option<Layout>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(LAYOUT_KEY);
        let (record,): (Option<Vec<u8>>,) = self.connection.query(Slot::of_key(LAYOUT_KEY), pipeline).await?;
        record.map(|record| Layout::read_record(&record)).transpose()
    }

    /// Records the first layout of a data set, unless somebody else is faster, and gives the one that counts.
    async fn make_layout(&self) -> Result<Layout, Error> {
        let layout = match (self.layout_in_partitions().await, self.layout.load_full()) {
            (Some(layout), _) => layout,
            // Redis has forgotten all. It goes on as it was.
            (None, Some(known)) => known.layout.clone(),
            (None, None) => Layout::first(self.partitions_of_a_new_set().await?),
        };
        let mut pipeline = pipe();
        pipeline.cmd("SET").arg(LAYOUT_KEY).arg(layout.record()).arg("NX");
        pipeline.cmd("GET").arg(LAYOUT_KEY);
        let (_, record): (Value, Option<Vec<u8>>) = self.connection.query(Slot::of_key(LAYOUT_KEY), pipeline).await?;
        record.map_or(Err(Error::UnknownLayout), |record| Layout::read_record(&record))
    }

    /// The latest layout that partitions tell, whatever their number is: each has a first one. Whose server is away tells nothing, and
    /// one server has lost all records, or none.
    async fn layout_in_partitions(&self) -> Option<Layout> {
        if !self.connection.is_cluster() {
            return None;
        }
        let each = Partition::firsts().map(|partition| async move {
            let mut pipeline = pipe();
            pipeline.cmd("GET").arg(partition.layout_key());
            let record = self.connection.query::<(Option<Vec<u8>>,)>(partition.slot(), pipeline).await.ok()?.0?;
            Layout::read_record(&record).ok()
        });
        join_all(each).await.into_iter().flatten().max_by_key(|layout| layout.epoch)
    }

    /// How many partitions the data set has; none if there is no data set. Nothing is written.
    ///
    /// # Errors
    ///
    /// As [`Self::layout`].
    pub async fn recorded_partitions(&self) -> Result<Option<Partitions>, Error> {
        let layout = match self.recorded_layout().await? {
            Some(layout) => layout,
            None if self.has_plain_keys().await? => Layout::first(Partitions::ONE),
            None => return Ok(None),
        };
        layout.check(self.partitions)?;
        Ok(Some(layout.read().partitions()))
    }

    /// How many partitions a data set without a record has, or shall have: what is set, or what fits the servers.
    pub(super) async fn partitions_of_a_new_set(&self) -> Result<Partitions, Error> {
        Ok(match self.partitions {
            _ if self.has_plain_keys().await? => Partitions::ONE,
            Some(set) => set,
            None if self.connection.is_cluster() => Partitions::OF_A_CLUSTER,
            None => Partitions::ONE,
        })
    }

    /// Whether there is a data set of one partition. There was no record before there were more.
    async fn has_plain_keys(&self) -> Result<bool, Error> {
        // A cluster can't keep these together.
        if self.connection.is_cluster() {
            return Ok(false);
        }
        let index = Keyspace::first(Partitions::ONE).of(0).index_key();
        let mut pipeline = pipe();
        pipeline.cmd("EXISTS").arg(&index);
        let (exists,) = self.connection.query(Slot::of_key(&index), pipeline).await?;
        Ok(exists)
    }

    /// Sees that the partitions of all keys of `layout` have its record, or a newer one, which is given then.
    pub(super) async fn record_in_partitions(&self, layout: &Layout) -> Vec<Result<Option<Layout>, Error>> {
        let each = layout.in_use().flat_map(Keyspace::all);
        let each = each
            .map(|partition| async move { self.record_at(&partition.layout_key(), partition.slot(), layout).await });
        join_all(each).await
    }

    /// Writes the record of `layout` into `key`, unless there is another that is not older, which is given then.
    pub(super) async fn record_at(&self, key: &str, slot: Slot, layout: &Layout) -> Result<Option<Layout>, Error> {
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(RECORD_UNLESS_NEWER).arg(1).arg(key);
        script.arg(layout.record()).arg(layout.epoch);
        let (other,): (Option<Vec<u8>>,) = self.connection.query(slot, pipeline).await?;
        other.map(|record| Layout::read_record(&record)).transpose()
    }
}

/// Writes the record `ARGV[1]`, whose epoch is `ARGV[2]`, unless there is another that is not older, which is the answer then.
const RECORD_UNLESS_NEWER: &str = "\
local known = redis.call('GET', KEYS[1])
if known == ARGV[1] then return false end
if known and cjson.decode(known).epoch >= tonumber(ARGV[2]) then return known end
redis.call('SET', KEYS[1], ARGV[1])
return false";
