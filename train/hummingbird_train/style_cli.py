"""`hummingbird train style`: clips of a style and a published model to a file the runtime applies.

torch is imported after the command line is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser, number, number_in, positive_number
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.output import check_target

if TYPE_CHECKING:
    from hummingbird_train.checkpoint_folder import CheckpointFolder
    from hummingbird_train.data.latent_cache import ClipLatents
    from hummingbird_train.data.text_cache import CaptionContexts

T = TypeVar("T")


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird train style",
        description="Teach a published model a style from a folder of clips or images with "
        "captions. The result is one small file: `hummingbird generate --style FILE[:STRENGTH]`.",
    )
    add = parser.add_argument
    add("data", type=Path, metavar="DATA", help="folder, WebDataset shards, or table")
    add("--model", type=Path, required=True, metavar="DIR", help="published checkpoint folder")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="style.safetensors")
    add("--run", type=Path, metavar="DIR",
        help="state and caches; default runs/style-NAME, NAME as the output's")  # fmt: skip
    add("--rank", type=number_in(1, 1024), default=16, help="of the change (%(default)s)")
    add("--alpha", type=positive_number, help="the change counts alpha / rank times; default rank")
    add("--dropout", type=number, default=0.0, help="of the rank's components (%(default)s)")
    add("--targets", default="all", metavar="NAME|REGEX",
        help="layers: all, attention, transformers, spatial, or a pattern (%(default)s)"
        )  # fmt: skip
    add("--steps", type=number_in(1, 10**6), default=400, help="optimiser steps (%(default)s)")
    add("--batch", type=number_in(1, 4096), default=2, help="clips of a step (%(default)s)")
    add("--learning-rate", type=positive_number, default=8e-3, help="highest (%(default)s)")
    add("--num-frames", type=number_in(1, 104), help="of a training clip; default: the model's")
    add("--stride", type=number_in(1, 100), default=1, help="between its frames (%(default)s)")
    add("--levels", choices=("sampler", "all"), default="sampler",
        help="noise levels: those of a default run, or all (%(default)s)")  # fmt: skip
    add("--prior-weight", type=number, default=0.0, metavar="W",
        help="keep the base on its own example prompts with this weight (%(default)s)")  # fmt: skip
    add("--prior-clips", type=number_in(1, 10_000), default=16, metavar="N",
        help="clips that the base draws for that (%(default)s)")  # fmt: skip
    add("--strength-preview", action="store_true",
        help="also write OUTPUT.png: prompts at strength 0, 0.5 and 1")  # fmt: skip
    add("--prompt", action="append", metavar="TEXT",
        help="of the preview; may be repeated; default: the model's examples")  # fmt: skip
    add("--name", help="of the style, for people; default the output's name")
    add("--seed", type=number_in(0, 2**62), default=0)
    add("--processes", type=number_in(1, 64), default=1, metavar="N",
        help="ranks, one per core or GPU (%(default)s)")  # fmt: skip
    add("--minutes", type=positive_number, metavar="M", help="pause after M minutes")
    add("--skip-failures", action="store_true", help="leave out clips that cannot be read")
    add("--force", action="store_true", help="replace the output")
    add("-q", "--quiet", action="store_true", help="no progress lines")
    return parser


def main(argv: list[str]) -> int:
    """Train a style and write its file; returns the exit code.

    Raises:
        UsageError: ``usage.arguments``, ``output.exists``, ``style.options``, ``lora.*``.
        InputError: ``data.*``, ``checkpoint.*``, ``style.run`` for a run folder of other settings.
        ExecutionError: ``train.non_finite``.
    """
    asked = _parser().parse(argv)
    check_target(asked.output, overwrite=asked.force)
    if asked.processes == 1:
        run(asked)
    else:
        from hummingbird_train.parallel import launch

        launch(run, asked.processes, asked)
    return 0


def run(asked: argparse.Namespace) -> None:
    """Do what the command line asks, in this rank."""
    from hummingbird_train import parallel
    from hummingbird_train.checkpoint_folder import read_checkpoint_folder
    from hummingbird_train.data.entries import read_entries
    from hummingbird_train.data.latent_cache import CacheConfig, encode_clips
    from hummingbird_train.data.text_cache import encode_captions
    from hummingbird_train.loop import RunConfig, train
    from hummingbird_train.lora import LoraConfig, load_adapter, save_adapter
    from hummingbird_train.progress import TerminalBar
    from hummingbird_train.style import STYLE_FILE, StyleConfig, StyleObjective, style_phases
    from hummingbird_train.style_sampling import sample_prior

    name = asked.name or asked.output.stem
    first = parallel.rank() == 0
    bar = TerminalBar(sys.stderr)

    def say(line: str) -> None:
        if first and not asked.quiet:
            bar.print(line)

    checkpoint = read_checkpoint_folder(asked.model)
    facts = checkpoint.facts
    folder = asked.run or Path("runs") / f"style-{asked.output.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    prompts = asked.prompt or list(facts.vocabulary_examples)
    entries = read_entries(asked.data)
    cache = CacheConfig(
        size=(facts.height.default, facts.width.default),
        fps=facts.fps_condition.default,
        max_frames=facts.frames.trained,
    )
    say(f"{len(entries)} clips: encoding")
    clips = encode_clips(
        entries,
        checkpoint.vae_path,
        folder / "latents",
        cache,
        scaling_factor=facts.scaling_factor,
        on_failure="skip" if asked.skip_failures else "raise",
    )
    for key, why in clips.failures.items():
        say(f"left out {key}: {why}")
    texts = [*clips.captions, *prompts, *facts.vocabulary_examples]
    contexts = _on_first_rank(
        lambda: encode_captions(
            texts, checkpoint.text_path, checkpoint.tokenizer_folder, folder / "contexts"
        )
    )
    _on_first_rank(lambda: _check_settings(folder, asked, clips))
    prior = None
    if asked.prior_weight:
        say(f"drawing {asked.prior_clips} clips of the base")
        prior = sample_prior(
            checkpoint, contexts, facts.vocabulary_examples or clips.captions,
            asked.prior_clips, asked.seed,
        )  # fmt: skip
    objective = StyleObjective(
        checkpoint.unet(),
        clips,
        contexts,
        checkpoint.scheduler,
        facts,
        lora=LoraConfig(asked.rank, asked.alpha, asked.dropout, asked.targets),
        config=StyleConfig(levels=asked.levels, prior_weight=asked.prior_weight),
        prior=prior,
        seed=asked.seed,
        name=name,
    )
    plan = style_phases(
        clips,
        steps=asked.steps,
        batch=asked.batch,
        rate=asked.learning_rate,
        frames=asked.num_frames or facts.frames.trained,
        stride=asked.stride,
    )
    config = RunConfig(seed=asked.seed, ema_decay=0.99)
    finished = train(
        objective,
        plan,
        folder,
        config=config,
        minutes=asked.minutes,
        log=say,
        progress=(lambda _: None) if asked.quiet else bar,
    )
    bar.close()
    if not first:
        return
    if not finished:
        print(f"style: paused; run again to go on, {folder}")
        return
    save_adapter(asked.output, load_adapter(folder / STYLE_FILE), name=name)
    print(asked.output)
    if asked.strength_preview:
        _write_preview(checkpoint, asked.output, contexts, prompts, asked.seed)


def _on_first_rank(work: Callable[[], T]) -> T:
    """What ``work`` gives, done on rank 0 before any other rank does it again from its files."""
    from hummingbird_train import parallel

    if parallel.world_size() == 1:
        return work()
    from torch import distributed

    done = work() if parallel.rank() == 0 else None
    distributed.barrier()
    return work() if done is None else done


def _write_preview(
    checkpoint: CheckpointFolder,
    output: Path,
    contexts: CaptionContexts,
    prompts: Sequence[str],
    seed: int,
) -> None:
    """OUTPUT.png: for every prompt a row at each strength."""
    from hummingbird_train.style_sampling import PREVIEW_STRENGTHS, contact_sheet, preview

    drawn = preview(checkpoint, output, contexts, prompts, seed=seed + 7)
    rows = [drawn[s][i] for i in range(len(prompts)) for s in PREVIEW_STRENGTHS]
    sheet = output.with_suffix(".png")
    contact_sheet(rows, sheet, enlarge=max(1, 128 // checkpoint.facts.width.default))
    print(sheet)


def _check_settings(run: Path, asked: argparse.Namespace, clips: ClipLatents) -> None:
    """Refuse to go on with a run folder that other settings or other clips made.

    Raises:
        InputError: ``style.run``.
    """
    ignored = {"output", "run", "minutes", "force", "quiet", "strength_preview", "prompt"}
    ignored |= {"name", "processes"}
    settings = {k: str(v) for k, v in vars(asked).items() if k not in ignored}
    settings["captions"] = hashlib.sha256(json.dumps(clips.captions).encode()).hexdigest()
    settings["cache"] = json.dumps(dataclasses.asdict(clips.config))
    path = run / "settings.json"
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        changed = sorted(k for k in settings if before.get(k) != settings[k])
        if changed:
            raise InputError(
                "style.run",
                f"run folder {run}: got another {', '.join(changed)} than it was begun with, "
                "expected the same",
                hint="give another --run, or remove that folder",
            )
        return
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
