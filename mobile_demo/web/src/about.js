/** The sheet about the model, its licence and this device, with the device's measurement. */

import { HummingbirdError } from "./errors.js";
import { measureDevice } from "./measure.js";
import { download } from "./save.js";

/**
 * @param {object} page
 * @param {() => Promise<import("./client.js").Hummingbird>} page.open
 * @param {() => string} page.provider
 * @param {() => Promise<void>} page.release frees the model
 * @param {() => Promise<void>} page.reopen opens it again
 */
export function showAbout({ open, provider, release, reopen }) {
  /** @template {HTMLElement} T @param {string} id @returns {T} */
  const byId = (id) => /** @type {T} */ (document.getElementById(id));
  const dialog = /** @type {HTMLDialogElement} */ (byId("about"));
  const button = /** @type {HTMLButtonElement} */ (byId("measure"));
  /** @type {Record<string, any> | null} */
  let measured = null;

  byId("about-open").addEventListener("click", async () => {
    dialog.showModal();
    try {
      const client = await open();
      const { manifest, digest, engine, bytes } = client.info;
      fill(byId("facts"), [
        ["Model", manifest.name],
        ["Size", `${(bytes / 1e6).toFixed(1)} MB, every file verified`],
        ["Manifest", digest.slice(0, 16)],
        ["Bundle", manifest.bundle_id],
        ["Runs on", engine.reason],
        ...nodeRows(engine.nodes),
        ["Engine", `ONNX Runtime Web ${engine.version}, MIT licence`],
        ["Licence", manifest.licence.name],
      ]);
      byId("grammar").textContent = manifest.model.grammar || "anything";
      byId("licence").textContent = await client.text(manifest.licence.file);
    } catch (error) {
      fill(byId("facts"), [["Model", error instanceof Error ? error.message : String(error)]]);
    }
  });
  byId("about-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  button.addEventListener("click", async () => {
    button.disabled = true;
    const text = byId("measure-text");
    try {
      await release();
      measured = await measureDevice({
        provider: /** @type {"auto"} */ (provider()),
        onClip: (done, total) => {
          text.textContent = `Clip ${Math.min(done + 1, total)} of ${total}`;
        },
      });
      text.textContent = `${measured.software.provider}, ${measured.device.system}`;
      showTimes(byId("measured"), measured.samples);
      byId("measure-save").hidden = false;
    } catch (error) {
      text.textContent = error instanceof HummingbirdError ? error.message : String(error);
    } finally {
      button.disabled = false;
      await reopen().catch(() => {});
    }
  });
  byId("measure-save").addEventListener("click", () => {
    const blob = new Blob([`${JSON.stringify(measured, null, 1)}\n`], { type: "application/json" });
    download(blob, `device-${measured?.measured_at.replace(/\D/g, "")}.json`);
  });
}

/** Which provider took how many nodes. @param {Record<string, Record<string, number>>} nodes
 * @returns {[string, string][]} */
function nodeRows(nodes) {
  /** @param {[string, number]} entry */
  const words = ([name, count]) => `${count} nodes ${name.replace("ExecutionProvider", "")}`;
  return Object.entries(nodes).filter(([, counts]) => Object.keys(counts).length)
    .map(([role, counts]) => [
      role.replaceAll("_", " "), Object.entries(counts).map(words).join(", "),
    ]);
}

/** @param {HTMLElement} list @param {[string, string][]} rows */
function fill(list, rows) {
  list.replaceChildren(...rows.flatMap(([name, value]) => [cell("dt", name), cell("dd", value)]));
}

/** @param {HTMLElement} table
 * @param {{phase: string, wall_s: number, steps_s: number[]}[]} samples */
function showTimes(table, samples) {
  const steady = samples.filter(({ phase }) => phase === "steady");
  /** @param {number[]} values */
  const middle = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
  const rows = [
    ["Opening and the first clip", samples[0].wall_s],
    ["One more clip", middle(steady.map(({ wall_s }) => wall_s))],
    ["One step of it", middle(steady.flatMap(({ steps_s }) => steps_s))],
  ];
  const body = /** @type {HTMLTableElement} */ (table).tBodies[0];
  body.replaceChildren(...rows.map(([name, seconds]) => {
    const row = document.createElement("tr");
    const head = /** @type {HTMLTableCellElement} */ (cell("th", String(name)));
    head.scope = "row";
    row.append(head, cell("td", `${Number(seconds).toFixed(2)} s`));
    return row;
  }));
  table.hidden = false;
}

/** @param {string} tag @param {string} text */
function cell(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
