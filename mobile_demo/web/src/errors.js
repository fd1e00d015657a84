/**
 * The errors of the page: a stable code, what was got and expected, and how to fix it.
 * The codes are those of docs/errors.md.
 */

export class HummingbirdError extends Error {
  /**
   * @param {string} code stable dotted identifier, such as `bundle.hash_mismatch`
   * @param {string} message what was wrong, what was got, what was expected
   * @param {string} [hint] how to fix it
   */
  constructor(code, message, hint = "") {
    super(hint ? `${message}; ${hint}` : message);
    this.name = "HummingbirdError";
    this.code = code;
    /** The message without the hint. */
    this.text = message;
    this.hint = hint;
  }
}

/** @param {string} where @param {string} problem @returns {never} */
export function invalid(where, problem) {
  throw new HummingbirdError(
    "bundle.manifest_invalid", `${where}: ${problem}`, "export or copy the bundle again");
}
