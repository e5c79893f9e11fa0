//! The data set in Redis: writes, counts and pruning on one server, on replicas and on a cluster.

mod bounded_access;
mod clock;
mod cluster;
mod data_window;
mod deletions;
mod group_commit;
mod model;
mod outage;
mod prune;
mod redis_access;
mod redis_tls;
mod scan;
mod sentinel;
mod shared_redis;
mod slot_migration;
mod two_installations;
mod write_acks;
