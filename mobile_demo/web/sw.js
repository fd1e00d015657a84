/*
 * Service worker: keeps the page, the bundle and the WebAssembly engine for use without a network.
 * The cache's name holds the SHA-256 of the bundle's manifest and of the page's files; a file that
 * is not the listed one is not kept. Adds the headers of cross-origin isolation to every answer.
 * assets.js is written by build.js.
 */
importScripts("assets.js");

const { cache: NAME, core: CORE, later: LATER } = self.HUMMINGBIRD_ASSETS;
const PREFIX = "hummingbird-";
const ROOT = new URL("./", self.location).href;

self.addEventListener("install", (event) => event.waitUntil(keepAll()));
self.addEventListener("activate", (event) => event.waitUntil(takeOver()));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.href.startsWith(ROOT)) {
    event.respondWith(answer(event.request, pathOf(url)));
  }
});

async function keepAll() {
  const cache = await caches.open(NAME);
  for (const [path, digest] of Object.entries(CORE)) {
    if (!(await cache.match(ROOT + path))) await keep(cache, path, digest);
  }
}

async function keep(cache, path, digest) {
  const response = await fetch(ROOT + path, { cache: "no-cache" });
  const body = await response.arrayBuffer();
  const got = new Uint8Array(await crypto.subtle.digest("SHA-256", body));
  const hex = Array.from(got, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (!response.ok || hex !== digest) throw new Error(`${path} is not the listed file`);
  const kept = new Response(body, { headers: isolated(response.headers) });
  await cache.put(ROOT + path, kept.clone());
  return kept;
}

async function takeOver() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== NAME) await caches.delete(name);
  }
  await self.clients.claim();
}

async function answer(request, path) {
  const cache = await caches.open(NAME);
  const kept = await cache.match(ROOT + path);
  if (kept) return kept;
  if (path in LATER) return keep(cache, path, LATER[path]);
  const response = await fetch(request);
  if (response.type === "opaqueredirect" || response.status === 0) return response;
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers: isolated(response.headers) });
}

function isolated(headers) {
  const changed = new Headers(headers);
  changed.delete("Content-Encoding");
  changed.delete("Content-Length");
  changed.set("Cross-Origin-Opener-Policy", "same-origin");
  changed.set("Cross-Origin-Embedder-Policy", "require-corp");
  changed.set("Cross-Origin-Resource-Policy", "same-origin");
  return changed;
}

function pathOf(url) {
  const path = url.origin + url.pathname;
  return path.endsWith("/") ? `${path.slice(ROOT.length)}index.html` : path.slice(ROOT.length);
}
