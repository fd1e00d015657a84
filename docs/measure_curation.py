"""Clips a second of the full weights-free curation pass, and the share of every stage.

    python docs/measure_curation.py [--clips 12] [--processes 2] [--keep clip.mp4]

The clip is synthetic and as hard to decode as footage: 336 x 596, 17.5 s at 25 fps, a picture with
the spectrum of photographs that pans and zooms behind moving objects, film grain in every frame,
H.264 at 1.5 Mbit/s. Each process scores its share of the clips after one that does not count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, FPS, SECONDS, BITS = 596, 336, 25, 17.5, 1_500_000
GRAIN = 5.0  # grey levels


def main() -> None:
    """Make the clip, score it, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="write the clip here, or use the one that is")
    arguments = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # of the processes; clips are what runs in parallel
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.keep or Path(folder, "footage.mp4")
        if not path.exists():
            make_footage(path)
        size = path.stat().st_size
        each = max(1, arguments.clips // arguments.processes)
        with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(score, [str(path)] * arguments.processes, [1] * arguments.processes))
            begin = time.perf_counter()
            parts = list(
                pool.map(score, [str(path)] * arguments.processes, [each] * arguments.processes)
            )
            wall = time.perf_counter() - begin
    clips = each * arguments.processes
    print(f"{WIDTH}x{HEIGHT}, {SECONDS} s at {FPS} fps, {size * 8 / SECONDS / 1e6:.2f} Mbit/s")
    print(f"{clips} clips, {arguments.processes} processes: {clips / wall:.2f} clips/s (wall)")
    total = sum(sum(part.values()) for part in parts) / clips
    print(f"{total:.3f} processor seconds a clip = {1 / total:.2f} clips/s of one core\n")
    print("| stage | ms of processor a clip | share |")
    print("|---|---|---|")
    for name in parts[0]:
        mean = sum(part[name] for part in parts) / clips
        print(f"| {name} | {mean * 1e3:.1f} | {mean / total:.1%} |")


def score(path: str, clips: int) -> dict[str, float]:
    """Score the file some times: processor seconds by stage, and of the decode."""
    from hummingbird_train.curation.clip import make_clip
    from hummingbird_train.curation.decode import run_stages
    from hummingbird_train.curation.stage import build_stages

    stages, spent = build_stages({}), defaultdict[str, float](float)
    for _ in range(clips):
        clock = time.process_time()
        for outcome in run_stages(make_clip(path), stages):
            if outcome.status != "ok":
                raise SystemExit(f"{outcome.stage}: {outcome.error}")
            now = time.process_time()
            whole = outcome.seconds + outcome.decode_seconds
            decoding = (now - clock) * (outcome.decode_seconds / whole if whole else 0.0)
            spent["scan and decode"] += decoding
            spent[outcome.stage] += now - clock - decoding
            clock = now
    return dict(spent)


def make_footage(path: Path) -> None:
    """Encode the clip."""
    from fractions import Fraction

    import av
    import cv2

    rng = np.random.default_rng(0)
    scene = photograph(rng, 2 * HEIGHT, 2 * WIDTH)
    things = [photograph(rng, 90, 70) for _ in range(3)]
    grain = rng.normal(0, GRAIN, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
    options = {"preset": "medium", "threads": "1"}
    count = round(FPS * SECONDS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS
        for k in range(count):
            zoom, shift = 1 + 0.2 * k / count, 0.5 * k
            at = np.array([[zoom, 0, -120 - shift], [0, zoom, -100 - 0.2 * shift]])
            frame = cv2.warpAffine(scene, at, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            for n, thing in enumerate(things):
                x = int((WIDTH - 70) * (0.5 + 0.45 * np.sin(k / (17 + 9 * n) + n)))
                y = int((HEIGHT - 90) * (0.5 + 0.4 * np.cos(k / (23 + 5 * n))))
                frame[y : y + 90, x : x + 70] = thing
            noisy = frame + np.roll(grain[k % 8], int(rng.integers(WIDTH)), axis=1)
            pixels = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def photograph(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture whose amplitudes fall with frequency as in photographs: float32 [h, w, 3]."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    planes = []
    for _ in range(3):
        spectrum = fall * np.exp(2j * np.pi * rng.random(fall.shape))
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append(plane / plane.std())
    mixed = 0.85 * planes[0][..., None] + 0.3 * np.stack(planes, axis=2)
    return np.clip(120 + 45 * mixed, 0, 255).astype(np.float32)


if __name__ == "__main__":
    main()
