/**
 * `npm start [-- --port N] [-- --dir DIR]`: dist/ on this machine, with the headers a host should
 * send: cross-origin isolation (threads) and the content security policy. For trying the page; any
 * static host over https serves it.
 */

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: { port: { type: "string", default: "8000" }, dir: { type: "string", default: "dist" } },
});
const root = resolve(dirname(fileURLToPath(import.meta.url)), values.dir);
/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
  ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json", ".webmanifest": "application/manifest+json",
  ".wasm": "application/wasm", ".txt": "text/plain; charset=utf-8",
};
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; "
    + "worker-src 'self'; connect-src 'self'; img-src 'self' blob:; style-src 'self'; "
    + "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
};

const server = createServer((request, response) => {
  // the page's own names are plain; anything escaped is none of them
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  const path = resolve(join(root, pathname.endsWith("/") ? `${pathname}index.html` : pathname));
  const inside = path.startsWith(root + sep);
  const status = inside ? statSync(path, { throwIfNoEntry: false }) : undefined;
  if (!status?.isFile()) {
    response.writeHead(404, HEADERS).end();
    return;
  }
  const tag = `"${status.size}-${status.mtimeMs}"`;
  const headers = {
    ...HEADERS, ETag: tag, "Content-Length": status.size,
    "Content-Type": TYPES[extname(path)] ?? "application/octet-stream",
  };
  if (request.headers["if-none-match"] === tag) response.writeHead(304, HEADERS).end();
  else createReadStream(path).pipe(response.writeHead(200, headers));
});
server.listen(Number(values.port), "127.0.0.1", () => {
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(`http://localhost:${address.port}/`);
});
