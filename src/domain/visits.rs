//! Visits of one user at one time, to one segment or to several.

use std::borrow::Cow;

use super::{FieldError, SegmentName, Timestamp, UserId, Visit};

/// The segments of [`Visits`]. Borrows from the text that it was parsed from, or owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segments<'a> {
    /// The member `segment`. Nearly all visits have it, and it needs no allocation.
    One(SegmentName<'a>),
    /// The member `segments`: 1 to [`Self::MAX`] names, which may be repeated.
    List(Box<[SegmentName<'a>]>),
}

impl<'a> Segments<'a> {
    /// The most names in a list.
    pub const MAX: usize = 100;

    /// Returns the names in their order. There is at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[SegmentName<'a>] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::List(names) => names,
        }
    }

    /// Copies borrowed names.
    #[must_use]
    pub fn into_owned(self) -> Segments<'static> {
        match self {
            Self::One(name) => Segments::One(name.into_owned()),
            Self::List(names) => Segments::List(names.into_iter().map(SegmentName::into_owned).collect()),
        }
    }

    /// Returns the member of the JSON that has the name at `index`: `segment`, or `segments[3]`.
    #[must_use]
    pub fn field(&self, index: usize) -> Cow<'static, str> {
        match self {
            Self::One(_) => "segment".into(),
            Self::List(_) => Self::field_in_list(index),
        }
    }

    /// Returns the member of the JSON that has the name at `index` of a list.
    #[must_use]
    pub fn field_in_list(index: usize) -> Cow<'static, str> {
        format!("segments[{index}]").into()
    }
}

/// A user was seen in one or several segments. Each segment is a visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visits<'a> {
    /// The user.
    pub user_id: UserId<'a>,
    /// The segments.
    pub segments: Segments<'a>,
    /// The time of the visits, never later than their arrival.
    pub seen_at: Timestamp,
}

impl<'a> Visits<'a> {
    /// Creates visits that arrive at `now`, by the rules of [`Visit::new`].
    ///
    /// # Errors
    ///
    /// A [`FieldError`] for `seen_at` if it is too far ahead.
    pub fn new(
        user_id: UserId<'a>,
        segments: Segments<'a>,
        seen_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, FieldError> {
        Ok(Self { user_id, segments, seen_at: Visit::time_of_arrival(seen_at, now)? })
    }

    /// Copies borrowed parts.
    #[must_use]
    pub fn into_owned(self) -> Visits<'static> {
        let Self { user_id, segments, seen_at } = self;
        Visits { user_id: user_id.into_owned(), segments: segments.into_owned(), seen_at }
    }

    /// Returns a copy of each visit, in the order of the segments.
    pub fn each(&self) -> impl Iterator<Item = Visit<'static>> {
        let visit = |segment: &SegmentName<'_>| {
            let (user_id, segment) = (self.user_id.clone().into_owned(), segment.clone().into_owned());
            Visit { user_id, segment, seen_at: self.seen_at }
        };
        self.segments.as_slice().iter().map(visit)
    }
}
