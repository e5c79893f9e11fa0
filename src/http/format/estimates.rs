//! Formats numbers of users, which are exact or estimates. An estimate has the sign ≈, and no more digits than its
//! error makes meaningful. An exact number looks as any other.

use std::cmp::Ordering;

use super::number;
use crate::domain::Estimate;

/// Formats a number of users: `1,234,567`, or `≈ 1,230,000` if it is an estimate.
pub fn users(users: Estimate) -> String {
    if users.is_exact() { number(users.count()) } else { format!("≈ {}", number(rounded(users.count()))) }
}

/// Formats a number of users with its noun: `1 user`, `≈ 1,230,000 users`.
pub fn counted_users(count: Estimate) -> String {
    format!("{} {}", users(count), if count.count() == 1 { "user" } else { "users" })
}

/// Formats the error of an estimate: `± 0.8 %`; `None` if the number is exact, or if no user is in the sample.
pub fn error(users: Estimate) -> Option<String> {
    let percent = users.error_95().filter(|error| error.is_finite())? * 100.0;
    Some(match percent {
        percent if percent < 0.05 => "± <0.1 %".to_owned(),
        percent if percent < 9.95 => format!("± {percent:.1} %"),
        percent => format!("± {percent:.0} %"),
    })
}

/// Formats a number of users with its noun and its error: `1 user`, `≈ 1,230,000 users ± 0.8 %`.
pub fn counted_users_with_error(count: Estimate) -> String {
    let users = counted_users(count);
    match error(count) {
        Some(error) => format!("{users} {error}"),
        None => users,
    }
}

/// Formats `part` as a percentage of `whole`: as [`share`](super::share), or `≈ 12.5%` if one of them is an estimate.
pub fn share_of(part: Estimate, whole: Estimate) -> String {
    let share = super::share(part.count(), whole.count());
    if (part.is_exact() && whole.is_exact()) || whole.count() == 0 { share } else { format!("≈ {share}") }
}

/// Formats a change: `down 217 (-5.2%)`, `up ≈ 41,200 (+0.9%)`, `unchanged`, `unchanged within the error`.
pub fn change(before: Estimate, after: Estimate) -> String {
    let difference = before.difference(after);
    let direction = match after.count().cmp(&before.count()) {
        _ if !difference.exceeds_error() => return "unchanged within the error".to_owned(),
        Ordering::Less => "down",
        Ordering::Equal => return "unchanged".to_owned(),
        Ordering::Greater => "up",
    };
    let (before, after) = (before.count() as f64, after.count() as f64);
    let relative = (after - before) / before;
    let percent = if before > 0.0 { format!(" ({})", super::relative_change(relative)) } else { String::new() };
    format!("{direction} {}{percent}", users(difference))
}

/// Rounds to three significant digits. The error of an estimate is seldom less than a thousandth.
fn rounded(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(2));
    let down = number - number % unit;
    if number % unit >= unit.div_ceil(2) { down.saturating_add(unit) } else { down }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Depth;

    fn estimate(kept: u64, depth: u8) -> Estimate {
        Estimate::sampled(kept, Depth::from_number(depth).unwrap())
    }

    #[rstest]
    #[case::none(0, 0)]
    #[case::few(7, 7)]
    #[case::three_digits(896, 896)]
    #[case::down(4_779_904, 4_780_000)]
    #[case::up(1_235_000, 1_240_000)]
    #[case::just_below(1_234_999, 1_230_000)]
    #[case::carry(999_600, 1_000_000)]
    #[case::max(u64::MAX, 18_400_000_000_000_000_000)]
    fn rounded_has_three_digits(#[case] number: u64, #[case] expected: u64) {
        assert_eq!(rounded(number), expected);
    }

    #[test]
    fn exact_numbers_have_no_sign() {
        let exact = Estimate::exact(1_234_567);
        assert_eq!((users(exact), error(exact)), ("1,234,567".into(), None));
        assert_eq!(counted_users_with_error(exact), "1,234,567 users");
        assert_eq!([0, 1, 2].map(|count| counted_users(count.into())), ["0 users", "1 user", "2 users"]);
        assert_eq!(share_of(1.into(), 8.into()), "12.5%");
    }

    #[test]
    fn estimates_have_a_sign_and_three_digits() {
        let estimate = estimate(37_343, 7);
        assert_eq!(users(estimate), "≈ 4,780,000");
        assert_eq!(counted_users(estimate), "≈ 4,780,000 users");
        assert_eq!(counted_users_with_error(estimate), "≈ 4,780,000 users ± 1.0 %");
    }

    #[rstest]
    #[case::tiny(1 << 23, 1, "± <0.1 %")]
    #[case::small(65_536, 7, "± 0.8 %")]
    #[case::large(100, 7, "± 20 %")]
    #[case::beyond_the_number(1, 7, "± 195 %")]
    fn error_has_two_digits(#[case] kept: u64, #[case] depth: u8, #[case] expected: &str) {
        assert_eq!(error(estimate(kept, depth)).unwrap(), expected);
    }

    #[test]
    fn empty_sample_has_no_error() {
        let nobody = estimate(0, 7);
        assert_eq!((counted_users_with_error(nobody), share_of(nobody, nobody)), ("≈ 0 users".into(), "–".into()));
    }

    #[rstest]
    #[case::part(100, 800, "≈ 12.5%")]
    #[case::none(0, 800, "≈ 0%")]
    #[case::all(800, 800, "≈ 100%")]
    fn share_of_estimates_has_a_sign(#[case] part: u64, #[case] whole: u64, #[case] expected: &str) {
        assert_eq!(share_of(estimate(part, 7), estimate(whole, 7)), expected);
    }

    #[rstest]
    #[case::within(40_000, 40_100, "unchanged within the error")]
    #[case::equal(40_000, 40_000, "unchanged within the error")]
    #[case::growth(40_000, 44_000, "up ≈ 512,000 (+10.0%)")]
    #[case::decline(40_000, 36_000, "down ≈ 512,000 (-10.0%)")]
    #[case::from_nobody(0, 40_000, "up ≈ 5,120,000")]
    fn change_of_estimates_must_exceed_the_error(#[case] before: u64, #[case] after: u64, #[case] expected: &str) {
        assert_eq!(change(estimate(before, 7), estimate(after, 7)), expected);
    }
}
