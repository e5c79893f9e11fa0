//! The slots of a cluster.

use crc::{CRC_16_XMODEM, Crc};

/// One of the 16,384 slots that a cluster's servers share out among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(crate) u16);

impl Slot {
    pub(crate) const COUNT: u16 = 16_384;

    /// The slot of a key without braces, or of what stands in them. The
    /// [specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model) names
    /// the checksum: CRC16, XMODEM.
    pub(crate) fn of_key(text: &str) -> Self {
        const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
        Self(CRC16.checksum(text.as_bytes()) % Self::COUNT)
    }

    /// The slot of a key that may have any braces in it: if there is something in the first, that alone decides.
    pub(crate) fn of_any_key(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        Self::of_key(tag.filter(|tag| !tag.is_empty()).unwrap_or(key))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The first is the specification's.
    #[rstest]
    #[case("123456789", 12_739)]
    #[case("foo", 12_182)]
    fn a_slot_is_what_redis_says_it_is(#[case] text: &str, #[case] slot: u16) {
        assert_eq!(Slot::of_key(text), Slot(slot));
    }

    #[rstest]
    #[case("history:sports", "history:sports")]
    #[case("history:{a}b{c}", "a")]
    #[case("history:{{a}}", "{a")]
    #[case("history:{}a{b}", "history:{}a{b}")]
    #[case("history:}a{", "history:}a{")]
    fn braces_in_a_name_decide_its_slot(#[case] key: &str, #[case] what_counts: &str) {
        assert_eq!(Slot::of_any_key(key), Slot::of_key(what_counts));
    }
}
