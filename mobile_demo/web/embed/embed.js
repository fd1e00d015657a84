/** Hummingbird in another page: open once, draw, play. Complete; shown in docs/web.md. */

import { Hummingbird } from "../src/client.js";
import { Player } from "../src/player.js";

const canvas = /** @type {HTMLCanvasElement} */ (document.getElementById("clip"));
const status = /** @type {HTMLElement} */ (document.getElementById("status"));

try {
  const bird = await Hummingbird.open({ bundle: "../bundle/" });
  for await (const event of bird.stream("a large blue ring on a grey background", { seed: 3 })) {
    if (event.type === "step") status.textContent = `step ${event.i + 1} of ${event.n}`;
    if (event.type === "warning") console.info(event.text);
    if (event.type === "done" && event.video) {
      new Player(canvas).show(event.video);
      canvas.setAttribute("aria-label", event.video.prompt);
      status.textContent = `drawn on ${bird.info.engine.label}`;
    }
  }
} catch (error) {
  status.textContent = String(error);
}
