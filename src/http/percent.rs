//! Percent-encoding (RFC 3986, section 2.1).

/// Encodes all characters of `text` but the unreserved ones, for a path or a query.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Returns whether `text` is UTF-8 when it is decoded. Invalid sequences such as `%zz` stand for themselves, as in the
/// URL standard of WHATWG.
pub fn decodes_to_utf8(text: &str) -> bool {
    // Fast path for nearly every query.
    if !text.contains('%') {
        return true;
    }
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk().filter(|_| *first == b'%').and_then(byte);
        decoded.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(decoded).is_ok()
}

fn byte(digits: &[u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? << 4 | low?).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("segment=sports", true)]
    #[case::escaped("segment=gr%C3%B6%c3%9fe", true)]
    #[case::invalid("segment=%FF", false)]
    #[case::half_a_character("segment=%C3", false)]
    #[case::no_escape("segment=%zz&b=100%&c=%4", true)]
    #[case::surrogate("%ED%A0%80", false)]
    fn decodes_to_utf8_reads_escapes(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(decodes_to_utf8(text), expected);
    }
}
