/**
 * CLIP's text cleaning and word splitting, as the Python runtime does it: HTML entities undone
 * twice (Python's `html.unescape`), white space collapsed, lower case, words by Unicode category.
 */

import { CODE_POINTS, NAMES } from "./entities.js";

const REFERENCE = /&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)/gu;
// what Python's str.split() takes as white space; JavaScript's \s differs from it
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
// U+0345, a mark that folds to a letter, falls through the published pattern
const DROPPED = new Set([" ", "\u0345"]);
// U+017F, the long s, matches an s when case is ignored and survives lower case
const CONTRACTION = /^'(?:[s\u017f]|t|re|ve|m|ll|d)/u;

/** @param {string} text @returns {string} */
export function clean(text) {
  const plain = unescapeHtml(unescapeHtml(text));
  return plain.split(SPACE).filter(Boolean).join(" ").toLowerCase();
}

/**
 * Words of a cleaned text: contractions, runs of letters, single digits, runs of the rest.
 * @param {string} text @returns {string[]}
 */
export function splitWords(text) {
  const characters = Array.from(text);
  const kinds = characters.map(kindOf);
  const words = [];
  let position = 0;
  while (position < characters.length) {
    const start = position, kind = kinds[position];
    const found = characters[start] === "'"
      ? CONTRACTION.exec(characters.slice(start, start + 3).join("")) : null;
    if (found) {
      position += found[0].length;
    } else if (kind === "N") {
      position += 1;
    } else {
      while (position < characters.length && kinds[position] === kind) position += 1;
    }
    if (kind !== " ") words.push(characters.slice(start, position).join(""));
  }
  return words;
}

/** Whether a word says something: punctuation alone does not.
 * @param {string} word @returns {boolean} */
export function hasLetters(word) {
  return Array.from(word).some((character) => "LN".includes(kindOf(character)));
}

/** `L` letter, `N` number, a space for what is dropped, `S` everything else.
 * @param {string} character @returns {string} */
function kindOf(character) {
  if (DROPPED.has(character)) return " ";
  if (/\p{L}/u.test(character)) return "L";
  return /\p{N}/u.test(character) ? "N" : "S";
}

/** Python's `html.unescape`. @param {string} text @returns {string} */
export function unescapeHtml(text) {
  return text.replace(REFERENCE, (whole, /** @type {string} */ body) => {
    if (body[0] === "#") {
      const digits = body.replace(/;$/, "");
      const hex = digits[1] === "x" || digits[1] === "X";
      const number = parseInt(digits.slice(hex ? 2 : 1), hex ? 16 : 10);
      const known = CODE_POINTS.get(number);
      if (known !== undefined) return known;
      if ((number >= 0xd800 && number <= 0xdfff) || number > 0x10ffff) return "\ufffd";
      return String.fromCodePoint(number);
    }
    for (let end = body.length; end > 1; end--) {
      const named = NAMES.get(body.slice(0, end));
      if (named !== undefined) return named + body.slice(end);
    }
    return whole;
  });
}
