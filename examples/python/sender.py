"""Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged."""

import collections
import http.client
import itertools
import json
import logging
import random
import threading
import time
import urllib.parse

log = logging.getLogger("sender")

# The batch itself is at fault, so a repetition would be refused, too. Any other failure may pass: a fault of the
# network, of the service, or of a key or an address that the operator corrects.
PERMANENT = {400, 413, 415, 422}


class Sender:
    def __init__(self, url, api_key=None, batch_size=1000, linger=0.2, capacity=10_000):
        self.url = urllib.parse.urlsplit(url.rstrip("/") + "/segments/batch")
        if self.url.scheme not in ("http", "https"):
            raise ValueError(f"not an HTTP URL: {url}")
        self.headers = {"content-type": "application/x-ndjson"}
        if api_key:
            self.headers["authorization"] = f"Bearer {api_key.strip()}"
        self.batch_size, self.linger, self.capacity = batch_size, linger, capacity
        self.queue, self.changed, self.closing = collections.deque(), threading.Condition(), False
        self.recorded = self.acknowledged = self.rejected = self.dropped = 0
        self.worker = threading.Thread(target=self._run, daemon=True)
        self.worker.start()

    def record(self, user, segment):
        """Queues a visit that happens now. Blocks while the queue is full."""
        # Without a time of its own, a repeated visit would count from its repetition.
        visit = json.dumps({"user_id": user, "segment": segment, "seen_at": time.time()})
        with self.changed:
            self.changed.wait_for(lambda: self.closing or len(self.queue) < self.capacity)
            if self.closing:
                raise RuntimeError("the sender is closed")
            self.queue.append(visit)
            self.recorded += 1
            if len(self.queue) >= self.batch_size:
                self.changed.notify_all()

    def close(self, timeout=20):
        """Sends what is queued. Returns whether each visit was acknowledged or rejected within `timeout` seconds."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.worker.join(timeout)
        return self.recorded == self.acknowledged + self.rejected

    def _run(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closing or len(self.queue) >= self.batch_size, self.linger)
                batch = list(itertools.islice(self.queue, self.batch_size))
                if self.closing and not batch:
                    return
                for _ in batch:
                    self.queue.popleft()
                self.changed.notify_all()
            if batch:
                self._deliver(batch)

    def _deliver(self, batch):
        for attempt in itertools.count():
            status, body, retry_after = self._post(batch)
            report = _report(body) if status in (200, 422) else None
            if report:
                self.acknowledged += report["accepted"] + report["expired"]
                self.rejected += report["rejected"]
                for error in report["errors"]:
                    log.error("rejected %s: %s", batch[error["line"] - 1], error)
                return
            if status in PERMANENT:
                self.dropped += len(batch)
                log.error("dropped %d visits after %s: %.500s", len(batch), status, body)
                return
            # Full jitter: senders that failed together come back at different times.
            delay = min(retry_after, 60) + random.uniform(0, min(10, 0.1 * 2 ** min(attempt, 10)))
            log.warning("repeating %d visits in %.1f s after %s: %.500s", len(batch), delay, status, body)
            self._pause(delay)

    def _pause(self, delay):
        """Sleeps until the sender is closed, and from then on for a second at most."""
        if self.closing:
            time.sleep(min(delay, 1))
            return
        with self.changed:
            self.changed.wait_for(lambda: self.closing, delay)

    def _post(self, batch):
        """Returns the status, the body and the seconds of `Retry-After`. The status is 0 if there is no answer."""
        is_https = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        connection = connect(self.url.netloc, timeout=10)
        try:
            connection.request("POST", self.url.path, "\n".join(batch).encode(), self.headers)
            answer = connection.getresponse()
            seconds = answer.getheader("retry-after", "")
            body = answer.read().decode(errors="replace")
            return answer.status, body, int(seconds) if seconds.isdecimal() else 0
        except (OSError, ValueError, http.client.HTTPException) as error:
            return 0, repr(error), 0
        finally:
            connection.close()


def _report(body):
    """Returns the report on a batch, or None if `body` is another document."""
    try:
        report = json.loads(body)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "accepted" in report else None
