"""Events of a run: a rough preview after every step, then the frames as they are decoded.

python examples/stream_with_preview.py
"""

from hummingbird_runtime import TextToVideoPipeline, Video, events


def main() -> None:
    with TextToVideoPipeline.from_pretrained() as pipe:
        for event in pipe.stream("a medium yellow heart growing on a sky background", seed=1):
            if isinstance(event, events.Step):
                preview = Video(event.preview, fps=8)  # latent size, no decoder needed
                preview.save(f"preview-{event.i + 1}.png")
                print(f"step {event.i + 1} of {event.n}: {event.seconds:.2f} s")
            elif isinstance(event, events.Frames):
                print(f"frames {event.start} to {event.start + len(event.array) - 1} are ready")
            elif isinstance(event, events.Done):
                event.video.save("stream.png")


if __name__ == "__main__":
    main()
