"""Draw with one graph in memory at a time and one thread, then hand over plain arrays.

python examples/low_memory.py
"""

from hummingbird_runtime import HummingbirdError, TextToVideoPipeline


def main() -> None:
    try:
        with TextToVideoPipeline.from_pretrained(low_memory=True, threads=1) as pipe:
            frames = pipe("a small pink square rising on a white background", output_type="np")
    except HummingbirdError as error:
        print(f"{error.code}: {error.message}; {error.hint}")
        raise SystemExit(error.exit_code) from error
    print(f"{frames.dtype} {list(frames.shape)} from {frames.min():.2f} to {frames.max():.2f}")


if __name__ == "__main__":
    main()
