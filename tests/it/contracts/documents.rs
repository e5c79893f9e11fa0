//! The documents and compose files agree with the settings and the code.

use std::collections::BTreeMap;
use std::path::Path;

use rstest::rstest;
use segment_estimator::config::{SETTINGS, Setting};
use segment_estimator::store::diagnostics::Permissions;
use serde_json::Value;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn variable(name: &str) -> String {
    format!("ESTIMATOR_{}", name.to_uppercase())
}

/// Returns each variable of `.env.example`, commented out or not, with its value and the comment above it.
fn example() -> BTreeMap<String, (String, String)> {
    let mut variables = BTreeMap::new();
    let mut comment = String::new();
    for line in read(".env.example").lines() {
        match line.trim_start_matches('#').split_once('=').filter(|(name, _)| name.starts_with("ESTIMATOR_")) {
            Some((name, value)) => {
                let value = value.trim_matches('\'').to_owned();
                variables.insert(name.to_owned(), (value, std::mem::take(&mut comment)));
            }
            None => comment = line.trim_start_matches(['#', ' ']).to_owned(),
        }
    }
    variables
}

#[test]
fn env_example_has_every_setting_with_its_default_and_a_comment() {
    let mut example = example();
    for Setting { name, default, .. } in SETTINGS {
        let (value, comment) =
            example.remove(&variable(name)).unwrap_or_else(|| panic!("{name} is missing in .env.example"));
        assert_eq!(value, default.unwrap_or_default(), "{name} has another default");
        assert!(comment.len() > 10, "{name} is not explained");
    }
    assert_eq!(example.keys().collect::<Vec<_>>(), ["ESTIMATOR_CONFIG"]);
}

#[test]
fn settings_page_has_every_setting_with_its_default() {
    let page = read("docs/settings.md");
    for Setting { name, default, .. } in SETTINGS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is missing in docs/settings.md"));
        if let Some(default) = default {
            assert!(row.contains(&format!("| `{default}` |")), "{name} has another default: {row}");
        }
    }
}

#[test]
fn settings_have_the_same_order_in_the_documents() {
    let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    let page = read("docs/settings.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let rows: Vec<_> = rows.map(|(name, _)| name.to_owned()).filter(|name| names.contains(name)).collect();
    assert_eq!(rows, names);
    let example = read(".env.example");
    let variables = example.lines().filter_map(|line| line.strip_prefix("#ESTIMATOR_")?.split_once('='));
    let variables: Vec<_> = variables.map(|(name, _)| name.to_lowercase()).filter(|name| name != "config").collect();
    assert_eq!(variables, names);
}

/// Returns the words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn access_page_has_every_operation_under_its_scope() {
    let page = read("docs/access.md");
    let mut documented = BTreeMap::new();
    for line in page.lines() {
        let row = line.strip_prefix("| `").and_then(|row| row.split_once("` | "));
        for operation in row.into_iter().flat_map(|(scope, row)| quoted(row).map(move |word| (word, scope))) {
            documented.extend(operation.0.contains(' ').then_some(operation));
        }
    }
    let open = page.lines().find_map(|line| line.split_once(" need no token. ")).unwrap().0;
    documented.extend(quoted(open).map(|path| (path, "")));

    let openapi: Value = serde_json::from_str(&segment_estimator::http::openapi_json()).unwrap();
    let mut expected = BTreeMap::new();
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        // The page names the pages as those that `/` links to.
        if path.ends_with("/{file}") || path == "/docs/" || path.starts_with("/pages/") {
            continue;
        }
        for (method, operation) in operations.as_object().unwrap() {
            let scope = operation["security"][1]["bearer"][0].as_str().unwrap_or_default();
            let name = if scope.is_empty() { path.clone() } else { format!("{} {path}", method.to_uppercase()) };
            expected.insert(name, scope.to_owned());
        }
    }
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, scope)| (name.as_str(), scope.as_str())).collect();
    assert_eq!(documented, expected);
}

/// Returns the key patterns and commands of the `ACL SETUSER` in `file`, sorted.
fn acl_rules_in(file: &str) -> Vec<String> {
    let text = read(file).replace("\\\n", " ").replace("\\|", "|");
    let line = text.lines().find_map(|line| line.split_once("ACL SETUSER estimator on ")).unwrap().1;
    let rules = line.split_whitespace().map(|word| word.trim_matches('\''));
    let mut rules: Vec<_> = rules.filter(|rule| rule.starts_with(['~', '+'])).map(str::to_owned).collect();
    rules.sort();
    rules
}

#[rstest]
#[case::one_server("docs/operating.md", Permissions::acl_rules(false))]
#[case::cluster("docs/scaling.md", Permissions::acl_rules_of_a_cluster(false))]
fn acl_rules_in_the_documents_are_those_that_the_service_needs(#[case] file: &str, #[case] mut needed: Vec<String>) {
    needed.sort();
    assert_eq!(acl_rules_in(file), needed);
}

/// Returns the rules in backticks that follow `start` in `file`, sorted.
fn rules_after(file: &str, start: &str) -> Vec<String> {
    let text = read(file).replace('\n', " ");
    let rules =
        text.split_once(start).unwrap_or_else(|| panic!("{start} is not in {file}")).1.split('`').next().unwrap();
    let mut rules: Vec<_> = rules.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
    rules.sort();
    rules
}

#[rstest]
#[case::one_server("docs/operating.md", "| `max_members` is set | add `", Permissions::acl_rules)]
#[case::cluster("docs/scaling.md", "With `max_members` also `", Permissions::acl_rules_of_a_cluster)]
fn acl_rules_in_the_documents_have_those_of_bounded_segments(
    #[case] file: &str,
    #[case] start: &str,
    #[case] rules: fn(bool) -> Vec<String>,
) {
    let (exact, mut bounded) = (rules(false), rules(true));
    assert!(exact.iter().all(|rule| bounded.contains(rule)), "{exact:?}");
    bounded.retain(|rule| !exact.contains(rule));
    bounded.sort();
    assert_eq!(rules_after(file, start), bounded);
}

#[test]
fn compose_debug_example_breaks_in_the_count_handler() {
    let example = read("docker-compose-debug.yml");
    let breakpoint = example.lines().find_map(|line| line.split_once("break segment_estimator::")).unwrap().1;
    let (function, body) = breakpoint.rsplit_once("::").unwrap();
    let (module, name) = function.rsplit_once("::").unwrap();
    assert_eq!((name, body), ("count", "{async_fn#0}"));
    let source = read(&format!("src/{}.rs", module.replace("::", "/")));
    assert!(source.contains("\npub async fn count("), "{module}");
}

#[test]
fn compose_passes_on_every_setting() {
    let compose = read("docker-compose.yml");
    for Setting { name, .. } in SETTINGS {
        let variable = variable(name);
        let passed_on = compose.contains(&format!("{variable}: ${{{variable}:-}}"));
        // A value for a setting that compose fixes becomes a sentence that the service rejects.
        let is_refused = compose.contains(&format!("${{{variable}:+ (docker compose "));
        let is_fixed = ["listen", "admin_listen", "data_dir"].contains(name);
        // There are keys by default where the port is published beyond this machine.
        let has_default = compose.contains(&format!("{variable}: ${{{variable}-${{ADDRESS:+/keys/api-keys.toml}}}}"));
        assert_eq!(has_default, *name == "api_keys_file", "{variable}");
        assert_eq!(is_refused, is_fixed, "{variable}");
        assert!(passed_on || is_fixed || has_default, "{variable}");
    }
}

/// Returns the part of `docker-compose.yml` that is the service.
fn compose_service(name: &str) -> String {
    let compose = read("docker-compose.yml");
    let (_, service) = compose.split_once(&format!("\n  {name}:")).unwrap_or_else(|| panic!("no service {name}"));
    service.split("\n\n").next().unwrap().to_owned() + "\n"
}

#[test]
fn compose_sends_the_made_password_to_its_own_redis_alone() {
    let own = "ESTIMATOR_REDIS_PASSWORD_FILE: /run/redis/password\n";
    let estimator = compose_service("estimator");
    assert!(estimator.contains("ESTIMATOR_REDIS_URL: redis://redis:6379\n") && estimator.contains(own), "{estimator}");
    let external = compose_service("external-estimator");
    assert!(external.contains("ESTIMATOR_REDIS_PASSWORD_FILE: ${ESTIMATOR_REDIS_PASSWORD_FILE:-}\n"), "{external}");
    assert!(!external.contains("redis-password"), "{external}");
    // A URL would have no effect in the other profiles, so the start refuses it.
    assert!(compose_service("prepare").contains("ESTIMATOR_REDIS_URL: ${ESTIMATOR_REDIS_URL:-}\n"));
}

#[test]
fn compose_keeps_redis_from_what_watches_the_service() {
    assert!(compose_service("redis").contains("    networks: [redis]\n"));
    let compose = read("docker-compose.yml");
    let (_, networks) = compose.split_once("\nnetworks:\n").unwrap();
    let (networks, _) = networks.split_once("\nvolumes:\n").unwrap();
    assert_eq!(networks.matches("internal: true").count(), 2, "{networks}");
    for name in ["prometheus", "alertmanager", "grafana"] {
        assert!(!compose_service(name).contains("networks:"), "{name} is in the default network alone");
    }
}

#[test]
fn compose_services_have_limits_and_rotate_their_logs() {
    let compose = read("docker-compose.yml");
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, _) = services.split_once("\nnetworks:\n").unwrap();
    // The others merge one of these.
    let services: Vec<_> = services.split("\n\n").filter(|service| !service.contains("    <<: *")).collect();
    assert!(services.len() > 6, "{services:?}");
    for service in services {
        for line in ["logging: *logging", "mem_limit: ", "pids_limit: ", "read_only: true", "cap_drop: [ALL]"] {
            assert!(service.contains(&format!("\n    {line}")), "no {line} in {service}");
        }
    }
}

#[test]
fn compose_cluster_gets_the_same_settings() {
    let compose = read("docker-compose.yml");
    assert_eq!(compose.matches("environment: &settings").count(), 1);
    let (_, cluster) = compose.split_once("\n  cluster-estimator:\n").unwrap();
    let (cluster, _) = cluster.split_once("\n\n").unwrap();
    assert!(cluster.contains("<<: *estimator\n"), "{cluster}");
    assert!(cluster.contains("<<: *settings\n"), "{cluster}");
    assert!(cluster.contains("ESTIMATOR_REDIS_URL: ${ESTIMATOR_REDIS_URL:-}\n"), "{cluster}");
    assert!(cluster.contains("ESTIMATOR_REDIS_CLUSTER: ${ESTIMATOR_REDIS_CLUSTER:-redis://redis-1:6379,"), "{cluster}");
}

#[test]
fn compose_profile_external_starts_an_estimator_without_a_redis() {
    let compose = read("docker-compose.yml");
    let (_, external) = compose.split_once("\n  external-estimator:\n").unwrap();
    let (external, _) = external.split_once("\n\n").unwrap();
    assert!(external.contains("<<: *settings\n") && external.contains("depends_on: {}\n"), "{external}");
    assert!(external.contains("ESTIMATOR_REDIS_URL: ${ESTIMATOR_REDIS_URL:-}\n"), "{external}");
    assert_eq!(compose.matches("profiles: [external]").count(), 1);
}

#[test]
fn compose_services_all_belong_to_a_profile() {
    let compose = read("docker-compose.yml");
    let (_, services) = compose.split_once("\nservices:\n").unwrap();
    let (services, _) = services.split_once("\nnetworks:\n").unwrap();
    let is_name = |line: &&str| line.starts_with("  ") && !line[2..].starts_with([' ', '#']) && !line.trim().is_empty();
    let names: Vec<_> = services.lines().filter(is_name).collect();
    assert!(names.len() > 9, "{names:?}");
    let profiles = services.matches("\n    profiles: ").count() + services.matches("\n    <<: *node\n").count();
    assert_eq!(profiles, names.len(), "{names:?}");
}

#[test]
fn documents_call_a_repetition_harmless_only_with_seen_at() {
    let openapi = segment_estimator::http::openapi_json();
    let pages =
        ["docs/api.md", "docs/reliability.md", "docs/privacy.md", "docs/importing.md", "docs/sending.md"].map(read);
    for text in pages.iter().chain([&openapi]) {
        // In JSON each string is one line.
        let paragraphs = text.split("\n\n").flat_map(|part| part.split("\n- ")).flat_map(|part| part.split("\\n"));
        for paragraph in paragraphs.filter(|paragraph| paragraph.contains(" harm")) {
            assert!(paragraph.contains("seen_at"), "{paragraph}");
        }
    }
    // Both name the same conditions for a repetition.
    for text in [&pages[0], &openapi] {
        assert!(
            text.contains("After no answer, 408, 429 or 5xx, repeat the request, after the seconds in `Retry-After`")
        );
    }
}
