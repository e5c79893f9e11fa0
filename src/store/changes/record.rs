//! The text of a change record, and the samples that it is made of.

use std::time::Duration;

use crate::domain::{Timestamp, Window};
use crate::store::history::Sample;
use crate::store::history::count_text::{count_text, parse_count};

/// The last sample of a segment and those before it that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRecord {
    /// The last sample.
    pub last: Sample,
    /// The time of the first sample of the history.
    pub first: Timestamp,
    /// The sample of a day before the last one; `None` if the history has none.
    pub day_before: Option<Sample>,
    /// The sample of a week before the last one; `None` if the history has none.
    pub week_before: Option<Sample>,
    /// The window of the counts, and since when; `None` in records of earlier versions.
    pub window: Option<SampledWindow>,
}

/// The window over which samples count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampledWindow {
    /// The window.
    pub window: Window,
    /// The time of the first sample after those with another window; `None` if no sample is known to have another one.
    pub since: Option<Timestamp>,
}

impl SampledWindow {
    /// Returns the window of the sample at `at`, which was counted over `window`. `before` is the record of an earlier
    /// sample, or of this one.
    ///
    /// If nothing says over which window earlier samples were counted, it is `window`: an update of the service doesn't
    /// change it.
    pub(super) fn of_sample(at: Timestamp, window: Window, before: Option<ChangeRecord>) -> Self {
        let since = match before.and_then(|record| Some((record.last.at, record.window?))) {
            // Another instance took the sample, and this one repeats the tick.
            Some((last_at, known)) if last_at == at => return known,
            Some((_, known)) if known.window == window => known.since,
            Some(_) => Some(at),
            None => None,
        };
        Self { window, since }
    }
}

impl ChangeRecord {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Returns the times between which samples are searched: for the last and the first sample, for those of a day and
    /// of a week before `at`, and for the samples before these two.
    ///
    /// In a gap, the next sample within an eighth of a day or of a week replaces the missing one. A gap has a sample
    /// within an eighth before it, too: otherwise the segment is new, and its birth is no change.
    ///
    /// Samples before `window.since` are not comparable, and only show that the segment isn't new.
    pub(super) fn ranges(at: Timestamp, window: SampledWindow) -> [(Timestamp, Timestamp); 6] {
        let comparable = |from: Timestamp| window.since.map_or(from, |since| from.max(since));
        let after = |span: Duration| (comparable(at - span), at - span + span / 8);
        let before = |span: Duration| (at - span - span / 8, at - span);
        let (day, week) = (Self::DAY, Self::WEEK);
        [(at, at), (Timestamp::from_millis(0), at), after(day), after(week), before(day), before(week)]
    }

    /// Returns the record of the samples found in [`Self::ranges`]; `None` if there is no last one. Another program's
    /// data counts as no sample.
    pub(super) fn from_samples(samples: &[Vec<Vec<u8>>], window: SampledWindow) -> Option<Self> {
        let number = |text: &[u8]| str::from_utf8(text).ok()?.parse::<u64>().ok();
        let sample = |index: usize| match samples.get(index).map(Vec::as_slice) {
            Some([at, count]) => {
                let at = Timestamp::from_millis(i64::try_from(number(at)?).ok()?);
                Some(Sample { at, count: parse_count(count)? })
            }
            _ => None,
        };
        let earlier = |index: usize| sample(index + 2).and_then(|_| sample(index));
        let (day_before, week_before) = (earlier(2), earlier(3));
        Some(Self { last: sample(0)?, first: sample(1)?.at, day_before, week_before, window: Some(window) })
    }

    /// Returns the record as text: time and count of the last sample, the time of the first one, the counts of a day
    /// and of a week before, or `-`, and the window. If an earlier sample is of a later time than exactly a day or a
    /// week before, the delay follows, as in `4188+3600`. If the window was another one before a time, this time
    /// follows, as in `1209600@1795348800`. An estimate has its error, as in `4779904~0.010103`. Times are in seconds,
    /// since ticks are at full seconds: the text is at most 44 bytes long, for which Redis needs no second allocation,
    /// unless counts have five digits or are delayed.
    pub(super) fn to_text(self) -> String {
        let seconds = |time: Timestamp| time.as_millis() / 1_000;
        let Self { last, first, day_before, week_before, window } = self;
        let earlier = |sample: Option<Sample>, span: Duration| match sample {
            None => "-".to_owned(),
            Some(Sample { at, count }) => match seconds(at) - seconds(last.at - span) {
                0 => count_text(count),
                delay => format!("{}+{delay}", count_text(count)),
            },
        };
        let (day_before, week_before) = (earlier(day_before, Self::DAY), earlier(week_before, Self::WEEK));
        let window = window.map_or_else(String::new, |SampledWindow { window, since }| {
            let since = since.map_or_else(String::new, |since| format!("@{}", seconds(since)));
            format!(" {}{since}", window.as_secs())
        });
        format!("{} {} {} {day_before} {week_before}{window}", seconds(last.at), count_text(last.count), seconds(first))
    }

    /// Parses what [`Self::to_text`] returns.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let words: Vec<_> = str::from_utf8(text).ok()?.split(' ').collect();
        let [at, count, first, day_before, week_before, ref window @ ..] = words[..] else { return None };
        let time = |text: &str| Some(Timestamp::from_millis(text.parse::<i64>().ok()?.checked_mul(1_000)?));
        let last = Sample { at: time(at)?, count: parse_count(count.as_bytes())? };
        let earlier = |text: &str, span: Duration| {
            if text == "-" {
                return Some(None);
            }
            let (count, delay) = text.split_once('+').unwrap_or((text, "0"));
            let at = last.at - span + Duration::from_secs(delay.parse::<u32>().ok()?.into());
            Some(Some(Sample { at, count: parse_count(count.as_bytes())? }))
        };
        let (day_before, week_before) = (earlier(day_before, Self::DAY)?, earlier(week_before, Self::WEEK)?);
        let window = match *window {
            [] => None,
            [window] => {
                let (window, since) = window.split_once('@').map_or((window, None), |(window, at)| (window, Some(at)));
                let since = match since {
                    Some(at) => Some(time(at)?),
                    None => None,
                };
                Some(SampledWindow { window: Window::new(Duration::from_secs(window.parse().ok()?)).ok()?, since })
            }
            _ => return None,
        };
        Some(Self { last, first: time(first)?, day_before, week_before, window })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const NOON: i64 = 1_795_348_800;

    fn sample(seconds: i64, count: u64) -> Option<Sample> {
        Some(Sample { at: Timestamp::from_millis(seconds * 1_000), count: count.into() })
    }

    fn window(text: &str, since: Option<i64>) -> Option<SampledWindow> {
        let since = since.map(|seconds| Timestamp::from_millis(seconds * 1_000));
        Some(SampledWindow { window: Window::parse(text).unwrap(), since })
    }

    #[rstest]
    #[case::of_an_earlier_version(None, None, None, "1795348800 4178 1790000000 - -")]
    #[case::without_history(None, None, window("14d", None), "1795348800 4178 1790000000 - - 1209600")]
    #[case::with_a_day(
        sample(NOON - 86_400, 4_188), None, window("2s", None), "1795348800 4178 1790000000 4188 - 2"
    )]
    #[case::with_a_week(
        sample(NOON - 86_400 + 7_200, 4_188), sample(NOON - 604_800, 0), window("14d", None),
        "1795348800 4178 1790000000 4188+7200 0 1209600"
    )]
    #[case::after_another_window(
        sample(NOON - 86_400, 4_188), None, window("14d", Some(NOON - 90_000)),
        "1795348800 4178 1790000000 4188 - 1209600@1795258800"
    )]
    fn parse_reads_what_to_text_writes(
        #[case] day_before: Option<Sample>,
        #[case] week_before: Option<Sample>,
        #[case] window: Option<SampledWindow>,
        #[case] text: &str,
    ) {
        let (last, first) = (sample(NOON, 4_178).unwrap(), sample(1_790_000_000, 0).unwrap().at);
        let record = ChangeRecord { last, first, day_before, week_before, window };
        assert_eq!(record.to_text(), text);
        assert_eq!(ChangeRecord::parse(text.as_bytes()), Some(record));
    }

    #[rstest]
    #[case::empty("")]
    #[case::word("theirs")]
    #[case::lease("1795348800000 0 done")]
    #[case::too_long("1 2 3 4 5 6 7")]
    #[case::no_window("1 2 3 4 5 0")]
    #[case::negative_window("1 2 3 4 5 -6")]
    #[case::window_since_nothing("1 2 3 4 5 6@")]
    #[case::negative("1 -2 3 4 5")]
    #[case::beyond_all_times("9223372036854775807 2 3 4 5")]
    fn parse_refuses_other_texts(#[case] text: &str) {
        assert_eq!(ChangeRecord::parse(text.as_bytes()), None);
    }
}
