/** The page: what the person sees and touches. Drawing happens in client.js's worker. */

import { showAbout } from "./about.js";
import { Hummingbird } from "./client.js";
import { engineFiles } from "./engine.js";
import { HummingbirdError } from "./errors.js";
import { installOffline } from "./offline.js";
import { Player } from "./player.js";
import { download, fileName, saveApng, saveVideo, videoType } from "./save.js";
import { followTheme } from "./theme.js";

/** @typedef {import("./pipeline.js").Video} Video */

/** Bytes of a bundle that are fetched without being asked for. */
const OPENED_UNASKED = 64 * 2 ** 20;
const TYPING_PAUSE_MS = 350;
const BUNDLE = new URL("../bundle/", import.meta.url).href;

/** @template {HTMLElement} T @param {string} id @returns {T} */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
const screen = byId("screen");
const welcome = byId("welcome");
const progress = /** @type {HTMLProgressElement} */ (byId("progress"));
const canvas = /** @type {HTMLCanvasElement} */ (byId("clip"));
const prompt = /** @type {HTMLTextAreaElement} */ (byId("prompt"));
const seed = /** @type {HTMLInputElement} */ (byId("seed"));
const go = /** @type {HTMLButtonElement} */ (byId("go"));
const playButton = byId("play");
const scrub = /** @type {HTMLInputElement} */ (byId("scrub"));
const provider = /** @type {HTMLSelectElement} */ (byId("provider"));
const sliders = {
  numInferenceSteps: /** @type {HTMLInputElement} */ (byId("steps")),
  guidanceScale: /** @type {HTMLInputElement} */ (byId("guidance")),
  numFrames: /** @type {HTMLInputElement} */ (byId("frames")),
};

/** @type {Promise<Hummingbird> | null} */
let client = null;
/** @type {AbortController | null} */
let drawing = null;
/** @type {Video | null} */
let video = null;
let offline = "";

const player = new Player(canvas, (frame, playing) => {
  scrub.value = String(frame);
  playButton.classList.toggle("paused", !playing);
  playButton.setAttribute("aria-label", playing ? "Pause" : "Play");
});

/** @param {string} text @param {{bad?: boolean}} [options] */
function say(text, { bad = false } = {}) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

/** @param {unknown} error */
function sayError(error) {
  const known = error instanceof HummingbirdError;
  if (known && error.code === "runtime.cancelled") say("Cancelled");
  else say(known ? `${error.message} (${error.code})` : String(error), { bad: true });
}

/** @param {number} [share] 0..1; none hides the bar */
function showProgress(share) {
  progress.hidden = share === undefined;
  if (share !== undefined) progress.value = share;
}

/** Open the model once for the chosen provider. @returns {Promise<Hummingbird>} */
function openClient() {
  client ??= (async () => {
    if (!video) byId("welcome-text").textContent = "Opening the model";
    say("Opening the model");
    showProgress(0);
    try {
      const opened = await Hummingbird.open({
        bundle: BUNDLE,
        provider: /** @type {"auto"} */ (provider.value),
        onProgress: (done, total) => showProgress(done / total),
      });
      fillControls(opened.info.manifest.model);
      return opened;
    } catch (error) {
      client = null;
      if (!video) byId("welcome-text").textContent = "The model could not be opened";
      throw error;
    } finally {
      showProgress();
    }
  })();
  return client;
}

async function ready() {
  const { info } = await openClient();
  if (!video && !drawing) byId("welcome-text").textContent = "Write a sentence, or take one below";
  if (offline) await keepEngine();
  say([info.engine.label, offline].filter(Boolean).join(" · "));
}

/** The service worker keeps an engine's files when they are asked for through it. */
async function keepEngine() {
  const opened = await client;
  if (opened) await Promise.all(engineFiles(opened.info.engine.provider).map((url) => fetch(url)));
}

let filled = false;
/** @param {import("./manifest.js").ModelFacts} facts */
function fillControls(facts) {
  if (filled) return;
  filled = true;
  const examples = facts.vocabulary_examples;
  if (!prompt.value) prompt.value = examples[0] ?? "";
  byId("examples").replaceChildren(...examples.map((text) => {
    const chip = document.createElement("button");
    chip.type = "button";
    chip.textContent = text;
    chip.addEventListener("click", () => {
      prompt.value = text;
      promptChanged();
      if (!drawing) void draw();
    });
    return chip;
  }));
  /** @param {HTMLInputElement} slider @param {readonly [number, number]} range
   * @param {number} value */
  const set = (slider, [low, high], value) => {
    [slider.min, slider.max, slider.value] = [low, high, value].map(String);
    slider.disabled = low === high;
    slider.dispatchEvent(new Event("input"));
  };
  const steps = facts.num_inference_steps;
  set(sliders.numInferenceSteps, steps.allowed, steps.default);
  set(sliders.guidanceScale, facts.guidance.allowed, facts.guidance.default);
  sliders.guidanceScale.disabled = facts.guidance.kind === "none";
  set(sliders.numFrames, facts.frames.allowed, facts.frames.default);
  screen.style.aspectRatio = `${facts.width.default} / ${facts.height.default}`;
  promptChanged();
}

function options() {
  return {
    seed: seed.value,
    ...Object.fromEntries(Object.entries(sliders)
      .filter(([, slider]) => !slider.disabled)
      .map(([name, slider]) => [name, Number(slider.value)])),
  };
}

async function draw() {
  const abort = drawing = new AbortController();
  go.textContent = "Cancel";
  go.classList.add("stop");
  screen.classList.add("drawing");
  /** @type {string[]} */
  const notes = [];
  const begin = performance.now();
  try {
    const opened = await openClient();
    abort.signal.throwIfAborted();
    say("Drawing");
    showProgress(0);
    for await (const event of opened.stream(prompt.value, { ...options(), signal: abort.signal })) {
      if (event.type === "warning" && !event.code.startsWith("prompt.")) notes.push(event.text);
      if (event.type === "tokens") hint(event);
      if (event.type === "step") {
        showProgress((event.i + 1) / (event.n + 1));
        say(`Step ${event.i + 1} of ${event.n}`);
        showClip({
          frames: event.preview, height: event.height, width: event.width,
          fps: opened.info.manifest.model.playback_fps,
          count: event.preview.length / (3 * event.height * event.width),
        });
      }
      if (event.type === "done" && event.video) {
        video = event.video;
        showClip(video);
        finished(video, begin, opened, notes);
      }
    }
  } catch (error) {
    sayError(abort.signal.aborted ? new HummingbirdError("runtime.cancelled", "cancelled") : error);
    player.show(video);
    screen.classList.toggle("empty", !video);
    welcome.hidden = Boolean(video);
    if (!video) byId("welcome-text").textContent = "Write a sentence, or take one below";
  } finally {
    drawing = null;
    go.textContent = "Draw";
    go.classList.remove("stop");
    screen.classList.remove("drawing");
    showProgress();
  }
}

/** @param {import("./player.js").Clip} clip */
function showClip(clip) {
  welcome.hidden = true;
  screen.classList.remove("empty");
  scrub.max = String(clip.count - 1);
  player.show(clip, { play: !matchMedia("(prefers-reduced-motion: reduce)").matches });
}

/** @param {Video} clip @param {number} begin @param {Hummingbird} opened @param {string[]} notes */
function finished(clip, begin, opened, notes) {
  const seconds = ((performance.now() - begin) / 1000).toFixed(1);
  canvas.setAttribute("aria-label", `Clip: ${clip.prompt}`);
  byId("transport").classList.remove("waiting");
  byId("save-video").hidden = videoType() === null;
  byId("share").hidden = !canShare();
  say([`${seconds} s`, opened.info.engine.label, ...notes].join(" · "));
}

function canShare() {
  const file = new File([""], "clip.png", { type: "image/png" });
  return typeof navigator.canShare === "function" && navigator.canShare({ files: [file] });
}

/** @param {HTMLElement} button @param {(clip: Video) => Promise<Blob>} encode
 * @param {(blob: Blob, name: string) => unknown} deliver */
function saves(button, encode, deliver) {
  button.addEventListener("click", async () => {
    const clip = video;
    if (!clip) return;
    /** @type {HTMLButtonElement} */ (button).disabled = true;
    try {
      const blob = await encode(clip);
      await deliver(blob, fileName(clip.prompt, clip.seed, blob));
      say(`Saved, ${Math.max(1, Math.round(blob.size / 1000))} kB`);
    } catch (error) {
      if (!(error instanceof DOMException && error.name === "AbortError")) sayError(error);
    } finally {
      /** @type {HTMLButtonElement} */ (button).disabled = false;
      showProgress();
    }
  });
}

/** @param {Video} clip */
async function recorded(clip) {
  if (!videoType()) return saveApng(clip);
  say("Recording the clip");
  return saveVideo(clip, (done, total) => showProgress(done / total));
}

/** What of the prompt the model will not see.
 * @param {{unknown: string[], truncated: boolean}} read */
function hint({ unknown, truncated }) {
  const words = unknown.length ? `This model does not know: ${unknown.join(", ")}.` : "";
  const cut = truncated ? " The sentence is too long; its end is ignored." : "";
  byId("hint").textContent = words + cut;
}

let typing = 0;
function promptChanged() {
  for (const chip of byId("examples").children) {
    chip.setAttribute("aria-pressed", String(chip.textContent === prompt.value));
  }
  clearTimeout(typing);
  typing = window.setTimeout(async () => {
    if (drawing || !client || !filled) return;
    try {
      hint(await (await client).tokens(prompt.value));
    } catch (error) {
      byId("hint").textContent = error instanceof HummingbirdError ? error.message : String(error);
    }
  }, TYPING_PAUSE_MS);
}

/** @returns {Promise<number>} bytes of the bundle */
async function bundleBytes() {
  const response = await fetch(`${BUNDLE}manifest.json`);
  if (!response.ok) return 0; // opening it says what is missing
  const { files } = await response.json();
  return Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
}

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (drawing) drawing.abort();
    else if (seed.reportValidity()) void draw();
    if (drawing?.signal.aborted) say("Cancelling");
  });
  prompt.addEventListener("input", promptChanged);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!drawing) /** @type {HTMLFormElement} */ (byId("ask")).requestSubmit();
    }
  });
  byId("dice").addEventListener("click", () => {
    seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
  });
  const opener = byId("settings-open");
  opener.addEventListener("click", () => {
    byId("settings").hidden = !byId("settings").hidden;
    opener.setAttribute("aria-expanded", String(!byId("settings").hidden));
  });
  for (const slider of Object.values(sliders)) {
    slider.addEventListener("input", () => {
      byId(`${slider.id}-value`).textContent = slider.value;
    });
  }
  provider.addEventListener("change", async () => {
    (await client?.catch(() => null))?.close();
    client = null;
    await ready().catch(sayError);
  });
  playButton.addEventListener("click", () => (player.playing ? player.pause() : player.play()));
  scrub.addEventListener("input", () => player.seek(Number(scrub.value)));
  saves(byId("save-video"), recorded, download);
  saves(byId("save-png"), saveApng, download);
  saves(byId("share"), recorded, (blob, name) =>
    navigator.share({ files: [new File([blob], name, { type: blob.type })] }));
  showAbout({ open: openClient, provider: () => provider.value, release, reopen: ready });
}

/** Free the model, so that a measurement has the device for itself. */
async function release() {
  drawing?.abort();
  (await client?.catch(() => null))?.close();
  client = null;
}

async function start() {
  followTheme(/** @type {HTMLButtonElement} */ (byId("theme")));
  listen();
  screen.classList.add("empty");
  go.disabled = false;
  const cached = installOffline(async () => {
    await keepEngine();
    offline = "works offline";
    if (client && !drawing && !video) await ready();
  });
  if (await cached.beforeOpening) return; // the page is loaded again, now with threads
  const bytes = await bundleBytes();
  if (bytes <= OPENED_UNASKED) {
    await ready();
  } else {
    byId("welcome-text").textContent = `The model has ${Math.round(bytes / 1e6)} MB and is fetched `
      + "when you draw the first clip";
    say("Not opened yet");
  }
  cached.install();
}

start().catch(sayError);
