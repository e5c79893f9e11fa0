//! What senders get, which is docs/sending.md, the clients in `examples/` and the files for Vector, agrees with the API
//! and with each other. `make check-examples` runs the clients.

use std::collections::BTreeSet;
use std::path::Path;

use rstest::rstest;
use serde_json::Value;

const PAGE: &str = "docs/sending.md";
const VECTOR: &str = "deploy/vector/estimator.yaml";
/// The statuses of a batch that is itself at fault. After any other failure a sender keeps its visits.
const PERMANENT: [u16; 4] = [400, 413, 415, 422];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn openapi() -> Value {
    serde_json::from_str(&segment_estimator::http::openapi_json()).unwrap()
}

/// Returns the statuses that the POST of `path` may answer.
fn statuses_of(path: &str) -> BTreeSet<u16> {
    let responses = &openapi()["paths"][path]["post"]["responses"];
    responses.as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect()
}

/// Returns the numbers of three digits in `text`.
fn statuses_in(text: &str) -> BTreeSet<u16> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric());
    words.filter(|word| word.len() == 3).filter_map(|word| word.parse().ok()).collect()
}

/// Returns the value of the first line of `text` that has `key`.
fn value_of<'a>(text: &'a str, key: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.trim_start().strip_prefix(key)?.strip_prefix(": "));
    value.unwrap_or_else(|| panic!("no {key}"))
}

#[rstest]
#[case::single("/segments")]
#[case::batch("/segments/batch")]
fn sending_page_says_what_to_do_after_every_answer(#[case] path: &str) {
    let page = read(PAGE);
    let (_, table) = page.split_once("\n| answer | the visits | do |\n|---|---|---|\n").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows: Vec<[&str; 3]> = table
        .lines()
        .map(|row| row.trim_matches(['|', ' ']).split(" | ").collect::<Vec<_>>().try_into().unwrap())
        .collect();
    for status in statuses_of(path) {
        let row = rows.iter().find(|[answer, ..]| statuses_in(answer).contains(&status));
        let [_, _, action] = row.unwrap_or_else(|| panic!("{PAGE} doesn't say what to do after {status}"));
        let keeps = action.contains("repeat") || action.contains("keep");
        assert_eq!(keeps, status >= 400 && !PERMANENT.contains(&status), "{status}: {action}");
    }
}

#[rstest]
#[case::python("examples/python/sender.py")]
#[case::node("examples/node/sender.mjs")]
#[case::go("examples/go/sender.go")]
#[case::java("examples/java/Sender.java")]
fn clients_drop_a_batch_only_if_it_is_itself_at_fault(#[case] file: &str) {
    let client = read(file);
    let line =
        client.lines().find_map(|line| line.split_once("ermanent = ").or_else(|| line.split_once("PERMANENT = ")));
    assert_eq!(statuses_in(line.unwrap().1), PERMANENT.into());
}

#[test]
fn vector_repeats_every_failure_that_may_pass() {
    let repeated = statuses_in(value_of(&read(VECTOR), "status_codes"));
    for status in statuses_of("/segments/batch").range(400..) {
        assert_eq!(repeated.contains(status), !PERMANENT.contains(status), "{status}");
    }
    assert!(repeated.is_superset(&[502, 504].into()), "a proxy answers these");
}

#[test]
fn vector_posts_visits_to_a_route() {
    let (sink, openapi) = (read(VECTOR), openapi());
    let uris: Vec<_> = sink.lines().filter_map(|line| line.trim().strip_prefix("uri: http://localhost:8080")).collect();
    let [uri, healthcheck] = uris[..] else { panic!("{uris:?}") };
    let (path, parameter) = uri.split_once('?').unwrap();
    let parameters = openapi["paths"][path]["post"]["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|known| parameter == format!("{}=true", known["name"].as_str().unwrap())), "{uri}");
    let media_types = &openapi["paths"][path]["post"]["requestBody"]["content"];
    assert_eq!(value_of(&sink, "method"), "newline_delimited");
    assert!(media_types["application/x-ndjson"].is_object(), "{path}");
    assert!(openapi["paths"][healthcheck]["get"].is_object(), "{healthcheck}");

    let (_, visit) = sink.split_once("\n      . = {").unwrap();
    let members: BTreeSet<_> = visit.lines().next().unwrap().split('"').skip(1).step_by(2).collect();
    let known = &openapi["components"]["schemas"]["Visit"]["oneOf"][0]["properties"];
    assert!(members.is_superset(&["user_id", "segment", "seen_at"].into()), "{members:?}");
    for member in members.into_iter().filter(|member| !member.starts_with('%')) {
        assert!(known[member].is_object(), "{member} is not a member of a visit");
    }
}

#[test]
fn vector_files_name_existing_components_and_the_documented_key() {
    let sink = read(VECTOR);
    let components: BTreeSet<_> = sink
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with([' ', '#']))
        .collect();
    let inputs: Vec<_> =
        sink.lines().filter_map(|line| line.trim().strip_prefix("inputs: [")?.strip_suffix(']')).collect();
    assert_eq!(inputs, ["events", "visits", "visits.dropped"]);
    assert!(components.contains("visits"), "{components:?}");
    for file in ["kafka", "redis", "file"] {
        let source = read(&format!("deploy/vector/{file}.yaml"));
        assert!(source.contains("\nsources:\n  events:\n    type: "), "{file}: {source}");
        assert_eq!(value_of(&source, "type"), file);
    }
    let secret = value_of(&sink, "token").strip_prefix("SECRET[keys.").unwrap().strip_suffix(']').unwrap();
    let key = format!("{}/{secret}", value_of(&sink, "path"));
    assert!(components.contains("keys"), "{components:?}");
    assert!(read("deploy/vector/README.md").contains(&format!("`{key}`")), "{key}");
}
