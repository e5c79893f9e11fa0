// Sends visits from standard input, one `user<TAB>segment` a line, until its end or SIGTERM.

import { createInterface } from "node:readline";
import { Sender } from "./sender.mjs";

const { SEGMENTS_URL = "http://localhost:8080", SEGMENTS_API_KEY } = process.env;
const sender = new Sender(SEGMENTS_URL, { apiKey: SEGMENTS_API_KEY });

let isStopping = false;

async function finish() {
  isStopping = true;
  const isComplete = await sender.close();
  const { recorded, acknowledged, rejected, dropped } = sender;
  console.log(`${recorded} recorded, ${acknowledged} acknowledged, ${rejected} rejected, ${dropped} dropped`);
  // At once: standard input may still be open.
  process.exit(isComplete ? 0 : 1);
}

for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, finish);
try {
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    const [user, segment] = line.split("\t");
    await sender.record(user, segment);
  }
  await finish();
} catch (error) {
  // If a signal has closed the sender, `finish` ends the process.
  if (!isStopping) throw error;
}
