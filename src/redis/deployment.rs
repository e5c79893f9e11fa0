//! The deployment of Redis.

use std::fmt;

use super::RedisUrl;

/// The servers that hold the data, and the way to find them.
#[derive(Debug, Clone)]
pub enum Deployment {
    /// One server.
    One(RedisUrl),
    /// The primary that sentinels name.
    Sentinel {
        /// The URLs of the sentinels.
        sentinels: Vec<RedisUrl>,
        /// The name of the primary.
        master: String,
        /// The URL of the servers, but for the address.
        servers: RedisUrl,
    },
    /// A cluster, by at least one of its servers.
    Cluster(Vec<RedisUrl>),
}

impl Deployment {
    /// Returns the URL of a server that holds data. The others differ in the address alone.
    #[must_use]
    pub fn server(&self) -> &RedisUrl {
        match self {
            Self::One(url) | Self::Sentinel { servers: url, .. } => url,
            Self::Cluster(seeds) => &seeds[0],
        }
    }

    /// Returns the name of its setting.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        match self {
            Self::One(_) => "redis_url",
            Self::Sentinel { .. } => "redis_sentinel",
            Self::Cluster(_) => "redis_cluster",
        }
    }

    /// Returns all its URLs.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &RedisUrl> {
        let (many, one) = match self {
            Self::One(url) => (&[][..], Some(url)),
            Self::Sentinel { sentinels, servers, .. } => (&sentinels[..], Some(servers)),
            Self::Cluster(seeds) => (&seeds[..], None),
        };
        many.iter().chain(one)
    }
}

impl From<RedisUrl> for Deployment {
    fn from(url: RedisUrl) -> Self {
        Self::One(url)
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |urls: &[RedisUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::One(url) => url.fmt(f),
            Self::Sentinel { sentinels, master, servers } => {
                write!(f, "{master}{}, by the sentinels {}", servers.database(), list(sentinels))
            }
            Self::Cluster(seeds) => write!(f, "the cluster of {}", list(seeds)),
        }
    }
}
