"""Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged."""

import contextlib
import http.client
import itertools
import json
import logging
import math
import queue
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
        self.headers = {"content-type": "application/x-ndjson"}
        if api_key:
            self.headers["authorization"] = f"Bearer {api_key}"
        self.batch_size, self.linger = batch_size, linger
        self.queue, self.lock = queue.Queue(capacity), threading.Lock()
        self.closing, self.deadline = threading.Event(), math.inf
        self.recorded = self.acknowledged = self.rejected = self.dropped = 0
        self.worker = threading.Thread(target=self._run, daemon=True)
        self.worker.start()

    def record(self, user, segment):
        """Queues a visit that happens now. Blocks while the queue is full."""
        # Without a time of its own, a repeated visit would count from its repetition.
        visit = json.dumps({"user_id": user, "segment": segment, "seen_at": time.time()})
        with self.lock:
            if self.closing.is_set():
                raise RuntimeError("the sender is closed")
            self.queue.put(visit)
            self.recorded += 1

    def close(self, timeout=20):
        """Sends what is queued, for about `timeout` seconds. Returns whether no visit was dropped."""
        self.deadline = time.monotonic() + timeout
        self.closing.set()
        with self.lock:
            self.queue.put(None)
        self.worker.join()
        return self.dropped == 0

    def _run(self):
        is_open = True
        while is_open:
            batch = [self.queue.get()]
            end = time.monotonic() + self.linger
            with contextlib.suppress(queue.Empty):
                while batch[-1] is not None and len(batch) < self.batch_size:
                    batch.append(self.queue.get(timeout=max(0, end - time.monotonic())))
            if batch[-1] is None:
                is_open = False
                batch.pop()
            if batch:
                self._deliver(batch)

    def _deliver(self, batch):
        failure = "the time to close is over"
        for attempt in itertools.count():
            if time.monotonic() >= self.deadline:
                break
            status, body, retry_after = self._post(batch)
            if status in (200, 422) and (report := _report(body)):
                self.acknowledged += report["accepted"] + report["expired"]
                self.rejected += report["rejected"]
                for error in report["errors"]:
                    log.error("rejected %s: %s", batch[error["line"] - 1], error)
                return
            failure = f"{status}: {body.strip()[:500]}"
            if status in PERMANENT:
                break
            # Full jitter: senders that failed together come back at different times.
            delay = min(retry_after, 60) + random.uniform(0, min(10, 0.1 * 2 ** min(attempt, 10)))
            log.warning("repeating %d visits in %.1f s after %s", len(batch), delay, failure)
            self._sleep(delay)
        self.dropped += len(batch)
        log.error("dropped %d visits after %s", len(batch), failure)

    def _post(self, batch):
        """Returns the status, the body and the seconds of `Retry-After`. The status is 0 if there is no answer."""
        is_https = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if is_https else http.client.HTTPConnection
        try:
            with contextlib.closing(connect(self.url.netloc, timeout=10)) as connection:
                connection.request("POST", self.url.path, "\n".join(batch).encode(), self.headers)
                answer = connection.getresponse()
                seconds = answer.getheader("retry-after", "0")
                body = answer.read().decode(errors="replace")
                return answer.status, body, int(seconds) if seconds.isdecimal() else 0
        except (OSError, ValueError, http.client.HTTPException) as error:
            return 0, repr(error), 0

    def _sleep(self, delay):
        """Sleeps for `delay` seconds. Wakes when the sender is closed, and at the end of the time to close."""
        if not self.closing.is_set():
            self.closing.wait(delay)
        else:
            time.sleep(max(0, min(delay, self.deadline - time.monotonic())))


def _report(body):
    """Returns the report on a batch, or None if `body` is another document."""
    with contextlib.suppress(ValueError):
        report = json.loads(body)
        return report if isinstance(report, dict) and "accepted" in report else None
