//! The slots of a cluster.

use crc::{CRC_16_XMODEM, Crc};

/// One of the 16,384 slots of a cluster. Each belongs to one primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(crate) u16);

impl Slot {
    pub(crate) const COUNT: u16 = 16_384;

    /// Returns the slot of a key without braces, or of a hash tag. The
    /// [specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model)
    /// names the checksum: CRC16/XMODEM.
    pub(crate) fn of_key(text: &str) -> Self {
        const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
        Self(CRC16.checksum(text.as_bytes()) % Self::COUNT)
    }

    /// Returns the slot of any key. If the first braces are not empty, their content alone decides.
    pub(crate) fn of_any_key(key: &str) -> Self {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
        Self::of_key(tag.filter(|tag| !tag.is_empty()).unwrap_or(key))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::example_of_the_specification("123456789", 12_739)]
    #[case::answer_of_redis("foo", 12_182)]
    fn of_key_agrees_with_redis(#[case] text: &str, #[case] slot: u16) {
        assert_eq!(Slot::of_key(text), Slot(slot));
    }

    #[rstest]
    #[case::no_braces("history:sports", "history:sports")]
    #[case::first_of_two("history:{a}b{c}", "a")]
    #[case::nested("history:{{a}}", "{a")]
    #[case::first_is_empty("history:{}a{b}", "history:{}a{b}")]
    #[case::wrong_order("history:}a{", "history:}a{")]
    fn of_any_key_hashes_the_first_tag(#[case] key: &str, #[case] hashed: &str) {
        assert_eq!(Slot::of_any_key(key), Slot::of_key(hashed));
    }
}
