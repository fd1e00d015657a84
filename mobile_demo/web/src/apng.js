/**
 * A clip as an animated PNG: exact pixels, plays in every browser, needs no codec. Rows are stored
 * as differences to the row above, which makes enlarged pixels cost next to nothing.
 */

/** @typedef {import("./player.js").Clip} Clip */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const UP = 2; // the filter: difference to the row above

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

/**
 * @param {Clip} clip
 * @param {number} scale screen pixels of a clip pixel along one side
 * @returns {Promise<Blob>} image/png
 */
export async function encodeApng(clip, scale) {
  const { count, height, width, fps } = clip;
  const h = height * scale, w = width * scale;
  const parts = [
    Uint8Array.from(SIGNATURE),
    chunk("IHDR", words(w, h), Uint8Array.of(8, 2, 0, 0, 0)), // 8 bits, RGB
    chunk("acTL", words(count, 0)), // 0: loops for ever
  ];
  let sequence = 0;
  for (let frame = 0; frame < count; frame++) {
    const delay = Uint8Array.of(0, 1, (fps >>> 8) & 255, fps & 255, 0, 0);
    parts.push(chunk("fcTL", words(sequence++, w, h, 0, 0), delay));
    const data = await deflate(filteredRows(clip, frame, scale));
    if (frame === 0) parts.push(chunk("IDAT", data));
    else parts.push(chunk("fdAT", words(sequence++), data));
  }
  parts.push(chunk("IEND"));
  return new Blob(/** @type {BlobPart[]} */ (parts), { type: "image/png" });
}

/** @param {Clip} clip @param {number} frame @param {number} scale @returns {Uint8Array} */
function filteredRows({ frames, height, width }, frame, scale) {
  const stride = 1 + width * scale * 3;
  const rows = new Uint8Array(height * scale * stride);
  for (let y = 0; y < height * scale; y++) {
    rows[y * stride] = UP;
    if (y % scale) continue; // the same row again: no difference
    const from = (frame * height + y / scale) * width * 3, above = from - width * 3;
    for (let x = 0; x < width * scale; x++) {
      for (let c = 0; c < 3; c++) {
        const at = 3 * Math.floor(x / scale) + c;
        rows[y * stride + 1 + 3 * x + c] = frames[from + at] - (y ? frames[above + at] : 0);
      }
    }
  }
  return rows;
}

/** zlib. @param {Uint8Array} data @returns {Promise<Uint8Array>} */
async function deflate(data) {
  const stream = new Blob([/** @type {BlobPart} */ (data)]).stream()
    .pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @param {string} type @param {...Uint8Array} parts @returns {Uint8Array} */
function chunk(type, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const whole = new Uint8Array(length + 12);
  whole.set(words(length));
  let at = 4;
  for (const part of [new TextEncoder().encode(type), ...parts]) {
    whole.set(part, at);
    at += part.length;
  }
  let crc = 0xffffffff;
  for (const byte of whole.subarray(4, at)) crc = CRC[(crc ^ byte) & 255] ^ (crc >>> 8);
  whole.set(words((crc ^ 0xffffffff) >>> 0), at);
  return whole;
}

/** Big-endian 32-bit words. @param {...number} values @returns {Uint8Array} */
function words(...values) {
  const bytes = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => bytes.setUint32(4 * i, value));
  return new Uint8Array(bytes.buffer);
}
