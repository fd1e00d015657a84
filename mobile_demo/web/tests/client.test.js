/** What a page hears when its worker answers, dies, or is closed: on a worker that is scripted. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Hummingbird } from "../src/client.js";

/** A worker that opens at once; `play` answers the calls of `stream`.
 * @param {(worker: any, id: number) => void} play */
function scripted(play) {
  globalThis.document = { baseURI: "http://localhost/" };
  globalThis.Worker = class {
    postMessage({ id, call }) {
      queueMicrotask(() => {
        if (call === "open") this.onmessage({ data: { id, result: {} } });
        if (call === "stream") play(this, id);
      });
    }

    terminate() {
      this.ended = true;
    }
  };
}

/** @param {Hummingbird} bird */
async function types(bird) {
  const found = [];
  for await (const event of bird.stream("a ball")) found.push(event.type);
  return found;
}

/** @param {string} code */
const coded = (code) => (/** @type {any} */ error) => error.code === code;

test("events come in order and end with the run", async () => {
  scripted((worker, id) => {
    for (const type of ["started", "step", "done"]) {
      worker.onmessage({ data: { id, event: { type } } });
    }
    worker.onmessage({ data: { id } });
  });
  assert.deepEqual(await types(await Hummingbird.open()), ["started", "step", "done"]);
});

test("a worker that dies is told as that, not as cancelled, and the next run opens a new one",
  async () => {
    let runs = 0;
    scripted((worker, id) => {
      if (runs++) worker.onmessage({ data: { id } });
      else worker.onerror({ message: "out of memory", preventDefault() {} });
    });
    const bird = await Hummingbird.open();
    await assert.rejects(types(bird), coded("web.worker"));
    assert.deepEqual(await types(bird), []);
  });

test("closing ends a run as cancelled", async () => {
  const bird = { current: /** @type {any} */ (null) };
  scripted(() => bird.current.close());
  bird.current = await Hummingbird.open();
  await assert.rejects(types(bird.current), coded("runtime.cancelled"));
});
