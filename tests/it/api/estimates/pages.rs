//! Pages and pictures of segments that keep a sample: they show the estimates of the API, and say once what one is.

use rstest::rstest;

use super::Bounded;

/// What each page says once if it shows an estimate.
const NOTE: &str = "≈ marks an estimate";

impl Bounded {
    async fn text(&self, path: &str) -> String {
        let response = self.app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    }
}

/// Returns the full numbers of the page.
fn counts(page: &str) -> Vec<u64> {
    let counts = page.split("data-count=\"").skip(1);
    counts.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[tokio::test]
async fn segment_page_shows_the_estimate_of_the_api(#[case] partitions: &str) {
    let bounded = Bounded::filled(partitions).await;
    let answer = bounded.json("/segments/many/count").await;
    let (count, error) = (answer["count"].as_u64().unwrap(), 100.0 * answer["error_95"].as_f64().unwrap());
    let page = bounded.text("/pages/segment?name=many").await;
    assert_eq!(counts(&page), [count]);
    assert!(page.contains(&format!("data-count=\"{count}\">≈ ")) && page.contains("<title>≈ "), "{page}");
    let shown: f64 = page.split("<small>± ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((shown - error).abs() <= 0.06, "{shown} {error}");
    assert_eq!(page.matches(NOTE).count(), 1, "{page}");

    let page = bounded.text("/pages/segment?name=few").await;
    assert!(counts(&page) == [300] && page.contains(">300</p>") && !page.contains('≈'), "{page}");
}

#[tokio::test]
async fn list_page_marks_the_segments_that_keep_a_sample() {
    let bounded = Bounded::filled("1").await;
    let page = bounded.text("/").await;
    let users: Vec<_> =
        page.split("<td class=\"number\">").skip(1).map(|cell| cell.split("<svg").next().unwrap()).collect();
    let is_estimate = users.iter().map(|users| users.starts_with("<span title=\"± ") && users.contains(">≈ "));
    assert_eq!(is_estimate.collect::<Vec<_>>(), [true, true, false], "{users:?}");
    assert_eq!((users[2], page.matches(NOTE).count()), ("300", 1), "{page}");
    assert!(!bounded.text("/?contains=few").await.contains('≈'));
}

#[tokio::test]
async fn overlap_and_audience_pages_show_the_estimates_of_the_api() {
    let bounded = Bounded::filled("1").await;
    let overlap = bounded.json("/overlap?segment=many&segment=others").await;
    let page = bounded.text("/pages/overlap?segment=many&segment=others").await;
    let figures = ["all", "any"].map(|figure| overlap[figure].as_u64().unwrap());
    assert_eq!(counts(&page)[..2], figures, "{page}");
    assert!(page.matches(">≈ ").count() > 8 && page.matches(NOTE).count() == 1, "{page}");

    let audience = bounded.json("/audience/count?all=many&none=others").await;
    let page = bounded.text("/pages/audience?all=many&none=others").await;
    assert_eq!(counts(&page), [audience["count"].as_u64().unwrap()], "{page}");
    assert!(page.contains("\">≈ ") && page.matches(NOTE).count() == 1, "{page}");
}

#[tokio::test]
async fn pictures_mark_estimates() {
    let bounded = Bounded::filled("1").await;
    let picture = bounded.text("/segments/many/histogram.svg").await;
    assert!(picture.contains(">≈ ") && picture.contains(" users ± "), "{picture}");
    assert!(!bounded.text("/segments/few/histogram.svg").await.contains('≈'));
}
