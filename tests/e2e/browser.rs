//! A browser that looks at one service, and tells what is wrong with what it saw.

use std::ops::Deref;

use serde_json::Value;
use thirtyfour::{By, TypingData, WebDriver};

use crate::axe;
use crate::driver::Driver;
use crate::looks::LOOKS;
use crate::service::Service;

/// A browser of the test's own. A test ends with [`Browser::close`], which fails it for what only the browser has noticed.
pub struct Browser {
    browser: WebDriver,
    _driver: Driver,
    origin: String,
    /// What errors in the console may say.
    expected: Vec<String>,
    is_closed: bool,
}

impl Browser {
    /// Starts one for the pages of `service`.
    pub async fn start(service: &Service) -> Self {
        let driver = Driver::start();
        let browser = driver.browser().await;
        LOOKS[0].put_on(&browser).await;
        let origin = service.origin.clone();
        let browser = Self { browser, _driver: driver, origin, expected: Vec::new(), is_closed: false };
        // It begins with a page of its own, whose requests are none of ours.
        browser.goto("about:blank").await.unwrap();
        browser.requests().await;
        browser
    }

    /// Opens a page of the service.
    pub async fn open(&self, path: &str) {
        self.browser.goto(format!("{}{path}", self.origin)).await.unwrap();
    }

    /// Takes pictures of the page, which are called `name`, in each look, and tells what somebody can't use in any.
    pub async fn look_at(&self, name: &str) -> Vec<String> {
        let mut broken = Vec::new();
        for look in LOOKS {
            look.put_on(&self.browser).await;
            look.picture(&self.browser, name).await;
            broken.extend(self.broken_rules().await.into_iter().map(|rule| format!("{look:?}: {rule}")));
        }
        LOOKS[0].put_on(&self.browser).await;
        broken
    }

    /// What somebody can't use on the page as it looks now.
    pub async fn broken_rules(&self) -> Vec<String> {
        let mut broken = axe::violations(&self.browser).await;
        let too_wide = self.value("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
        if too_wide != 0 {
            broken.push(format!("the page is {too_wide} pixels wider than the screen"));
        }
        broken
    }

    /// As [`Self::look_at`], of a page of ours: everybody can use it.
    pub async fn look_at_ours(&self, name: &str) {
        let broken = self.look_at(name).await;
        assert!(broken.is_empty(), "{name}: {broken:#?}");
    }

    /// The text of the first element that `selector` finds.
    pub async fn text(&self, selector: &str) -> String {
        self.texts(selector).await.into_iter().next().unwrap_or_else(|| panic!("there is no {selector}"))
    }

    /// The texts of all elements that `selector` finds, as the document has them, with single spaces.
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let texts = self.all(selector, "element.textContent").await;
        texts.iter().map(|text| text.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    /// The values of a JavaScript expression of each `element` that `selector` finds.
    pub async fn all(&self, selector: &str, of_element: &str) -> Vec<Value> {
        let selector = Value::from(selector);
        let values = format!("Array.from(document.querySelectorAll({selector}), element => {of_element})");
        self.value(&values).await.as_array().unwrap().clone()
    }

    /// The cells of each row that `selector` finds.
    pub async fn rows(&self, selector: &str) -> Vec<Vec<String>> {
        let rows = self.all(selector, "Array.from(element.cells, cell => cell.textContent.trim())").await;
        serde_json::from_value(Value::Array(rows)).unwrap()
    }

    /// Clicks on the element that `selector` finds.
    pub async fn click(&self, selector: &str) {
        self.browser
            .find(By::Css(selector))
            .await
            .unwrap_or_else(|_| panic!("there is no {selector}"))
            .click()
            .await
            .unwrap();
    }

    /// Types into the element that has the focus.
    pub async fn press(&self, keys: impl Into<TypingData>) {
        self.browser.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Errors in the console are expected from now on if they have `text`.
    pub fn expect_error(&mut self, text: &str) {
        self.expected.push(text.to_owned());
    }

    /// The value of a JavaScript expression.
    pub async fn value(&self, expression: &str) -> Value {
        self.browser.execute(format!("return {expression}"), []).await.unwrap().json().clone()
    }

    /// Ends the browser. Nothing may have gone wrong, and no other host may have been asked for anything.
    pub async fn close(self) {
        let faults = self.close_with_faults().await;
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// Ends the browser, and tells what the console said and which requests went to another host.
    pub async fn close_with_faults(mut self) -> Vec<String> {
        self.is_closed = true;
        let mut faults = self.errors().await;
        let requests = self.requests().await;
        self.browser.clone().quit().await.unwrap();
        // A URL may have a name and a password in front of the host.
        let is_own = |url: &String| {
            let host = self.origin.strip_prefix("http://").unwrap_or_default();
            let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            address == host || address.split_once('@').is_some_and(|(_, address)| address == host)
        };
        let (own, others): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_own);
        assert!(!own.is_empty(), "requests aren't seen");
        // What has no host asks nobody.
        faults.extend(others.into_iter().filter(|url| !url.starts_with("data:")));
        faults
    }

    /// What the console has said since this was last asked, except for mere information.
    async fn errors(&self) -> Vec<String> {
        let entries = self.browser.browser_log().await.unwrap();
        let entries = entries.into_iter().filter(|entry| ["SEVERE", "WARNING"].contains(&entry.level.as_str()));
        let messages = entries.map(|entry| entry.message);
        messages.filter(|message| !self.expected.iter().any(|text| message.contains(text))).collect()
    }

    /// The addresses of all requests since this was last asked.
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
            // The driver ends the browser: the session would wait for that for minutes.
            let _ = self.browser.clone().leak();
        }
        assert!(self.is_closed || std::thread::panicking(), "a test must end with Browser::close");
    }
}
