//! Which servers hold the data.

use std::fmt;

use super::RedisUrl;

/// The servers that hold the data, and how the one is found that has what is wanted.
#[derive(Debug, Clone)]
pub enum Deployment {
    /// One server.
    One(RedisUrl),
    /// The primary that sentinels name.
    Sentinel {
        /// Where the sentinels are, and how they are reached.
        sentinels: Vec<RedisUrl>,
        /// What they call the primary.
        master: String,
        /// How the servers are reached, whatever their address is.
        servers: RedisUrl,
    },
    /// A cluster that these servers belong to: at least one.
    Cluster(Vec<RedisUrl>),
}

impl Deployment {
    /// A URL of the servers that hold the data. They differ in the address alone.
    #[must_use]
    pub fn server(&self) -> &RedisUrl {
        match self {
            Self::One(url) | Self::Sentinel { servers: url, .. } => url,
            Self::Cluster(seeds) => &seeds[0],
        }
    }

    /// The setting that says so.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        match self {
            Self::One(_) => "redis_url",
            Self::Sentinel { .. } => "redis_sentinel",
            Self::Cluster(_) => "redis_cluster",
        }
    }

    /// The URLs that it is made of.
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
