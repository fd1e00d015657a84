"""The `hummingbird train` verbs: a table of ``module:function``, imported when called.

torch is imported by the verbs, not by --help.
"""

from __future__ import annotations

from pathlib import Path

from hummingbird_runtime.cli.nested import NestedVerbs
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number

RECIPE = Path("train/recipes/shapes.toml")
RUN = Path("runs/shapes")

STAGES = {
    "vae": "train the autoencoder on rendered frames",
    "decoder": "train the autoencoder's decoder further; latents stay as they are",
    "base": "train text tower and video U-Net: single frames, then more and more of a clip",
    "teacher": "grow the U-Net to the teacher's blocks and train it further",
    "distill": "prune, and learn the guided teacher in one pass (stage 1)",
    "consistency": "distil to a few steps (stage 2)",
    "feedback": "few steps with visual rewards beside (stage 2)",
    "tiny-decoder": "distil the small decoder from the full one",
    "upscaler": "train the upscaler of frames",
}
ALL = "run every stage that the recipe has a table for, in order"
PUBLISH = "write a finished run as float16 checkpoints that `hummingbird export build` takes"
LADDER = "judge rendered clips, the autoencoder and a bundle on fresh prompts; prints Markdown"

VERBS = NestedVerbs(
    "train",
    {
        **{stage: ("hummingbird_train.cli:main", text) for stage, text in STAGES.items()},
        "all": ("hummingbird_train.cli:all_main", ALL),
        "publish": ("hummingbird_train.cli:publish_main", PUBLISH),
        "ladder": ("hummingbird_train.ladder_cli:main", LADDER),
        "style": (
            "hummingbird_train.style_cli:main",
            "fine-tune a style from a folder of clips or images",
        ),
        "data": (
            "hummingbird_train.data.cli:main",
            "look at a dataset: counts, sizes, captions, failures",
        ),
        "prune": (
            "hummingbird_train.pruning.surgery:main",
            "drop blocks of a U-Net's file; prints the map",
        ),
        "importance": (
            "hummingbird_train.pruning.importance:main",
            "what each block is worth: damage without it",
        ),
        "judge": (
            "hummingbird_train.feedback.judge_cli:main",
            "train a learned judge of the tiny world",
        ),
        "decoder-quality": (
            "hummingbird_train.decoder_quality:main",
            "small decoder and upscaler against the large",
        ),
        "estimate": (
            "hummingbird_train.estimate:main",
            "memory and time of a recipe on four GPUs",
        ),
    },
    about=(
        "The stages come first, in the order in which they run; each pauses when its minutes",
        "are gone and goes on where it paused.",
    ),
)


def main(argv: list[str]) -> int:
    """Run a training verb; returns the exit code. Typed errors pass through to the shell."""
    if argv and argv[0] in STAGES:
        return _run_stages(argv[0], STAGES[argv[0]], argv[1:])
    return VERBS.run(argv)


def all_main(arguments: list[str]) -> int:
    """`hummingbird train all`."""
    return _run_stages("all", ALL, arguments)


def _run_stages(verb: str, description: str, arguments: list[str]) -> int:
    parser = Parser(prog=f"hummingbird train {verb}", description=description)
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, default=RECIPE, metavar="RECIPE.toml")
    add("--run", type=Path, default=RUN, metavar="DIR",
        help="run folder, outside git (default %(default)s)")  # fmt: skip
    add("--minutes", type=positive_number, metavar="M", help="pause after M minutes")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument("--processes", type=number_in(1, 64), metavar="N",
        help="ranks (default: one a GPU, or two on CPUs)")  # fmt: skip
    ranks.add_argument("--accelerate", type=Path, metavar="FILE.yaml",
        help="ranks and sharding from a file of train/accelerate/")  # fmt: skip
    add("-q", "--quiet", action="store_true", help="no progress lines")
    parsed = parser.parse(arguments)
    from hummingbird_train.parallel import Layout, default_processes, launch
    from hummingbird_train.recipe import load_recipe
    from hummingbird_train.stages import run_stages

    recipe = load_recipe(parsed.recipe)  # a wrong path fails here, before processes are made
    layout = (
        Layout.read(parsed.accelerate)
        if parsed.accelerate
        else Layout(parsed.processes or default_processes())
    )
    stages = [stage for stage in STAGES if stage in recipe] if verb == "all" else [verb]
    launch(run_stages, layout, stages, parsed.recipe, parsed.run, parsed.minutes, parsed.quiet)
    return 0


def publish_main(arguments: list[str]) -> int:
    """`hummingbird train publish`."""
    parser = Parser(prog="hummingbird train publish", description=PUBLISH)
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, default=RECIPE, metavar="RECIPE.toml")
    add("--run", type=Path, default=RUN, metavar="DIR", help="default %(default)s")
    add("-o", "--output", type=Path, required=True, metavar="DIR",
        help="new folder; its name becomes the model's")  # fmt: skip
    add("--stage", choices=("distill", "consistency", "feedback"),
        help="whose U-Net (default: the last that the run has)")  # fmt: skip
    add("--sampler", choices=("ddim", "lcm"),
        help="default: lcm after consistency and feedback, else ddim")  # fmt: skip
    add("--steps", type=number_in(1, 50), default=4, help="default inference steps (%(default)s)")
    add("--guidance-scale", type=positive_number, default=1.5, help="default scale (%(default)s)")
    add("--licence-file", type=Path, default=Path("LICENSE"), metavar="FILE")
    add("--force", action="store_true", help="replace an existing folder")
    parsed = parser.parse(arguments)
    from hummingbird_train.publish import publish

    publish(
        parsed.run,
        parsed.output,
        recipe=parsed.recipe,
        licence=parsed.licence_file,
        steps=parsed.steps,
        w=parsed.guidance_scale,
        stage=parsed.stage,
        sampler=parsed.sampler,
        overwrite=parsed.force,
    )
    print(parsed.output)
    return 0
