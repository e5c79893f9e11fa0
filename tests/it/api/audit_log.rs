//! The deletions that each operation's test of the audit log sends.

use std::panic::Location;

use reqwest::RequestBuilder;

use super::api_keys::make_key;
use crate::helpers::Service;

/// A service with two API keys.
pub struct KeyedService {
    service: Service,
    keys: [String; 2],
    _folder: tempfile::TempDir,
}

impl KeyedService {
    /// Starts a service with keys of these names and scopes.
    #[track_caller]
    pub fn start(keys: [(&str, &str); 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let keys = keys.map(|(name, scope)| make_key(&file, name, scope));
        let service = Service::start(folder.path(), &["--api-keys-file", file.to_str().unwrap()]);
        Self { service, keys, _folder: folder }
    }

    /// Sends four deletions: `first` with the first key, `second` with an invalid query, `third` with the other key,
    /// `fourth` without a key. Panics with the caller's location unless only the first has the status `deleted`.
    #[track_caller]
    pub fn delete(&self, path: &str, invalid_query: &str, deleted: u16) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let [owner, other] = &self.keys;
        let requests = [
            ("first", Some(owner), "", deleted),
            ("second", Some(owner), invalid_query, 422),
            ("third", Some(other), "", 403),
            ("fourth", None, "", 401),
        ];
        async move {
            for (id, key, query, status) in requests {
                let request = self.service.request("DELETE", &format!("{path}{query}")).header("x-request-id", id);
                let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
                let response = request.send().await.unwrap();
                let id_seen = response.headers()["x-request-id"].to_str().unwrap();
                assert_eq!((response.status().as_u16(), id_seen), (status, id), "{caller}");
            }
        }
    }

    /// Returns a request with the key at `index`.
    pub fn request(&self, method: &str, path: &str, index: usize) -> RequestBuilder {
        self.service.request(method, path).bearer_auth(&self.keys[index])
    }

    /// Sends a deletion with the first key and without a request id. Returns the id that the service made.
    pub async fn delete_without_id(&self, path: &str) -> String {
        let response = self.request("DELETE", path, 0).send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    }

    /// Ends the service and returns its log.
    #[track_caller]
    pub fn terminate_for_log(self) -> Vec<String> {
        self.service.terminate_for_log()
    }
}
