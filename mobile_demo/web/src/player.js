/** A clip played in a loop on a canvas: one canvas pixel a clip pixel, enlarged crisply by CSS. */

/**
 * @typedef {{frames: Uint8Array, count: number, height: number, width: number, fps: number}} Clip
 */

export class Player {
  /** @type {Clip | null} */
  #clip = null;
  #playing = false;
  #frame = 0;
  #shownAt = 0;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(frame: number, playing: boolean) => void} [onChange]
   */
  constructor(canvas, onChange = () => {}) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.onChange = onChange;
  }

  get frame() {
    return this.#frame;
  }

  get playing() {
    return this.#playing;
  }

  /** @param {Clip | null} clip @param {{play?: boolean}} [options] */
  show(clip, { play = true } = {}) {
    const same = clip && this.#clip && clip.count === this.#clip.count;
    this.#clip = clip;
    if (!clip) {
      this.#playing = false;
      return;
    }
    if (this.canvas.width !== clip.width || this.canvas.height !== clip.height) {
      this.canvas.width = clip.width;
      this.canvas.height = clip.height;
    }
    if (!same) this.#frame = 0;
    this.#draw();
    if (play && !this.#playing) this.play();
    if (!play) this.pause();
  }

  play() {
    if (!this.#clip) return;
    this.#playing = true;
    this.#shownAt = performance.now();
    this.onChange(this.#frame, true);
    requestAnimationFrame(this.#tick);
  }

  pause() {
    this.#playing = false;
    this.onChange(this.#frame, false);
  }

  /** @param {number} frame */
  seek(frame) {
    this.pause();
    this.#frame = frame;
    this.#draw();
  }

  #tick = (/** @type {number} */ now) => {
    if (!this.#playing || !this.#clip) return;
    const due = Math.floor((now - this.#shownAt) / 1000 * this.#clip.fps);
    if (due > 0) {
      this.#shownAt = due > 4 ? now : this.#shownAt + due * 1000 / this.#clip.fps;
      this.#frame = (this.#frame + due) % this.#clip.count;
      this.#draw();
    }
    requestAnimationFrame(this.#tick);
  };

  #draw() {
    if (!this.#clip) return;
    this.#frame = Math.min(this.#frame, this.#clip.count - 1);
    this.context.putImageData(frameImage(this.#clip, this.#frame), 0, 0);
    this.onChange(this.#frame, this.#playing);
  }
}

/** One frame with an opaque alpha channel. @param {Clip} clip @param {number} frame */
export function frameImage({ frames, height, width }, frame) {
  const image = new ImageData(width, height), cells = height * width, from = frame * cells * 3;
  for (let i = 0; i < cells; i++) {
    image.data[4 * i] = frames[from + 3 * i];
    image.data[4 * i + 1] = frames[from + 3 * i + 1];
    image.data[4 * i + 2] = frames[from + 3 * i + 2];
    image.data[4 * i + 3] = 255;
  }
  return image;
}
