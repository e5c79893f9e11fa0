//! A member, and positions in the order of members.

use crate::domain::{Score, Timestamp, UserId};

/// A position after a member of a segment.
#[derive(Debug, Clone)]
pub struct MembersCursor {
    pub(super) last: Member,
    /// The rank of the next member, unless members changed.
    pub(super) rank: usize,
}

/// A member of a segment. Members are in the order of Redis: by score, then by the bytes of the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The time of the last visit.
    pub score: Score,
    /// The name, which is a user's id if this service wrote it.
    pub name: Vec<u8>,
}

impl Member {
    /// Returns the position after all members that were seen at `time`.
    #[must_use]
    pub fn last_at(time: Timestamp) -> Self {
        // No UTF-8 text begins with this byte.
        Self { score: time.into(), name: vec![u8::MAX] }
    }

    /// Returns a position before all members after it, once a resharding has rounded their scores to milliseconds.
    #[must_use]
    pub fn before_rounding(self) -> Self {
        if self.score.is_whole_millis() {
            self
        } else {
            Self { score: self.score.timestamp().into(), name: Vec::new() }
        }
    }

    /// Returns the user; `None` if the name is not a valid id.
    #[must_use]
    pub fn into_user(self) -> Option<UserId<'static>> {
        UserId::parse(String::from_utf8(self.name).ok()?).ok()
    }

    pub(super) fn from_pair((name, seconds): (Vec<u8>, f64)) -> Self {
        Self { score: Score::from_unix_seconds(seconds), name }
    }

    /// Converts it to a user and a time; `None` if it is not a valid user.
    pub(super) fn into_visit(self) -> Option<(UserId<'static>, Timestamp)> {
        let last_seen = self.score.timestamp();
        Some((self.into_user()?, last_seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(seconds: f64, name: &str) -> Member {
        Member { score: Score::from_unix_seconds(seconds), name: name.into() }
    }

    #[test]
    fn before_rounding_precedes_the_later_members_once_they_are_rounded() {
        let rounded = |member: Member| Member { score: member.score.timestamp().into(), ..member };
        for (last, later) in [
            (member(7.000_1, "u2"), member(7.000_1, "u3")),
            (member(7.000_1, "u2"), member(7.000_2, "u1")),
            (member(7.000_6, "u2"), member(7.001, "u1")),
            (member(7.0, "u2"), member(7.0, "u3")),
        ] {
            assert!(last < later && last.clone().before_rounding() < rounded(later.clone()), "{last:?} {later:?}");
        }
        assert_eq!(member(7.0, "u2").before_rounding(), member(7.0, "u2"));
    }
}
