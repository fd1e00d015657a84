/**
 * `npm run build [-- --bundle DIR] [-- --out DIR]`: the static page in dist/, with ONNX Runtime Web
 * and one bundle beside it, and the list of files that the service worker keeps.
 */

import { createHash } from "node:crypto";
import {
  cpSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync,
} from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUILT_IN = join(HERE, "../../runtime/hummingbird_runtime/_bundles/shapes-v1");
const PAGE = ["index.html", "style.css", "icon.svg", "site.webmanifest", "sw.js", "src", "embed"];
const ENGINE = join(HERE, "node_modules/onnxruntime-web");
const BINARY = "ort-wasm-simd-threaded";
const WEBASSEMBLY = ["ort.wasm.min.mjs", `${BINARY}.mjs`, `${BINARY}.wasm`];
const WEBGPU = ["ort.webgpu.min.mjs", `${BINARY}.asyncify.mjs`, `${BINARY}.asyncify.wasm`];
/** Bytes of a bundle that the page and its service worker fetch without being asked. */
const KEPT_UNASKED = 64 * 2 ** 20;

const { values } = parseArgs({
  options: {
    bundle: { type: "string", default: BUILT_IN },
    out: { type: "string", default: "dist" },
  },
});
const out = resolve(HERE, values.out);
if (`${HERE}${sep}`.startsWith(out + sep)) { // it is emptied first
  throw new Error(`out, got ${out}, expected a folder of its own`);
}

/** @param {string} path */
const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");

/** @param {string} folder @returns {string[]} */
function filesOf(folder) {
  return readdirSync(folder).sort().flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? filesOf(path) : [path];
  });
}

rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, "vendor"), { recursive: true });
for (const name of PAGE) cpSync(join(HERE, name), join(out, name), { recursive: true });
for (const name of [...WEBASSEMBLY, ...WEBGPU]) {
  // the source map's comment would make the browser's tools ask for a file that is not here
  const from = join(ENGINE, "dist", name), to = join(out, "vendor", name);
  if (name.endsWith(".wasm")) cpSync(from, to);
  else writeFileSync(to, readFileSync(from, "utf8").replace(/\n\/\/# sourceMappingURL=.*/, ""));
}
cpSync(join(HERE, "onnxruntime-licence.txt"), join(out, "vendor", "LICENSE.txt"));
cpSync(values.bundle, join(out, "bundle"), { recursive: true });

/** @param {string} folder */
const bytesOf = (folder) => filesOf(folder).reduce((sum, path) => sum + statSync(path).size, 0);
const large = bytesOf(join(out, "bundle")) > KEPT_UNASKED;
/** @type {Record<string, string>} */
const core = {}, later = {}; // kept at once; kept when first asked for
for (const path of filesOf(out)) {
  const name = relative(out, path).split(sep).join("/");
  if (name === "sw.js") continue;
  const engine = WEBGPU.includes(name.replace("vendor/", ""));
  (engine || (large && /^bundle\/.*onnx/.test(name)) ? later : core)[name] = digest(path);
}
const manifest = core["bundle/manifest.json"].slice(0, 16);
const page = createHash("sha256").update(JSON.stringify([core, later])).digest("hex").slice(0, 16);
const assets = { cache: `hummingbird-${manifest}-${page}`, core, later };
const list = JSON.stringify(assets, null, 1);
writeFileSync(join(out, "assets.js"), `self.HUMMINGBIRD_ASSETS = ${list};\n`);
console.log(`${out}: ${filesOf(out).length} files, ${(bytesOf(out) / 1e6).toFixed(1)} MB, `
  + `cache ${assets.cache}`);
