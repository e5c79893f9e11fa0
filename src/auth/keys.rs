//! API keys, from a file with the name, the SHA-256 digest and the scopes of each.
//!
//! ```toml
//! [[key]]
//! name = "uss"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! scopes = ["segments:write"]
//! ```
//!
//! A key is 256 random bits and can't be guessed, so its digest needs neither salt nor a slow function.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;

use super::principal::{Principal, check_name};
use super::scope::{Scope, Scopes};
use super::usage::KeySample;

/// The number of keys that metrics show by name. Prometheus keeps a series for each.
const MAX_NAMED: usize = 200;

/// The name in metrics of the keys that have no series of their own.
const OTHER: &str = "other";

/// The accepted API keys.
pub struct ApiKeys(Vec<ApiKey>);

struct ApiKey {
    digest: Digest,
    principal: Arc<Principal>,
}

pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// The TOML file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    name: String,
    sha256: String,
    scopes: Vec<String>,
}

impl ApiKeys {
    /// Parses the text of a key file.
    ///
    /// # Errors
    ///
    /// The first mistake, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Some editors write a byte order mark.
        let text = text.trim_start_matches('\u{feff}');
        let file: File = toml::from_str(text).map_err(|error| toml_mistake(text, &error))?;
        let mut keys: Vec<ApiKey> = Vec::with_capacity(file.key.len());
        for (number, entry) in (1..).zip(file.key) {
            let key = ApiKey::new(entry).map_err(|why| format!("key {number}: {why}"))?;
            if let Some(same) = keys.iter().position(|known| known.clashes_with(&key)) {
                return Err(format!("key {number}: its name or its digest is the same as that of key {}", same + 1));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// Returns the owner of `key`. Compares the digest with all keys in constant time, so that the time reveals nothing
    /// about them.
    pub fn principal(&self, key: &str) -> Option<Arc<Principal>> {
        let presented = digest_of(key);
        let mut found = None;
        for known in &self.0 {
            if verify_slices_are_equal(&known.digest, &presented).is_ok() {
                found = Some(known);
            }
        }
        found.map(|known| Arc::clone(&known.principal))
    }

    /// Returns the number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Continues the counters of the `previous` keys, by name.
    pub(super) fn continue_usage(&mut self, previous: &Self) {
        for key in &mut self.0 {
            let same = previous.0.iter().find(|known| known.principal.name == key.principal.name);
            if let (Some(same), Some(principal)) = (same, Arc::get_mut(&mut key.principal)) {
                principal.usage = Arc::clone(&same.principal.usage);
            }
        }
    }

    /// Reads the counters of all keys. Those behind the first [`MAX_NAMED`] in the file share the name [`OTHER`].
    pub(super) fn usage(&self) -> Vec<KeySample> {
        let mut samples: Vec<KeySample> = Vec::new();
        for (index, ApiKey { principal, .. }) in self.0.iter().enumerate() {
            let name = if index < MAX_NAMED { &principal.name } else { OTHER };
            let sample = principal.usage.sample("api", name);
            // A key may have the name of the others.
            match samples.iter_mut().rev().find(|known| name == OTHER && known.name == OTHER) {
                Some(others) => others.add(sample),
                None => samples.push(sample),
            }
        }
        samples
    }

    /// Returns whether a key has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|key| key.principal.name == name)
    }
}

impl ApiKey {
    fn new(KeyEntry { name, sha256, scopes }: KeyEntry) -> Result<Self, String> {
        check_name(&name)?;
        let digest = HEXLOWER_PERMISSIVE.decode(sha256.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        let digest = digest.ok_or_else(|| format!("{name}: sha256 must be 64 hexadecimal digits"))?;
        let scopes = scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, _>>();
        let scopes = Scopes::from(scopes.map_err(|why| format!("{name}: {why}"))?);
        Ok(Self { digest, principal: Arc::new(Principal::new(name, scopes)) })
    }

    fn clashes_with(&self, other: &Self) -> bool {
        self.digest == other.digest || self.principal.name == other.principal.name
    }
}

pub(super) fn digest_of(key: &str) -> Digest {
    digest(&SHA256, key.as_bytes()).as_ref().try_into().expect("SHA-256 has that many bytes")
}

/// Describes `error` in one line, with the line number. Repeats nothing of `text` except names.
fn toml_mistake(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    format!("line {line}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The digest of `test` as `printf test | sha256sum` prints it.
    const OF_TEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn entry(name: &str, sha256: &str, scopes: &str) -> String {
        format!("[[key]]\nname = {name:?}\nsha256 = {sha256:?}\nscopes = [{scopes}]\n")
    }

    #[test]
    fn principal_finds_a_key_by_its_digest() {
        let other = "00".repeat(32);
        let text = entry("uss", OF_TEST, r#""segments:write""#) + &entry("analyst", &other, r#""segments:read""#);
        let keys = ApiKeys::parse(&text).unwrap();
        let principal = keys.principal("test").unwrap();
        assert_eq!(principal.name, "uss");
        assert!(principal.scopes.contains(Scope::WriteSegments) && !principal.scopes.contains(Scope::ReadSegments));
        assert!(keys.principal("Test").is_none() && keys.principal("").is_none() && keys.principal(OF_TEST).is_none());
    }

    #[test]
    fn parse_skips_a_byte_order_mark() {
        let text = format!("\u{feff}{}", entry("uss", OF_TEST, ""));
        assert!(ApiKeys::parse(&text).unwrap().principal("test").is_some());
    }

    #[test]
    fn usage_has_a_bound_on_names() {
        let key = |number: usize| entry(&format!("key-{number}"), &format!("{number:064x}"), "");
        let text: String = (0..MAX_NAMED + 3).map(key).collect();
        let keys = ApiKeys::parse(&text).unwrap();
        for key in &keys.0 {
            key.principal.usage.request();
            key.principal.usage.visits(2);
            key.principal.usage.problem("overloaded");
        }
        let samples = keys.usage();
        assert_eq!(samples.len(), MAX_NAMED + 1);
        assert_eq!((&*samples[MAX_NAMED - 1].name, samples[MAX_NAMED - 1].requests), ("key-199", 1));
        let others = &samples[MAX_NAMED];
        assert_eq!((&*others.name, others.requests, others.visits), (OTHER, 3, 6));
        assert_eq!(others.problems, [("overloaded", 3)]);
    }

    #[test]
    fn principal_is_none_without_keys() {
        assert!(ApiKeys::parse("").unwrap().principal("").is_none());
    }

    #[rstest]
    #[case::empty_name(entry("", OF_TEST, ""), "key 1: the name must have 1 to 64 letters")]
    #[case::space_in_a_name(entry("a b", OF_TEST, ""), "key 1: the name must have 1 to 64 letters")]
    #[case::short_digest(entry("uss", "00", ""), "key 1: uss: sha256 must be 64 hexadecimal digits")]
    #[case::unknown_scope(
        entry("uss", OF_TEST, r#""segments:wirte""#),
        r#"key 1: uss: "segments:wirte" is not a scope; those are segments:write, segments:read, segments:delete, users:read, users:delete"#
    )]
    #[case::same_digest(entry("a", OF_TEST, "") + &entry("b", OF_TEST, ""), "key 2: its name or its digest is the same as that of key 1")]
    #[case::same_name(entry("a", OF_TEST, "") + &entry("a", &"00".repeat(32), ""), "key 2: its name or its digest is the same as that of key 1")]
    #[case::unknown_field("[[key]]\nname = \"uss\"\nkey = \"sek_secret\"\n".to_owned(), "line 3: unknown field `key`")]
    #[case::unknown_table("[[keys]]\n".to_owned(), "line 1: unknown field `keys`")]
    #[case::wrong_type("key = 1\n".to_owned(), "line 1: ")]
    fn parse_names_a_mistake_in_one_line(#[case] text: String, #[case] message: &str) {
        let error = ApiKeys::parse(&text).err().unwrap();
        assert!(error.starts_with(message) && !error.contains('\n'), "{error}");
        assert!(!error.contains("sek_secret"), "{error}");
    }
}
