"""One prompt, four seeds, side by side in one file. One pipeline serves all calls.

python examples/batch_of_seeds.py
"""

import numpy as np

from hummingbird_runtime import TextToVideoPipeline, Video

PROMPT = "a big green triangle falling in front of a checker background"


def main(count: int = 4) -> None:
    with TextToVideoPipeline.from_pretrained() as pipe:
        # A list is drawn in order with the seeds 100, 101, ..; equal seeds give equal clips.
        videos = pipe([PROMPT] * count, seed=100)
    row = np.concatenate([video.frames for video in videos], axis=2)  # (f, h, count * w, 3)
    Video(row, fps=videos[0].fps, prompt=PROMPT).save("seeds.png")
    print("seeds.png:", ", ".join(str(video.seed) for video in videos))


if __name__ == "__main__":
    main()
