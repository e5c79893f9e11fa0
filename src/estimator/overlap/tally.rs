//! Users by the segments that they are in, and what that says of the segments.

/// How many users several segments have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Users in one of the segments at the least.
    pub any: u64,
    /// Users in all of them.
    pub all: u64,
    /// Users in each, in the order in which they were asked for.
    pub counts: Vec<u64>,
    /// Users in both of two, of each two.
    pub pairs: Vec<Pair>,
}

/// How many users two segments have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The place of the one that was asked for earlier.
    pub first: usize,
    /// The place of the other.
    pub second: usize,
    /// Users in both.
    pub both: u64,
}

/// How many users there are in exactly which segments: by the mask of the segments, bit by bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    users: Vec<u64>,
    segments: usize,
}

impl Tally {
    /// Nobody in so many segments.
    pub fn new(segments: usize) -> Self {
        Self { users: vec![0; 1 << segments], segments }
    }

    /// Adds other users.
    pub fn add(&mut self, other: &Self) {
        for (sum, users) in self.users.iter_mut().zip(&other.users) {
            *sum += users;
        }
    }

    pub fn add_one(&mut self, mask: u8) {
        self.users[usize::from(mask)] += 1;
    }

    pub fn segments(&self) -> usize {
        self.segments
    }

    pub fn move_one(&mut self, before: u8, after: u8) {
        self.users[usize::from(before)] -= 1;
        self.users[usize::from(after)] += 1;
    }

    /// What it says of the segments.
    pub fn overlap(&self) -> Overlap {
        let in_all_of = |mask: usize| {
            let users = self.users.iter().enumerate().filter(|(segments, _)| segments & mask == mask);
            users.map(|(_, users)| users).sum()
        };
        let pairs = (0..self.segments).flat_map(|first| (first + 1..self.segments).map(move |second| (first, second)));
        Overlap {
            any: self.users.iter().sum(),
            all: in_all_of(self.users.len() - 1),
            counts: (0..self.segments).map(|place| in_all_of(1 << place)).collect(),
            pairs: pairs
                .map(|(first, second)| Pair { first, second, both: in_all_of(1 << first | 1 << second) })
                .collect(),
        }
    }
}
