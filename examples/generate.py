"""One clip from the built-in model, saved as an animated PNG.

python examples/generate.py [PROMPT]
"""

import sys

from hummingbird_runtime import TextToVideoPipeline


def main(prompt: str = "a small red circle moving to the left on a black background") -> None:
    with TextToVideoPipeline.from_pretrained() as pipe:
        video = pipe(prompt, seed=7)
    for warning in video.warnings:
        print(warning.text)
    video.save("clip.png")
    print(f"clip.png: {len(video.frames)} frames, {video.timings['total']:.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:2])
