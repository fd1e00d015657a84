/**
 * Byte-pair encoding of one word, and the byte-level alphabet of GPT-2 and CLIP: every byte is one
 * printable character, the last symbol of a word carries `</w>`.
 */

export const END_OF_WORD = "</w>";

/** Byte to character, in CLIP's order: printable Latin-1 first, the rest from U+0100 on.
 * @returns {string[]} 256 characters, by byte */
export function byteAlphabet() {
  const printable = [[0x21, 0x7f], [0xa1, 0xad], [0xae, 0x100]]
    .flatMap(([start, stop]) => Array.from({ length: stop - start }, (_, i) => start + i));
  const alphabet = new Array(256).fill("");
  for (const byte of printable) alphabet[byte] = String.fromCharCode(byte);
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    if (!alphabet[byte]) alphabet[byte] = String.fromCharCode(next++);
  }
  return alphabet;
}

/**
 * Merge one word's symbols, the best-ranked pair first, all its places from left to right.
 * @param {readonly string[]} symbols the word as byte characters, the last one ending in `</w>`
 * @param {ReadonlyMap<string, number>} ranks "first second" to rank, 0 merges first
 * @returns {string[]}
 */
export function mergeWord(symbols, ranks) {
  let word = [...symbols];
  while (word.length > 1) {
    let best = Infinity, first = "", second = "";
    for (let i = 0; i + 1 < word.length; i++) {
      const rank = ranks.get(`${word[i]} ${word[i + 1]}`);
      if (rank !== undefined && rank < best) [best, first, second] = [rank, word[i], word[i + 1]];
    }
    if (best === Infinity) break;
    const merged = [];
    for (let i = 0; i < word.length; i++) {
      if (word[i] === first && word[i + 1] === second) {
        merged.push(first + second);
        i++;
      } else {
        merged.push(word[i]);
      }
    }
    word = merged;
  }
  return word;
}
