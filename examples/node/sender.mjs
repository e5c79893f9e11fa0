// Sends visits to the segment estimator in batches, and repeats a batch until it is acknowledged.

import { setTimeout as sleep } from "node:timers/promises";

// The batch itself is at fault, so a repetition would be refused, too. Any other failure may pass: a fault of the
// network, of the service, or of a key or an address that the operator corrects.
const PERMANENT = [400, 413, 415, 422];

export class Sender {
  recorded = 0;
  acknowledged = 0;
  rejected = 0;
  dropped = 0;
  #queue = [];
  #waiting = [];
  #closing = new AbortController();
  #deadline = Infinity;
  #worker;

  constructor(url, { apiKey, batchSize = 1000, linger = 200, capacity = 10_000 } = {}) {
    this.url = `${url.replace(/\/+$/, "")}/segments/batch`;
    this.headers = { "content-type": "application/x-ndjson" };
    if (apiKey) this.headers.authorization = `Bearer ${apiKey}`;
    Object.assign(this, { batchSize, linger, capacity });
    this.#worker = this.#run();
  }

  /** Queues a visit that happens now. Waits while the queue is full. */
  async record(user, segment) {
    // Without a time of its own, a repeated visit would count from its repetition.
    const visit = JSON.stringify({ user_id: user, segment, seen_at: Date.now() / 1000 });
    while (this.#queue.length >= this.capacity && !this.#closing.signal.aborted) {
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    if (this.#closing.signal.aborted) throw new Error("the sender is closed");
    this.#queue.push(visit);
    this.recorded += 1;
  }

  /** Sends what is queued, for about `timeout` milliseconds. Returns whether no visit was dropped. */
  async close(timeout = 20_000) {
    this.#deadline = Date.now() + timeout;
    this.#closing.abort();
    await this.#worker;
    return this.dropped === 0;
  }

  async #run() {
    while (!this.#closing.signal.aborted || this.#queue.length > 0) {
      if (this.#queue.length < this.batchSize && !this.#closing.signal.aborted) await this.#sleep(this.linger);
      const batch = this.#queue.splice(0, this.batchSize);
      for (const resolve of this.#waiting.splice(0)) resolve();
      if (batch.length > 0) await this.#deliver(batch);
    }
  }

  async #deliver(batch) {
    let failure = "the time to close is over";
    for (let attempt = 0; Date.now() < this.#deadline; attempt += 1) {
      const { status, body, retryAfter } = await this.#post(batch);
      const report = [200, 422].includes(status) && parseReport(body);
      if (report) {
        this.acknowledged += report.accepted + report.expired;
        this.rejected += report.rejected;
        for (const error of report.errors) console.error(`rejected ${batch[error.line - 1]}:`, error);
        return;
      }
      failure = `${status}: ${body.trim().slice(0, 500)}`;
      if (PERMANENT.includes(status)) break;
      // Full jitter: senders that failed together come back at different times.
      const delay = Math.min(retryAfter, 60) * 1000 + Math.random() * Math.min(10_000, 100 * 2 ** attempt);
      console.error(`repeating ${batch.length} visits in ${Math.round(delay)} ms after ${failure}`);
      await this.#sleep(delay);
    }
    this.dropped += batch.length;
    console.error(`dropped ${batch.length} visits after ${failure}`);
  }

  /** Returns the status, the body and the seconds of `Retry-After`. The status is 0 if there is no answer. */
  async #post(batch) {
    try {
      const request = { method: "POST", headers: this.headers, body: batch.join("\n"), redirect: "manual" };
      const answer = await fetch(this.url, { ...request, signal: AbortSignal.timeout(10_000) });
      const retryAfter = Number(answer.headers.get("retry-after")) || 0;
      return { status: answer.status, body: await answer.text(), retryAfter };
    } catch (error) {
      return { status: 0, body: `${error.message} ${error.cause ?? ""}`, retryAfter: 0 };
    }
  }

  /** Waits for `delay` milliseconds, or until the sender is closed, or until the time to close is over. */
  async #sleep(delay) {
    if (this.#closing.signal.aborted) await sleep(Math.min(delay, Math.max(0, this.#deadline - Date.now())));
    else await sleep(delay, undefined, { signal: this.#closing.signal }).catch(() => {});
  }
}

/** Returns the report on a batch, or null if `body` is another document. */
function parseReport(body) {
  try {
    const report = JSON.parse(body);
    return report?.accepted === undefined ? null : report;
  } catch {
    return null;
  }
}
