//! The rule by which an audience selects users.

use crate::domain::{Estimate, SegmentName};

/// The segments of an audience, all different: its users are in all of `all`, in at least one of `any` unless that is
/// empty, and in none of `none`. One of `all` and `any` has a segment: users in no segment are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Users must be in each of these.
    pub all: Vec<SegmentName<'static>>,
    /// Users must be in one of these.
    pub any: Vec<SegmentName<'static>>,
    /// Users must be in none of these.
    pub none: Vec<SegmentName<'static>>,
}

/// How many users an audience has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudienceCount {
    /// Users in the audience.
    pub count: Estimate,
    /// Users in each segment, in the order of [`Audience::segments`].
    pub counts: Vec<Estimate>,
    /// Those of them who are in the audience.
    pub counts_within: Vec<Estimate>,
}

impl Audience {
    /// Returns all segments: those of `all`, of `any` and of `none`. The index of each is its bit in a mask.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentName<'static>> {
        [&self.all, &self.any, &self.none].into_iter().flatten()
    }

    /// Returns whether a user in exactly the segments of `mask` belongs to the audience.
    pub(super) fn includes(&self, mask: usize) -> bool {
        let bits = |before: usize, count: usize| ((1 << count) - 1) << before;
        let (all, any) = (self.all.len(), self.any.len());
        let (in_all, in_any) = (bits(0, all), bits(all, any));
        let in_none = bits(all + any, self.none.len());
        mask & in_all == in_all && (any == 0 || mask & in_any != 0) && mask & in_none == 0
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::all(2, 0, 0, &[0b11])]
    #[case::any(0, 2, 0, &[0b01, 0b10, 0b11])]
    #[case::all_and_any(1, 2, 0, &[0b011, 0b101, 0b111])]
    #[case::all_and_none(1, 0, 1, &[0b01])]
    #[case::any_and_none(0, 2, 1, &[0b001, 0b010, 0b011])]
    #[case::all_any_and_none(1, 1, 1, &[0b011])]
    fn includes_the_masks_of_the_users_selected(
        #[case] all: usize,
        #[case] any: usize,
        #[case] none: usize,
        #[case] masks: &[usize],
    ) {
        let names = |count| (0..count).map(|n| SegmentName::parse(format!("s{n}")).unwrap()).collect();
        let audience = Audience { all: names(all), any: names(any), none: names(none) };
        let included: Vec<_> = (1..1 << (all + any + none)).filter(|&mask| audience.includes(mask)).collect();
        assert_eq!(included, masks);
    }
}
