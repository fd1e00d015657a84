/**
 * How many nodes of a graph each execution provider took. ONNX Runtime Web tells it in its verbose
 * log alone, which it writes to the console; the log is read here and kept from the console.
 */

const LINE = /placed on \[(\w+)\]\. Number of nodes: (\d+)/g;

/** @type {string[] | null} */
let heard = null;
let listening = false;

/** Listen from now on; call it before the engine is loaded, which keeps the console's function. */
export function listenToEngine() {
  if (listening) return;
  listening = true;
  const write = console.error.bind(console);
  console.error = (...words) => {
    if (heard) heard.push(words.join(" "));
    else write(...words);
  };
}

/**
 * Nodes of a graph by execution provider. It is opened with the verbose log and closed again: a
 * session keeps its level, and a line for every kernel of every run would cost more than the run.
 * @param {(options: {logSeverityLevel: 0}) => Promise<{release: () => Promise<void>}>} open
 * @returns {Promise<Record<string, number>>} empty where nobody listens
 */
export async function countNodes(open) {
  if (!listening) return {};
  /** @type {string[]} */
  const lines = heard = [];
  try {
    await (await open({ logSeverityLevel: 0 })).release();
  } finally {
    heard = null;
  }
  /** @type {Record<string, number>} */
  const nodes = {};
  for (const [, provider, count] of lines.join("\n").matchAll(LINE)) {
    nodes[provider] = (nodes[provider] ?? 0) + Number(count);
  }
  return nodes;
}
