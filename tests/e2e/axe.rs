//! axe-core, which finds violations of accessibility rules: low contrast, fields without labels, a wrong order of
//! headings.
//!
//! The file is that of the npm package axe-core 4.14.1 (MPL-2.0, `axe/LICENSE`).

use serde_json::Value;
use thirtyfour::WebDriver;

const AXE: &str = include_str!("axe/axe.min.js");

/// Returns the number of passed rules, and a line for each element that violates one.
const RUN: &str = "
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    return axe.run(document, { runOnly: { type: 'tag', values: tags } }).then(found => ({
        passed: found.passes.length,
        violations: found.violations.flatMap(rule =>
            rule.nodes.map(node => `${rule.id}: ${rule.help}: ${node.target.join(' ')}: ${node.html}`)),
    }));";

/// Returns the violations of rules on the present page.
pub async fn violations(browser: &WebDriver) -> Vec<String> {
    let is_loaded = browser.execute("return typeof axe == 'object'", []).await.unwrap();
    if is_loaded.json() != &Value::Bool(true) {
        browser.execute(AXE, []).await.unwrap();
    }
    let found = browser.execute(RUN, []).await.unwrap().json().clone();
    assert!(found["passed"].as_u64().unwrap() > 0, "axe checked nothing: {found}");
    found["violations"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}
