//! A browser on the pages of one service, and the checks of what it shows and requests.

use std::ops::Deref;
use std::panic::Location;

use serde_json::{Value, json};
use thirtyfour::{By, TypingData, WebDriver};

use crate::axe;
use crate::driver::Driver;
use crate::looks::LOOKS;
use crate::service::Service;

/// Browser of one test. The test ends with [`Browser::close`], which fails it for errors that only the browser noticed.
pub struct Browser {
    browser: WebDriver,
    _driver: Driver,
    origin: String,
    /// Texts of expected errors in the console.
    expected: Vec<String>,
    is_closed: bool,
}

impl Browser {
    /// Starts a browser for the pages of `service`.
    pub async fn start(service: &Service) -> Self {
        Self::start_at(&service.origin).await
    }

    /// Starts a browser for the pages at `origin`, a URL without a slash at the end.
    pub async fn start_at(origin: &str) -> Self {
        let driver = Driver::start();
        let browser = driver.browser().await;
        LOOKS[0].apply(&browser).await;
        let origin = origin.to_owned();
        let browser = Self { browser, _driver: driver, origin, expected: Vec::new(), is_closed: false };
        // The browser's first page sends requests of its own.
        browser.goto("about:blank").await.unwrap();
        browser.requests().await;
        browser
    }

    /// Opens a page of the service.
    pub async fn open(&self, path: &str) {
        self.browser.goto(format!("{}{path}", self.origin)).await.unwrap();
    }

    /// Saves screenshots of the page in each look under `name`, and returns the violations of accessibility rules.
    pub async fn check_looks(&self, name: &str) -> Vec<String> {
        let mut violations = Vec::new();
        for look in LOOKS {
            look.apply(&self.browser).await;
            look.screenshot(&self.browser, name).await;
            violations.extend(self.violations().await.into_iter().map(|rule| format!("{look:?}: {rule}")));
        }
        LOOKS[0].apply(&self.browser).await;
        violations
    }

    /// Returns the violations of accessibility rules on the page in the present look.
    pub async fn violations(&self) -> Vec<String> {
        let mut violations = axe::violations(&self.browser).await;
        let too_wide = self.value("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
        if too_wide != 0 {
            violations.push(format!("the page is {too_wide} pixels wider than the screen"));
        }
        violations
    }

    /// Saves screenshots of the page in each look under `name`. Panics with the caller's location if a look violates
    /// accessibility rules.
    #[track_caller]
    pub fn check_page(&self, name: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let violations = self.check_looks(name).await;
            assert!(violations.is_empty(), "{caller}: {name}: {violations:#?}");
        }
    }

    /// Returns the text of the first element that matches `selector`. Panics with the caller's location if there is
    /// none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> impl Future<Output = String> {
        let caller = Location::caller();
        async move {
            let first = self.texts(selector).await.into_iter().next();
            first.unwrap_or_else(|| panic!("{caller}: there is no {selector}"))
        }
    }

    /// Returns the texts of all elements that match `selector`, with white space collapsed.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let texts = self.all(selector, "element.textContent").await;
        texts.iter().map(|text| text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// Returns the values of a JavaScript expression for each `element` that matches `selector`.
    pub async fn all(&self, selector: &str, of_element: &str) -> Vec<Value> {
        let selector = Value::from(selector);
        let values = format!("Array.from(document.querySelectorAll({selector}), element => {of_element})");
        self.value(&values).await.as_array().unwrap().clone()
    }

    /// Returns the cells of each row that matches `selector`.
    pub async fn rows(&self, selector: &str) -> Vec<Vec<String>> {
        let rows = self.all(selector, "Array.from(element.cells, cell => cell.textContent.trim())").await;
        serde_json::from_value(Value::Array(rows)).unwrap()
    }

    /// Clicks on the first element that matches `selector`. Panics with the caller's location if there is none.
    #[track_caller]
    pub fn click(&self, selector: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let found = self.browser.find(By::Css(selector)).await;
            let element = found.unwrap_or_else(|_| panic!("{caller}: there is no {selector}"));
            element.click().await.unwrap_or_else(|error| panic!("{caller}: {selector}: {error}"));
        }
    }

    /// Types into the element that has the focus.
    pub async fn press(&self, keys: impl Into<TypingData>) {
        self.browser.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Expects errors in the console that contain `text`.
    pub fn expect_error(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// Returns the value of a JavaScript expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.browser.execute(format!("return {expression}"), []).await.unwrap().json().clone()
    }

    /// Ends the browser. Panics with the caller's location at an error in the console or a request to another host.
    #[track_caller]
    pub fn close(self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let faults = self.close_for_faults().await;
            assert!(faults.is_empty(), "{caller}: {faults:#?}");
        }
    }

    /// Ends the browser. Returns the errors in the console and the requests to other hosts.
    pub async fn close_for_faults(mut self) -> Vec<String> {
        self.is_closed = true;
        let mut faults = self.errors().await;
        let requests = self.requests().await;
        self.browser.clone().quit().await.unwrap();
        // A URL may have a user name and a password before the host.
        let is_own = |url: &String| {
            let host = self.origin.strip_prefix("http://").unwrap_or_default();
            let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            address == host || address.split_once('@').is_some_and(|(_, address)| address == host)
        };
        let (own, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_own);
        assert!(!own.is_empty(), "requests are not recorded");
        // A data URL has no host.
        faults.extend(others.into_iter().filter(|url| !url.starts_with("data:")));
        faults
    }

    /// Returns the warnings and errors in the console since the last call, except expected ones.
    async fn errors(&self) -> Vec<String> {
        let entries = self.browser.browser_log().await.unwrap();
        let entries = entries.into_iter().filter(|entry| ["SEVERE", "WARNING"].contains(&entry.level.as_str()));
        let messages = entries.map(|entry| entry.message);
        messages.filter(|message| !self.expected.iter().any(|text| message.contains(text))).collect()
    }

    /// Returns the URLs of all requests since the last call.
    async fn requests(&self) -> Vec<String> {
        let entries = self.browser.get_log("performance").await.unwrap();
        let events = entries.iter().map(|entry| serde_json::from_str::<Value>(&entry.message).unwrap());
        let requests = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["message"]["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }
}

impl Deref for Browser {
    type Target = WebDriver;

    fn deref(&self) -> &WebDriver {
        &self.browser
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.is_closed {
            // The driver ends the browser. The session would wait for that for minutes.
            let _ = self.browser.clone().leak();
        }
        assert!(self.is_closed || std::thread::panicking(), "a test must end with Browser::close");
    }
}

/// Returns a service with keys and a visit to `sports`, and a browser that shows the page of `sports`. The address has
/// the password, with which the browser answers the challenge of each folder.
pub async fn signed_in_on_the_page_of_sports() -> (Service, Browser) {
    let (service, [key, _]) = Service::start_with_keys();
    let visit = json!({ "user_id": "u1", "segment": "sports" }).to_string();
    let request = service.http.post(service.url("/segments")).header("content-type", "application/json").body(visit);
    assert!(request.bearer_auth(&key).send().await.unwrap().status().is_success());
    let mut browser = Browser::start(&service).await;
    browser.expect_error("401");
    let host = service.origin.strip_prefix("http://").unwrap();
    browser.goto(format!("http://any:{key}@{host}/pages/segment?name=sports")).await.unwrap();
    (service, browser)
}
