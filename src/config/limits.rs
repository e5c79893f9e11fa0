//! The limits of each room.

use super::Settings;
use crate::estimator::overlap::{OverlapLimits, Overlaps};
use crate::http::RequestLimits;
use crate::http::server::ConnectionLimits;
use crate::redis::Limits as RedisLimits;

impl Settings {
    /// How long to wait for Redis, and how many may.
    #[must_use]
    pub fn redis_limits(&self) -> RedisLimits {
        RedisLimits { connect: self.redis_connect_timeout, answer: self.redis_timeout, max_pending: self.max_waiting }
    }

    /// What a request may take.
    #[must_use]
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            body: self.body_timeout,
            request: self.request_timeout,
            // Each part of it has a limit of its own: its body, Redis's clock, its turn at Redis, Redis's answer. A timer that can't
            // go off would cost each visit and each count for nothing.
            round_trip: Some(self.request_timeout).filter(|limit| *limit < self.body_timeout + 3 * self.redis_timeout),
            body_bytes: self.max_body_bytes,
            requests: self.max_requests,
        }
    }

    /// What overlaps may take.
    #[must_use]
    pub fn overlap_limits(&self) -> OverlapLimits {
        OverlapLimits { timeout: self.overlap_timeout, concurrency: self.max_overlaps, memory: Overlaps::MAX_MEMORY }
    }

    /// What connections may take.
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
