/** The pipeline in a thread of its own, so that the page never blocks. Spoken to by client.js. */

import { engineLabel, loadEngine } from "./engine.js";
import { HummingbirdError } from "./errors.js";
import { Pipeline } from "./pipeline.js";

/** @type {Pipeline | null} */
let pipe = null;
/** @type {AbortController | null} */
let running = null;

/** @param {any} message */
const post = (message) => /** @type {any} */ (globalThis).postMessage(message);

/** @param {{bundle: string, provider: any, threads?: number}} options */
async function open({ bundle, provider, threads }) {
  const engine = await loadEngine({ provider, threads });
  pipe = await Pipeline.fromPretrained(engine, bundle, {
    onProgress: (done, total) => post({ progress: { done, total } }),
  });
  const { manifest, digest, scheduler, bytes } = pipe.bundle;
  return {
    manifest, digest, scheduler, bytes,
    engine: {
      provider: engine.provider, threads: engine.threads, device: engine.device,
      reason: engine.reason, label: engineLabel(engine), version: engine.ort.env.versions.web ?? "",
      nodes: pipe.nodes,
    },
  };
}

/** @param {number} id @param {{prompt: string, options: object}} call */
async function stream(id, { prompt, options }) {
  if (!pipe) throw new HummingbirdError("runtime.closed", "the pipeline is not open");
  running = new AbortController();
  try {
    for await (const event of pipe.stream(prompt, { ...options, signal: running.signal })) {
      post({ id, event });
      await nextTask(); // lets a message that asks to cancel come in
    }
  } finally {
    running = null;
  }
}

const channel = new MessageChannel();
function nextTask() {
  return new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
}

/** @type {Record<string, (id: number, argument: any) => unknown>} */
const CALLS = {
  open: (_, argument) => open(argument),
  stream,
  cancel: () => running?.abort(),
  tokens: (_, prompt) => pipe?.bundle.tokenizer.encode(prompt),
  text: (_, path) => pipe?.bundle.text(path),
};

addEventListener("message", async ({ data: { id, call, argument } }) => {
  try {
    post({ id, result: await CALLS[call](id, argument) });
  } catch (error) {
    const known = error instanceof HummingbirdError;
    post({
      id,
      error: known ? { code: error.code, message: error.text, hint: error.hint }
        : { code: "web.unexpected", message: String(error), hint: "" },
    });
  }
});
