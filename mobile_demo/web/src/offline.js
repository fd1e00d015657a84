/**
 * The service worker's side of the page: it keeps every file for use without a network, and gives
 * the page cross-origin isolation (threads) on hosts that cannot send the headers for it.
 */

const RELOADED = "hummingbird-reloaded";

/**
 * @param {() => unknown} onReady called once the page's files are kept and come from the cache
 * @returns {{beforeOpening: Promise<boolean>, install: () => void}} `beforeOpening` tells whether
 *   the page is about to be loaded again; call `install` when the model is open, so that the two
 *   downloads do not compete
 */
export function installOffline(onReady) {
  const workers = navigator.serviceWorker;
  if (!workers) return { beforeOpening: Promise.resolve(false), install: () => {} };
  const register = async () => {
    await workers.register(new URL("../sw.js", import.meta.url));
    await workers.ready;
    if (!workers.controller) {
      await new Promise((resolve) => {
        workers.addEventListener("controllerchange", resolve, { once: true });
      });
    }
    await onReady();
  };
  const isolate = async () => {
    if (globalThis.crossOriginIsolated || sessionStorage.getItem(RELOADED)) return false;
    try {
      await register();
    } catch {
      return false; // no threads and nothing kept, but the page works
    }
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
    return true;
  };
  return { beforeOpening: isolate(), install: () => { register().catch(() => {}); } };
}
