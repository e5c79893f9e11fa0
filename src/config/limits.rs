//! Limits.

use super::Settings;
use crate::estimator::overlap::{OverlapLimits, Overlaps};
use crate::http::RequestLimits;
use crate::http::server::ConnectionLimits;
use crate::redis::Limits as RedisLimits;

impl Settings {
    /// Returns the timeouts and the queue length of the Redis client.
    #[must_use]
    pub fn redis_limits(&self) -> RedisLimits {
        RedisLimits { connect: self.redis_connect_timeout, answer: self.redis_timeout, max_pending: self.max_waiting }
    }

    /// Returns the limits of requests.
    #[must_use]
    pub fn request_limits(&self) -> RequestLimits {
        // The parts of a single visit or count have timeouts of their own: the body, Redis's clock, the queue, Redis's
        // answer. A timer that can't fire would cost each request for nothing.
        let longest = self.body_timeout + 3 * self.redis_timeout;
        RequestLimits {
            body: self.body_timeout,
            request: self.request_timeout,
            round_trip: Some(self.request_timeout).filter(|timeout| *timeout < longest),
            body_bytes: self.max_body_bytes,
            requests: self.max_requests,
        }
    }

    /// Returns the limits of overlaps.
    #[must_use]
    pub fn overlap_limits(&self) -> OverlapLimits {
        OverlapLimits {
            timeout: self.overlap_timeout,
            concurrency: self.max_overlaps,
            wait: Overlaps::MAX_WAIT,
            memory: Overlaps::MAX_MEMORY,
        }
    }

    /// Returns the limits of connections.
    #[must_use]
    pub fn connection_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            header: self.header_timeout,
            drain: self.drain_timeout,
            head_bytes: self.max_header_bytes,
            connections: self.max_connections,
        }
    }
}
