"""What the tests of the web page share: the phone, its page, and runs through the page's module."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
from chromium import Browser, Tab

PHONE = {"width": 360, "height": 800, "scale": 2, "mobile": True}
PROMPT = "a small red circle moving to the left on a black background"
SEED = 7
STATUS = "document.querySelector('#status').textContent"
READY = f"/thread|WebGPU/.test({STATUS})"
IDLE = "document.querySelector('#go').textContent === 'Draw'"
# what the browser itself says where there is no graphics adapter; nothing a page can do about it
BENIGN = re.compile(r"No available adapters")


def open_page(browser: Browser, url: str, **device: Any) -> Tab:
    tab = browser.tab(**(PHONE | device))
    tab.open(url)
    tab.wait(READY)
    return tab


def draw(tab: Tab) -> float:
    """Press the button, wait for the clip; seconds that the page says it took."""
    tab.tap("#go")
    tab.wait(f"!({IDLE})")
    tab.wait(IDLE, wait_s=120)
    found = re.match(r"([\d.]+) s · ", tab.run(STATUS))
    assert found, tab.run(STATUS)
    return float(found[1])


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


ENCODED = """(values => {
  let text = "";
  for (const byte of new Uint8Array(values.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
})"""


def latents_of(tab: Tab, bundle: str, prompt: str, **options: Any) -> np.ndarray:
    """Latents of a run through the page's module, in a worker of its own."""
    script = f"""(async () => {{
      const {{ Hummingbird }} = await import("/src/client.js");
      const bird = await Hummingbird.open({{ bundle: {json.dumps(bundle)}, provider: "wasm" }});
      let latents;
      const options = {{ outputType: "latent", ...{json.dumps(options)} }};
      for await (const event of bird.stream({json.dumps(prompt)}, options)) {{
        if (event.type === "done") latents = event.latents;
      }}
      bird.close();
      return {ENCODED}(latents);
    }})()"""
    return floats(tab.run(script, wait_s=180))
