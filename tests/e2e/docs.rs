//! `/docs`, the page of Swagger UI. Its violations of accessibility rules (contrast, nested controls) are not ours.

use thirtyfour::By;

use crate::browser::Browser;
use crate::service::Service;
use crate::wait::eventually;

#[tokio::test]
async fn docs_show_every_operation_without_another_host() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open("/docs").await;
    let document = service.json("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().keys()).count();
    assert!(operations > 5, "{document}");
    eventually("all operations are shown", async || {
        browser.find_all(By::Css(".opblock")).await.unwrap().len() == operations
    })
    .await;
    let _violations = browser.check_looks("docs").await;
    browser.close().await;
}
