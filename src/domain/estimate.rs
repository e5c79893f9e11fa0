//! A number of users, exact or estimated from a sample.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use super::sampling::Depth;

/// A number of users. It is exact, or estimated from a hash sample, with a known error.
///
/// A sample of depth k keeps each user with the probability p = 2^-k, independently of the others. The estimate of N
/// users from n kept ones is n / p, which is unbiased. Its variance is N (1 - p) / p = N (2^k - 1). The variance of the
/// binomial distribution gives this; see Flajolet, "On adaptive sampling", Computing 43 (1990).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    count: u64,
    /// The number of users that the estimate was made from.
    kept: u64,
    variance: f64,
    is_sampled: bool,
}

impl Estimate {
    /// 95 % of the values of a normal distribution lie within so many standard deviations.
    const DEVIATIONS_95: f64 = 1.96;

    /// Returns an exact number.
    #[must_use]
    pub const fn exact(count: u64) -> Self {
        Self { count, kept: count, variance: 0.0, is_sampled: false }
    }

    /// Returns the estimate from `kept` users of a sample of `depth`. It is exact at depth 0.
    #[must_use]
    pub fn sampled(kept: u64, depth: Depth) -> Self {
        let count = kept.saturating_mul(depth.weight());
        let variance = count as f64 * (depth.weight() - 1) as f64;
        Self { count, kept, variance, is_sampled: depth != Depth::ZERO }
    }

    /// Returns the estimate `count` that was stored with its [`Self::error_95`].
    #[must_use]
    pub fn with_error(count: u64, error_95: f64) -> Self {
        let deviation = error_95 * count as f64 / Self::DEVIATIONS_95;
        let variance = deviation * deviation;
        // The variance of N users at depth k is N (2^k - 1).
        let users = count as f64;
        let kept = if count == 0 { 0 } else { (users / (variance / users + 1.0)).round() as u64 };
        Self { count, kept, variance, is_sampled: true }
    }

    /// Returns the number of users.
    #[must_use]
    pub fn count(self) -> u64 {
        self.count
    }

    /// Whether the number is exact.
    #[must_use]
    pub fn is_exact(self) -> bool {
        !self.is_sampled
    }

    /// Returns the variance of the number; 0 if it is exact.
    #[must_use]
    pub fn variance(self) -> f64 {
        self.variance
    }

    /// Returns the number of users that the estimate was made from.
    #[must_use]
    pub fn sample_size(self) -> u64 {
        self.kept
    }

    /// Returns 1.96 relative standard errors: 95 % of estimates differ by less than this share of the estimate from the
    /// truth. `None` if the number is exact, and if no user is in the sample.
    #[must_use]
    pub fn error_95(self) -> Option<f64> {
        (self.count > 0 && self.variance > 0.0).then(|| self.deviations_95() / self.count as f64)
    }

    /// Returns 1.96 standard errors in users: 95 % of estimates differ by less than that from the truth. `None` if the
    /// number is exact.
    #[must_use]
    pub fn absolute_error_95(self) -> Option<u64> {
        self.is_sampled.then(|| self.deviations_95().round() as u64)
    }

    fn deviations_95(self) -> f64 {
        Self::DEVIATIONS_95 * self.variance.sqrt()
    }

    /// Returns these users without `part` of them, as two samples of the same depth count them.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        Self {
            count: self.count.saturating_sub(part.count),
            kept: self.kept.saturating_sub(part.kept),
            variance: (self.variance - part.variance).max(0.0),
            is_sampled: self.is_sampled || part.is_sampled,
        }
    }

    /// Returns the difference of two numbers, without its sign. Its error is that of independent samples. Two samples
    /// of a segment share users, so that the true error is smaller.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self { count: self.count.abs_diff(other.count), ..self + other }
    }

    /// Whether the number is larger than 1.96 of its standard errors.
    #[must_use]
    pub fn exceeds_error(self) -> bool {
        self.is_exact() || self.count as f64 > self.deviations_95()
    }
}

// A variance is never NaN.
impl Eq for Estimate {}

/// Formats the number, and the error of an estimate in percent: `4779904 ± 1.0 %`.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        self.error_95().map_or(Ok(()), |error| write!(f, " ± {:.1} %", 100.0 * error))
    }
}

/// An estimate from a sample equals no number.
impl PartialEq<u64> for Estimate {
    fn eq(&self, count: &u64) -> bool {
        self.is_exact() && self.count == *count
    }
}

impl From<u64> for Estimate {
    fn from(count: u64) -> Self {
        Self::exact(count)
    }
}

impl Add for Estimate {
    type Output = Self;

    /// Adds disjoint users. Their samples are independent, so the variances add up.
    fn add(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            kept: self.kept.saturating_add(other.kept),
            variance: self.variance + other.variance,
            is_sampled: self.is_sampled || other.is_sampled,
        }
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Self>>(estimates: I) -> Self {
        estimates.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }

    #[test]
    fn exact_numbers_have_no_error() {
        let sum = Estimate::exact(3) + Estimate::sampled(4, Depth::ZERO);
        assert_eq!(sum, Estimate::exact(7));
        assert_eq!((sum.is_exact(), sum.error_95()), (true, None));
    }

    #[test]
    fn error_is_that_of_the_sample() {
        // A half-full sample of the recommended size has a standard error of 0.55 %.
        let estimate = Estimate::sampled(32_768, depth(10));
        assert_eq!(estimate.count(), 32_768 << 10);
        assert!((estimate.error_95().unwrap() / 1.96 - 0.0055).abs() < 0.0001, "{estimate:?}");
        // Twice the users of independent samples have a smaller relative error by the root of two.
        let sum = [estimate, estimate].into_iter().sum::<Estimate>();
        let ratio = estimate.error_95().unwrap() / sum.error_95().unwrap();
        assert!((ratio - 2.0_f64.sqrt()).abs() < 1e-9, "{sum:?}");
    }

    #[test]
    fn empty_sample_is_not_exact_and_has_no_relative_error() {
        let nobody = Estimate::sampled(0, depth(3));
        assert_eq!((nobody.count(), nobody.is_exact(), nobody.error_95()), (0, false, None));
        assert!(!(nobody + Estimate::exact(5)).is_exact());
    }

    #[test]
    fn without_leaves_the_rest_of_the_sample() {
        let rest = Estimate::sampled(100, depth(4)).without(Estimate::sampled(30, depth(4)));
        assert_eq!(rest, Estimate::sampled(70, depth(4)));
        assert_eq!(Estimate::exact(3).without(Estimate::exact(5)), Estimate::exact(0));
    }

    #[test]
    fn difference_must_exceed_the_errors_of_both_numbers() {
        let of = |kept| Estimate::sampled(kept, depth(7));
        for (before, after, expected) in
            [(40_000, 40_500, false), (40_000, 41_000, true), (41_000, 40_000, true), (0, 0, false)]
        {
            let difference = of(before).difference(of(after));
            assert_eq!(difference.count(), before.abs_diff(after) << 7);
            assert_eq!(difference.exceeds_error(), expected, "{difference}");
        }
        let exact = Estimate::exact(3).difference(Estimate::exact(4));
        assert_eq!((exact.count(), exact.is_exact(), exact.sample_size()), (1, true, 7));
        assert_eq!(of(40_000).difference(of(40_000)).error_95(), None);
        assert!(Estimate::exact(0).exceeds_error());
    }

    #[test]
    fn absolute_error_is_in_users() {
        let estimate = Estimate::sampled(37_343, depth(7));
        let expected = estimate.error_95().unwrap() * estimate.count() as f64;
        assert_eq!(estimate.absolute_error_95(), Some(expected.round() as u64));
        assert_eq!(Estimate::sampled(0, depth(7)).absolute_error_95(), Some(0));
        assert_eq!(Estimate::exact(5).absolute_error_95(), None);
    }

    #[test]
    fn sample_size_is_the_number_of_kept_users() {
        for kept in [0, 1, 37_343] {
            assert_eq!(Estimate::sampled(kept, depth(7)).sample_size(), kept);
            assert_eq!(Estimate::exact(kept).sample_size(), kept);
        }
        assert_eq!((Estimate::sampled(500, depth(7)) + Estimate::sampled(520, Depth::ZERO)).sample_size(), 1_020);
        let stored = Estimate::sampled(37_343, depth(7));
        assert_eq!(Estimate::with_error(stored.count(), stored.error_95().unwrap()).sample_size(), 37_343);
    }

    #[test]
    fn display_shows_the_error_of_an_estimate() {
        let texts = [Estimate::exact(42), Estimate::sampled(37_343, depth(7))].map(|estimate| estimate.to_string());
        assert_eq!(texts, ["42", "4779904 ± 1.0 %"]);
    }

    #[test]
    fn stored_estimate_keeps_its_error() {
        let estimate = Estimate::sampled(1_234, depth(5));
        let stored = Estimate::with_error(estimate.count(), estimate.error_95().unwrap());
        assert!((stored.error_95().unwrap() - estimate.error_95().unwrap()).abs() < 1e-12);
        assert!(!stored.is_exact());
    }
}
