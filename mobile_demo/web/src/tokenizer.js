/**
 * The tokenizer of the text encoder: a prompt to int64 ids by CLIP's byte-pair encoding, equal to
 * the Python runtime's. Small worlds use `unknown_words: drop`: only whole known words count.
 */

import { END_OF_WORD, byteAlphabet, mergeWord } from "./bytepairs.js";
import { HummingbirdError } from "./errors.js";
import { clean, hasLetters, splitWords } from "./wordsplit.js";

/**
 * @typedef {object} TokenizerConfig `tokenizer_config.json`
 * @property {number} model_max_length length of the id row, start and end included
 * @property {number} bos_token_id
 * @property {number} eos_token_id
 * @property {number} pad_token_id
 * @property {"encode" | "drop"} [unknown_words]
 *
 * @typedef {object} Tokens
 * @property {BigInt64Array} ids [model_max_length]: start, prompt, end, padding
 * @property {boolean} truncated whether the prompt was longer than the model reads
 * @property {number} numTokens start, whole prompt and end, without padding
 * @property {string[]} unknown words left out because the vocabulary lacks them
 */

export class Tokenizer {
  /**
   * @param {ReadonlyMap<string, number>} vocabulary token to id
   * @param {readonly string[]} merges "first second", the earliest merges first
   * @param {TokenizerConfig} config
   * @throws {HummingbirdError} `tokenizer.invalid`
   */
  constructor(vocabulary, merges, config) {
    this.config = { unknown_words: "encode", ...config };
    this.vocabulary = vocabulary;
    /** @type {Map<string, number>} */
    this.ranks = new Map();
    merges.forEach((pair, rank) => {
      if (!this.ranks.has(pair)) this.ranks.set(pair, rank);
    });
    this.alphabet = byteAlphabet();
    const { bos_token_id, eos_token_id, pad_token_id, model_max_length } = this.config;
    const ids = new Set(vocabulary.values());
    if (!(model_max_length >= 2)) refuse(`model_max_length ${model_max_length}`, "at least 2");
    if (![bos_token_id, eos_token_id, pad_token_id].every((id) => ids.has(id))) {
      refuse(`control ids ${[bos_token_id, eos_token_id, pad_token_id]}`, "ids of the vocabulary");
    }
    if (this.config.unknown_words === "encode") {
      const needed = [
        ...this.alphabet, ...this.alphabet.map((letter) => letter + END_OF_WORD),
        ...[...this.ranks.keys()].map((pair) => pair.replace(" ", "")),
      ];
      const missing = needed.filter((symbol) => !vocabulary.has(symbol));
      if (missing.length) {
        refuse(`${missing.length} symbols without an id, such as '${missing[0]}'`,
          "an id for every byte and merge");
      }
    }
  }

  /**
   * Read the three files of a tokenizer folder.
   * @param {{vocab: string, merges: string, config: string}} files their texts
   * @returns {Tokenizer}
   */
  static fromFiles({ vocab, merges, config }) {
    return new Tokenizer(readVocabulary(vocab), parseMerges(merges), JSON.parse(config));
  }

  /**
   * The ids of a prompt; an empty prompt is start, end and padding.
   * @param {string} prompt
   * @returns {Tokens}
   * @throws {HummingbirdError} `prompt.encoding` when the text holds a lone surrogate
   */
  encode(prompt) {
    if (/\p{Surrogate}/u.test(prompt)) {
      throw new HummingbirdError("prompt.encoding",
        "prompt, got a lone surrogate, expected text that can be written as UTF-8",
        "type the text again");
    }
    const { bos_token_id, eos_token_id, pad_token_id, model_max_length } = this.config;
    const ids = [bos_token_id];
    /** @type {Set<string>} */
    const unknown = new Set();
    for (const word of splitWords(clean(prompt))) {
      const symbols = this.#symbols(word);
      const whole = symbols.length === 1 ? this.vocabulary.get(symbols[0]) : undefined;
      if (this.config.unknown_words === "encode") {
        for (const symbol of symbols) ids.push(/** @type {number} */ (this.vocabulary.get(symbol)));
      } else if (whole !== undefined) {
        ids.push(whole);
      } else if (hasLetters(word)) {
        unknown.add(word);
      }
    }
    ids.push(eos_token_id);
    const row = new BigInt64Array(model_max_length).fill(BigInt(pad_token_id));
    ids.slice(0, model_max_length).forEach((id, i) => { row[i] = BigInt(id); });
    const truncated = ids.length > model_max_length;
    if (truncated) row[model_max_length - 1] = BigInt(eos_token_id);
    return { ids: row, truncated, numTokens: ids.length, unknown: [...unknown] };
  }

  /** @param {string} word @returns {string[]} */
  #symbols(word) {
    const bytes = Array.from(new TextEncoder().encode(word));
    const characters = bytes.map((byte) => this.alphabet[byte]);
    characters[characters.length - 1] += END_OF_WORD;
    return mergeWord(characters, this.ranks);
  }
}

/**
 * Parse `vocab.json`: distinct tokens to distinct ids.
 * @param {string} text @returns {Map<string, number>}
 */
export function readVocabulary(text) {
  const value = JSON.parse(text);
  const entries = value && typeof value === "object" ? Object.entries(value) : [];
  const ids = new Set(entries.map(([, id]) => id));
  const whole = entries.every(([, id]) => Number.isInteger(id) && id >= 0 && id < 2 ** 31);
  if (!entries.length || !whole || ids.size !== entries.length) {
    refuse("vocab.json without distinct whole ids", "token to id");
  }
  return new Map(entries);
}

/**
 * Parse `merges.txt`: an optional `#version` line, then one pair of symbols a line.
 * @param {string} text @returns {string[]} "first second"
 */
export function parseMerges(text) {
  return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line, number) => {
    if (line === "" || (number === 0 && line.startsWith("#version"))) return false;
    const parts = line.split(" ");
    if (parts.length !== 2 || !parts[0] || !parts[1]) {
      refuse(`merges.txt line ${number + 1} '${line.slice(0, 40)}'`, "two symbols and a space");
    }
    return true;
  });
}

/** @param {string} got @param {string} expected @returns {never} */
function refuse(got, expected) {
  throw new HummingbirdError("tokenizer.invalid", `tokenizer, got ${got}, expected ${expected}`,
    "export or copy the bundle again");
}
