//! axe-core, which finds what somebody can't use: too little contrast, fields without labels, an order that jumps.
//!
//! The file is that of axe-core 4.14.1 (MPL-2.0, `axe/LICENSE`), as npm has it.

use serde_json::Value;
use thirtyfour::WebDriver;

const AXE: &str = include_str!("axe/axe.min.js");

/// Gives what breaks a rule, a line for each element.
const RUN: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    return axe.run(document, { runOnly: { type: 'tag', values: tags } }).then(found => ({
        passed: found.passes.length,
        broken: found.violations.flatMap(rule =>
            rule.nodes.map(node => `${rule.id}: ${rule.help}: ${node.target.join(' ')}: ${node.html}`)),
    }));";

/// What breaks a rule on the page that the browser shows.
pub async fn violations(browser: &WebDriver) -> Vec<String> {
    let is_there = browser.execute("return typeof axe == 'object'", []).await.unwrap();
    if is_there.json() != &Value::Bool(true) {
        browser.execute(AXE, []).await.unwrap();
    }
    let found = browser.execute(RUN, []).await.unwrap().json().clone();
    assert!(found["passed"].as_u64().unwrap() > 0, "axe has looked at nothing: {found}");
    found["broken"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}
