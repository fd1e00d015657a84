"""``hummingbird generate PROMPT -o FILE``: draw a clip from a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from hummingbird_runtime.cli.clip import run_job
from hummingbird_runtime.cli.clip_job import ClipJob, add_run_options, shared_settings
from hummingbird_runtime.cli.parser import Parser, frame_rate, number, whole_number

if TYPE_CHECKING:
    from hummingbird_runtime.request import Options

_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "num_frames": (whole_number, "frames of the clip"),
    "height": (whole_number, "pixels"),
    "width": (whole_number, "pixels"),
    "num_inference_steps": (whole_number, "denoising steps"),
    "guidance_scale": (number, "how closely to follow the prompt"),
    "negative_prompt": (str, "what to avoid (models with classifier-free guidance only)"),
    "seed": (whole_number, "0 to 2^64-1; equal seeds give equal clips"),
    "fps_condition": (whole_number, "frame rate told to the network, not that of the file"),
}


def main(arguments: list[str]) -> int:
    """Run the verb; see ``hummingbird generate --help``."""
    parsed = _parser().parse(arguments)
    values = vars(parsed)
    options = cast("Options", {name: values[name] for name in (*_OPTIONS, "decoder", "upscale")})
    options["checkpoint"] = parsed.resume
    return run_job(
        ClipJob(
            prompt=parsed.prompt,
            output=parsed.output,
            options=options,
            fps=parsed.fps,
            strict_prompt=parsed.strict_prompt,
            **shared_settings(parsed),
        )
    )


def _parser() -> Parser:
    parser = Parser(prog="hummingbird generate", description="Draw a clip from a sentence.")
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help="what to draw, in quotes")
    add(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="clip to write: .mp4 .gif .webp .png (animated) .y4m .npz",
    )
    for name, (kind, text) in _OPTIONS.items():
        metavar = "TEXT" if kind is str else "N"
        add("--" + name.replace("_", "-"), type=kind, metavar=metavar, help=text)
    add("--resume", metavar="FILE",
        help="keep each step in FILE, and go on from it when a run was cut off")  # fmt: skip
    add("--fps", type=frame_rate, metavar="N", help="playback rate of the file")
    add(
        "--strict-prompt", action="store_true", help="refuse words the model does not know (exit 3)"
    )
    add_run_options(parser)
    return parser
