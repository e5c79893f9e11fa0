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
  #abort = new AbortController();

  constructor(url, { apiKey, batchSize = 1000, linger = 200, capacity = 10_000 } = {}) {
    this.url = `${url.replace(/\/+$/, "")}/segments/batch`;
    this.headers = { "content-type": "application/x-ndjson" };
    if (apiKey) this.headers.authorization = `Bearer ${apiKey.trim()}`;
    Object.assign(this, { batchSize, linger, capacity });
    this.worker = this.#run();
  }

  /** Queues a visit that happens now. Waits while the queue is full. */
  async record(user, segment) {
    // Without a time of its own, a repeated visit would count from its repetition.
    const visit = JSON.stringify({ user_id: user, segment, seen_at: Date.now() / 1000 });
    while (this.#queue.length >= this.capacity && !this.#isClosing) {
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    if (this.#isClosing) throw new Error("the sender is closed");
    this.#queue.push(visit);
    this.recorded += 1;
  }

  /** Sends what is queued. Returns whether each visit was acknowledged or rejected within `timeout` milliseconds. */
  async close(timeout = 20_000) {
    this.#closing.abort();
    this.#wake();
    const timer = setTimeout(() => this.#abort.abort(), timeout);
    await this.worker;
    clearTimeout(timer);
    return this.recorded === this.acknowledged + this.rejected;
  }

  get #isClosing() {
    return this.#closing.signal.aborted;
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  async #run() {
    while (!this.#isClosing || (this.#queue.length > 0 && !this.#abort.signal.aborted)) {
      if (this.#queue.length < this.batchSize && !this.#isClosing) await sleep(this.linger);
      const batch = this.#queue.splice(0, this.batchSize);
      this.#wake();
      if (batch.length > 0) await this.#deliver(batch);
    }
  }

  async #deliver(batch) {
    for (let attempt = 0; !this.#abort.signal.aborted; attempt += 1) {
      const { status, body, retryAfter } = await this.#post(batch);
      const report = [200, 422].includes(status) && parseReport(body);
      if (report) {
        this.acknowledged += report.accepted + report.expired;
        this.rejected += report.rejected;
        for (const error of report.errors) console.error(`rejected ${batch[error.line - 1]}:`, error);
        return;
      }
      const failure = `${batch.length} visits after ${status}: ${body.slice(0, 500)}`;
      if (PERMANENT.includes(status)) {
        this.dropped += batch.length;
        console.error(`dropped ${failure}`);
        return;
      }
      console.error(`repeating ${failure}`);
      // Full jitter: senders that failed together come back at different times.
      const delay = Math.min(retryAfter, 60) * 1000 + Math.random() * Math.min(10_000, 100 * 2 ** attempt);
      // A pause ends when the sender is closed. From then on it has a second at most.
      const [pause, { signal }] = this.#isClosing ? [Math.min(delay, 1000), this.#abort] : [delay, this.#closing];
      await sleep(pause, undefined, { signal }).catch(() => {});
    }
  }

  /** Returns the status, the body and the seconds of `Retry-After`. The status is 0 if there is no answer. */
  async #post(batch) {
    // Unlike AbortSignal.timeout(), this timer keeps the process running.
    const request = new AbortController();
    const abort = () => request.abort();
    const timer = setTimeout(abort, 10_000);
    this.#abort.signal.addEventListener("abort", abort);
    try {
      const options = { method: "POST", headers: this.headers, redirect: "manual", signal: request.signal };
      const answer = await fetch(this.url, { ...options, body: batch.join("\n") });
      const retryAfter = Number(answer.headers.get("retry-after")) || 0;
      return { status: answer.status, body: await answer.text(), retryAfter };
    } catch (error) {
      return { status: 0, body: `${error.message} ${error.cause ?? ""}`, retryAfter: 0 };
    } finally {
      clearTimeout(timer);
      this.#abort.signal.removeEventListener("abort", abort);
    }
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
