//! The looks of a page: on a wide or a narrow screen, light or dark.

use std::path::PathBuf;

use serde_json::{Value, json};
use thirtyfour::WebDriver;
use thirtyfour::support::base64_decode;

/// Screen size and colour scheme.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The screen's name, and its width and height in CSS pixels.
    screen: (&'static str, u32, u32),
    scheme: &'static str,
}

const WIDE: (&str, u32, u32) = ("wide", 1280, 800);
const NARROW: (&str, u32, u32) = ("narrow", 320, 640);

/// All looks. Browsers start with the first one.
pub const LOOKS: [Look; 4] = [
    Look { screen: WIDE, scheme: "light" },
    Look { screen: WIDE, scheme: "dark" },
    Look { screen: NARROW, scheme: "dark" },
    Look { screen: NARROW, scheme: "light" },
];

impl Look {
    /// Sets the look of the browser.
    pub async fn apply(self, browser: &WebDriver) {
        let (name, width, height) = self.screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": name == NARROW.0 });
        command(browser, "Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = json!([{ "name": "prefers-color-scheme", "value": self.scheme }]);
        command(browser, "Emulation.setEmulatedMedia", json!({ "features": scheme })).await;
    }

    /// Saves a screenshot of the whole page as `target/e2e/<name>-<screen>-<scheme>.png`.
    pub async fn screenshot(self, browser: &WebDriver, name: &str) {
        let size = command(browser, "Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": self.screen.1, "height": size["height"], "scale": 1 });
        let parameters = json!({ "captureBeyondViewport": true, "clip": clip });
        let screenshot = command(browser, "Page.captureScreenshot", parameters).await;
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}-{}-{}.png", self.screen.0, self.scheme));
        std::fs::write(file, base64_decode(screenshot["data"].as_str().unwrap()).unwrap()).unwrap();
    }
}

/// Returns the folder of the screenshots: `e2e` in the target folder.
fn folder() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("e2e")
}

pub async fn command(browser: &WebDriver, name: &str, parameters: Value) -> Value {
    browser.cdp().send_raw(name, parameters).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}
