//! Counts of users by the set of segments that they are in.

/// For each set of segments, the number of users who are in exactly these. A set is a bit mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskCounts {
    counts: Vec<u64>,
}

impl MaskCounts {
    /// Creates counts of zero.
    pub fn new(segments: usize) -> Self {
        Self { counts: vec![0; 1 << segments] }
    }

    /// Sets all counts to zero.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// Adds the counts of other users.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
    }

    /// Counts a user in the segments of `mask`.
    pub fn add_user(&mut self, mask: u8) {
        self.counts[usize::from(mask)] += 1;
    }

    /// Moves a user from the segments of `before` to those of `after`.
    pub fn move_user(&mut self, before: u8, after: u8) {
        self.counts[usize::from(before)] -= 1;
        self.counts[usize::from(after)] += 1;
    }

    /// Returns the number of users in exactly the segments of each mask.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}
