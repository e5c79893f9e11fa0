//! The descriptions of all metrics that exist from the start.

use ::metrics::{describe_counter, describe_gauge, describe_histogram};

/// Describes each metric, for `/metrics`.
pub(super) fn describe() {
    describe_gauge!(
        "estimator_build_info",
        "Always 1; the labels are the version and the commit of the service, `unknown` if the build did not get it."
    );
    describe_counter!("estimator_http_requests_total", "Requests, by route, method and status.");
    describe_histogram!(
        "estimator_http_request_duration_seconds",
        "Time from the head of the request to the head of the response."
    );
    describe_gauge!("estimator_http_requests_in_flight", "Requests in flight, without probes.");
    describe_gauge!("estimator_http_connections", "Open connections.");
    describe_counter!("estimator_http_problems_total", "Error responses, by problem type.");
    describe_counter!(
        "estimator_member_lists_aborted_total",
        "Lists of users that broke off after their first line, by reason: client, redis, sample, slow-client, stopping or token."
    );
    describe_counter!(
        "estimator_auth_failures_total",
        "Requests refused by authentication or authorization, by reason."
    );
    describe_gauge!("estimator_auth_keys", "Current keys, by kind; absent without access control.");
    describe_gauge!(
        "estimator_reload_successful",
        "Whether the last reload of the keys, or of the certificate, succeeded."
    );
    describe_counter!("estimator_visits_accepted_total", "Visits that Redis acknowledged.");
    describe_counter!("estimator_visits_expired_total", "Visits outside the window, which were not written.");
    describe_counter!(
        "estimator_visits_sampled_out_total",
        "Accepted visits that were not written, because their segments keep a sample without them."
    );
    describe_counter!(
        "estimator_visits_rejected_total",
        "Visits rejected as invalid, or because of the limit on segments, by reason."
    );
    describe_counter!("estimator_visits_failed_total", "Visits that Redis didn't acknowledge, by reason.");
    describe_histogram!("estimator_round_size", "Single visits, or counts, in a batch.");
    describe_gauge!(
        "estimator_overlaps_waiting",
        "Overlaps and audiences that wait for others; those of the same segments and window count once."
    );
    describe_gauge!("estimator_round_waiting", "Single visits, or counts, that are waiting for the next batch.");
    describe_histogram!(
        "estimator_redis_duration_seconds",
        "Time until Redis answered, including the time to connect."
    );
    describe_counter!("estimator_redis_errors_total", "Errors of Redis, by kind.");
    describe_counter!("estimator_redis_connects_total", "Attempts to connect to Redis, by outcome.");
    describe_gauge!(
        "estimator_redis_up",
        "Whether Redis answered the last check, every 15 seconds; NaN before the first."
    );
    describe_gauge!(
        "estimator_clock_skew_seconds",
        "This machine's time minus Redis's, at the last check; NaN if unknown."
    );
    describe_gauge!(
        "estimator_redis_evicted_keys",
        "Keys that Redis has evicted since its start, of all programs that use it; NaN if unknown."
    );
    describe_gauge!(
        "estimator_redis_used_memory_bytes",
        "Memory that Redis uses (used_memory), of all primaries; NaN if unknown."
    );
    describe_gauge!(
        "estimator_redis_max_memory_bytes",
        "Memory that Redis may use (maxmemory), of all primaries; NaN if unknown or without a limit."
    );
    describe_gauge!(
        "estimator_redis_memory_ratio",
        "Used fraction of maxmemory, of the fullest primary; NaN if unknown or without a limit."
    );
    describe_gauge!(
        "estimator_redis_append_only_file_bytes",
        "Size of Redis's append-only file, of all primaries; NaN if unknown or without one."
    );
    describe_gauge!(
        "estimator_redis_persistence_ok",
        "Whether the last append to the append-only file, its last rewrite, and the last snapshot of every primary succeeded; NaN if \
         unknown."
    );
    describe_gauge!("estimator_window_seconds", "The window that this instance counts over; NaN if unknown.");
    describe_gauge!(
        "estimator_data_window_seconds",
        "The window that the data set is pruned by: the longest of any instance; NaN if unknown."
    );
    describe_counter!("estimator_prune_runs_total", "Runs of the prune job, by outcome.");
    describe_counter!("estimator_prune_members_removed_total", "Expired members removed.");
    describe_histogram!("estimator_prune_duration_seconds", "Duration of a run of the prune job.");
    describe_gauge!(
        "estimator_prune_last_success_timestamp_seconds",
        "Time of the last successful run of the prune job."
    );
    describe_counter!(
        "estimator_history_turns_total",
        "Ticks of the history that this instance sampled, or that no instance sampled because Redis failed."
    );
    describe_counter!("estimator_history_points_total", "Points added to histories.");
    describe_gauge!(
        "estimator_segments",
        "Segments in the index, every 15 seconds; NaN before the first check and if Redis doesn't answer."
    );
    describe_gauge!(
        "estimator_sampled_segments",
        "Segments that keep a sample of their users; NaN if no segment is bounded."
    );
    describe_gauge!(
        "estimator_sample_max_fill_ratio",
        "Members of the fullest segment in a partition, relative to its bound there, by the last prune and later checks; NaN if unknown, \
         or if no segment is bounded."
    );
}
