//! Settings as text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::JwtAlgorithm;
use crate::domain::Window;
use crate::embedded_redis::MaxMemory;
use crate::estimator::history::Interval;
use crate::http::{AllowedHosts, Origins, PublicUrl};
use crate::jobs::{Schedule, SegmentPattern};
use crate::redis::RedisUrl;
use crate::store::{KeyPrefix, MaxMembers, Partitions};
use crate::telemetry::{LogFilter, LogFormat, OtlpEndpoint};

/// The value of a setting.
pub(super) trait SettingValue {
    /// Returns the value for `check`, without a password.
    fn text(&self) -> String;
}

macro_rules! value_by_display {
    ($($type:ty),+ $(,)?) => {
        $(impl SettingValue for $type {
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
    MaxMembers,
    MaxMemory,
    Origins,
    OtlpEndpoint,
    Partitions,
    PublicUrl,
    RedisUrl,
    Schedule,
    SegmentPattern,
    SocketAddr,
    String,
    Window,
    bool,
    f64,
    usize,
);

impl SettingValue for Duration {
    fn text(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

impl SettingValue for KeyPrefix {
    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

impl SettingValue for PathBuf {
    fn text(&self) -> String {
        self.display().to_string()
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map(T::text).unwrap_or_default()
    }
}

impl<T: SettingValue> SettingValue for Vec<T> {
    fn text(&self) -> String {
        self.iter().map(T::text).collect::<Vec<_>>().join(",")
    }
}
