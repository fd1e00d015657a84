/**
 * A clip as a file: a video by the browser's own recorder (MP4 where it can, else WebM), or an
 * animated PNG of exact pixels, which needs no codec.
 */

import { encodeApng } from "./apng.js";
import { HummingbirdError } from "./errors.js";
import { frameImage } from "./player.js";

/** @typedef {import("./player.js").Clip} Clip */

const VIDEO_TYPES = [
  "video/mp4;codecs=avc1.42E01E", "video/mp4;codecs=avc1.4D401F", "video/mp4",
  "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm",
];
const LONG_SIDE = 512; // small clips are enlarged by a whole factor up to this
const BITS_PER_SECOND = 4_000_000;

/** The recorder's format on this device; null where it has none. @returns {string | null} */
export function videoType() {
  const able = typeof MediaRecorder !== "undefined" && HTMLCanvasElement.prototype.captureStream;
  if (!able) return null;
  return VIDEO_TYPES.find((type) => MediaRecorder.isTypeSupported(type)) ?? null;
}

/** Whole factor by which a clip is enlarged in a file. @param {Clip} clip @returns {number} */
export function fileScale({ height, width }) {
  return Math.max(1, Math.floor(LONG_SIDE / Math.max(height, width)));
}

/** @param {Clip} clip @returns {Promise<Blob>} */
export function saveApng(clip) {
  return encodeApng(clip, fileScale(clip));
}

/**
 * Record the clip once; takes as long as the clip.
 * @param {Clip} clip @param {(done: number, total: number) => void} [onProgress] in frames
 * @returns {Promise<Blob>}
 * @throws {HummingbirdError} `web.recorder`
 */
export async function saveVideo(clip, onProgress = () => {}) {
  const mimeType = videoType();
  if (!mimeType) {
    throw new HummingbirdError("web.recorder", "this browser records no video",
      "save an animated PNG");
  }
  const scale = fileScale(clip);
  const small = document.createElement("canvas");
  const large = document.createElement("canvas");
  [small.width, small.height] = [clip.width, clip.height];
  [large.width, large.height] = [clip.width * scale, clip.height * scale];
  const from = /** @type {CanvasRenderingContext2D} */ (small.getContext("2d"));
  const to = /** @type {CanvasRenderingContext2D} */ (large.getContext("2d"));
  to.imageSmoothingEnabled = false;
  const stream = large.captureStream(0);
  const track = /** @type {CanvasCaptureMediaStreamTrack} */ (stream.getVideoTracks()[0]);
  const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: BITS_PER_SECOND });
  /** @type {Blob[]} */
  const parts = [];
  const ended = new Promise((resolve, reject) => {
    recorder.ondataavailable = ({ data }) => parts.push(data);
    recorder.onstop = resolve;
    recorder.onerror = () => reject(new HummingbirdError("web.recorder", "the recorder failed",
      "save an animated PNG"));
  });
  recorder.start();
  const begin = performance.now();
  for (let frame = 0; frame <= clip.count; frame++) {
    // the last frame is sent twice: a recorder gives a frame its length when the next one comes
    from.putImageData(frameImage(clip, Math.min(frame, clip.count - 1)), 0, 0);
    to.drawImage(small, 0, 0, large.width, large.height);
    track.requestFrame();
    onProgress(frame, clip.count);
    const due = begin + (frame + 1) * 1000 / clip.fps;
    await new Promise((resolve) => { setTimeout(resolve, Math.max(0, due - performance.now())); });
  }
  recorder.stop();
  await ended;
  track.stop();
  return new Blob(parts, { type: mimeType.split(";")[0] });
}

/** A file name out of a prompt. @param {string} prompt @param {string} seed @param {Blob} blob */
export function fileName(prompt, seed, blob) {
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["clip"];
  const ending = /** @type {Record<string, string>} */ (
    { "video/mp4": "mp4", "video/webm": "webm", "image/png": "png", "application/json": "json" });
  return `${words.join("-").slice(0, 60)}-${seed}.${ending[blob.type] ?? "bin"}`;
}

/** Offer a file for download. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
