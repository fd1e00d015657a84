"""Stop a run from another thread; the pipeline is ready for the next call.

python examples/cancel.py
"""

import threading

from hummingbird_runtime import Cancelled, CancelToken, TextToVideoPipeline

PROMPT = "a large blue ring on a grey background"


def main() -> None:
    with TextToVideoPipeline.from_pretrained() as pipe:
        token = CancelToken()  # stays cancelled: one token, one call

        def stop_after_first_step(step: object) -> None:
            threading.Thread(target=token.cancel).start()

        try:
            pipe(PROMPT, num_inference_steps=50, callback_on_step_end=stop_after_first_step,
                 cancel=token)  # fmt: skip
        except Cancelled as error:
            print(f"stopped: {error.code}")
        video = pipe(PROMPT)
        print(f"and drew {len(video.frames)} frames afterwards")


if __name__ == "__main__":
    main()
