//! The text of a count in a history and in a change record.

use crate::domain::Estimate;

/// Returns the count as digits. If it is an estimate, `~` and the relative error with 95 % confidence follow, with six
/// digits: `4779904~0.010103`.
pub(in crate::store) fn count_text(count: Estimate) -> String {
    if count.is_exact() {
        count.count().to_string()
    } else {
        format!("{}~{:.6}", count.count(), count.error_95().unwrap_or_default())
    }
}

/// Parses what [`count_text`] returns.
pub(in crate::store) fn parse_count(text: &[u8]) -> Option<Estimate> {
    let text = str::from_utf8(text).ok()?;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match text.split_once('~') {
        None => number(text).map(Estimate::exact),
        Some((count, error)) => {
            let error: f64 = error.parse().ok().filter(|error: &f64| error.is_finite() && *error >= 0.0)?;
            Some(Estimate::with_error(number(count)?, error))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Depth;

    #[rstest]
    #[case::exact(Estimate::exact(4_178), "4178")]
    #[case::sampled(Estimate::sampled(37_343, Depth::from_number(7).unwrap()), "4779904~0.010103")]
    #[case::empty_sample(Estimate::sampled(0, Depth::from_number(7).unwrap()), "0~0.000000")]
    fn parse_count_reads_what_count_text_writes(#[case] count: Estimate, #[case] text: &str) {
        assert_eq!(count_text(count), text);
        let parsed = parse_count(text.as_bytes()).unwrap();
        assert_eq!(
            (parsed.count(), parsed.is_exact(), count_text(parsed)),
            (count.count(), count.is_exact(), text.into())
        );
    }

    #[rstest]
    #[case::empty("")]
    #[case::negative("-1")]
    #[case::signed("+1")]
    #[case::no_error("1~")]
    #[case::endless("1~inf")]
    #[case::negative_error("1~-0.1")]
    fn parse_count_refuses_other_texts(#[case] text: &str) {
        assert_eq!(parse_count(text.as_bytes()), None);
    }
}
