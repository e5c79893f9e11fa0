//! The tables of the pages as files.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::browser::{Browser, signed_in_on_the_page_of_sports};
use crate::looks::command;
use crate::service::Service;
use crate::wait::eventually;

/// Clicks the link at `selector`, and returns the lines of the file `name-DATE.csv` that it downloads.
async fn download(browser: &Browser, selector: &str, name: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let behavior = json!({ "behavior": "allow", "downloadPath": folder.path() });
    command(browser, "Browser.setDownloadBehavior", behavior).await;
    let before = browser.value("location.href").await;
    browser.click(selector).await;
    eventually("the file is there", async || file_in(folder.path(), name).is_some()).await;
    assert_eq!(browser.value("location.href").await, before, "the page stays");
    let lines = file_in(folder.path(), name).unwrap();
    lines.lines().map(str::to_owned).collect()
}

/// Returns the content of the complete file `name-DATE.csv`.
fn file_in(folder: &Path, name: &str) -> Option<String> {
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_downloaded = |path: &Path| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.starts_with(&format!("{name}-2")) && file.ends_with(".csv")
    };
    std::fs::read_to_string(files.find(|path| is_downloaded(path))?).ok().filter(|text| !text.is_empty())
}

#[tokio::test]
async fn list_downloads_what_the_search_finds_in_the_chosen_order() {
    let service = Service::start(&[]);
    for (segment, users) in [("sports", 3), ("=SUM(A1)", 1), ("spa", 5), ("news", 2)] {
        service.fill(segment, users).await;
    }
    let browser = Browser::start(&service).await;
    browser.open("/?contains=S&sort=name").await;
    assert_eq!(browser.text(".download a").await, "Download CSV of all these segments");
    let lines = download(&browser, ".download a", "segments").await;
    let rows: Vec<_> = lines.iter().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(rows, ["segment,known,count", "'=SUM(A1),true,1", "news,true,2", "spa,true,5", "sports,true,3"]);
    browser.open("/").await;
    let lines = download(&browser, ".download a", "segments").await;
    assert!(lines[1].starts_with("spa,true,5,") && lines.len() == 5, "{lines:?}");
    browser.close().await;
}

#[tokio::test]
async fn overlap_and_audience_download_their_numbers() {
    let service = Service::start(&[]);
    service.fill("a & b", 3).await;
    service.fill("news", 2).await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/overlap?segment=a%20%26%20b&segment=news&window=7d").await;
    let lines = download(&browser, ".download a", "overlap").await;
    assert_eq!(lines[0], "in:a & b,in:news,segments,count,exact,error_95,unknown,window_seconds,as_of");
    assert!(lines.len() == 3 && lines.iter().any(|line| line.starts_with("1,1,2,2,true,,[],604800,")), "{lines:?}");
    browser.open("/pages/audience?all=a%20%26%20b&none=news").await;
    let lines = download(&browser, ".download a", "audience").await;
    assert!(lines[1].starts_with("\"[\"\"a & b\"\"]\",[],\"[\"\"news\"\"]\",1,true,,[],1209600,"), "{lines:?}");
    browser.close().await;
}

#[tokio::test]
async fn segment_downloads_its_charts() {
    let (service, name) = Service::start_with_history().await;
    let browser = Browser::start(&service).await;
    browser.open(&format!("/pages/segment?name={name}")).await;
    let lines = download(&browser, "#histogram .download a", &format!("histogram-{name}")).await;
    assert_eq!(lines[0], "segment,known,from,to,leave_from,leave_to,count,exact,error_95,window_seconds,as_of");
    let rows = browser.all("#histogram-table tbody tr", "element.textContent").await.len();
    assert_eq!(lines.len(), 1 + rows);
    let links = browser.all("#history .download a", "element.search").await;
    let link = links[0].as_str().unwrap();
    assert!(link.contains("from=2") && link.contains("to=2"), "{link} has no fixed times");
    let lines = download(&browser, "#history .download a", &format!("history-{name}")).await;
    assert_eq!(lines[0], "segment,known,from,to,sampled_at,count,exact,error_95,as_of");
    assert!(lines.len() > 2 && lines[1].starts_with(&format!("{name},true,2")), "{lines:?}");
    browser.close().await;
}

#[tokio::test]
async fn download_asks_for_a_password() {
    let (_service, browser) = signed_in_on_the_page_of_sports().await;
    let lines = download(&browser, "#histogram .download a", "histogram-sports").await;
    assert!(lines.last().unwrap().starts_with("sports,true,2"), "{lines:?}");
    browser.close().await;
}
