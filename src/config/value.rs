//! Settings as text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::JwtAlgorithm;
use crate::domain::{SegmentName, Window};
use crate::embedded_redis::MaxMemory;
use crate::estimator::history::Interval;
use crate::http::{AllowedHosts, Origins};
use crate::jobs::Schedule;
use crate::redis::RedisUrl;
use crate::store::{KeyPrefix, Partitions};
use crate::telemetry::{LogFilter, LogFormat, OtlpEndpoint};

/// The value of a setting.
pub(super) trait Value {
    /// Returns the value for `check`, without a password.
    fn text(&self) -> String;
}

macro_rules! value_by_display {
    ($($type:ty),+ $(,)?) => {
        $(impl Value for $type {
            fn text(&self) -> String {
                self.to_string()
            }
        })+
    };
}

value_by_display!(
    AllowedHosts,
    Interval,
    JwtAlgorithm,
    LogFilter,
    LogFormat,
    MaxMemory,
    Origins,
    OtlpEndpoint,
    Partitions,
    RedisUrl,
    Schedule,
    SegmentName<'static>,
    SocketAddr,
    String,
    Window,
    bool,
    f64,
    usize,
);

impl Value for Duration {
    fn text(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl Value for KeyPrefix {
    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Value for PathBuf {
    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl<T: Value> Value for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map(T::text).unwrap_or_default()
    }
}

impl<T: Value> Value for Vec<T> {
    fn text(&self) -> String {
        self.iter().map(T::text).collect::<Vec<_>>().join(",")
    }
}
