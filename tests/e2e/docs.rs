//! `/docs`, which is Swagger UI's page: what axe says of it (too little contrast, controls within controls) is for its makers.

use thirtyfour::By;

use crate::browser::Browser;
use crate::patience::eventually;
use crate::service::Service;

#[tokio::test]
async fn the_documentation_shows_every_call_and_asks_no_other_host() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open("/docs").await;
    let document = service.json("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().values();
    let calls = paths.flat_map(|path| path.as_object().unwrap().keys()).count();
    assert!(calls > 5, "{document}");
    eventually("all calls are shown", async || browser.find_all(By::Css(".opblock")).await.unwrap().len() == calls)
        .await;
    let _theirs = browser.look_at("docs").await;
    browser.close().await;
}
