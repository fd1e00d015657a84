"""The bundle's README.md: a model card made from the manifest's own values.

Every number in it is one that the runtime enforces or that the export measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hummingbird_runtime.manifest import UPSCALE, UPSCALER, Graph, Licence, ModelFacts
from hummingbird_runtime.schedule import SchedulerConfig


def model_card(
    *,
    bundle_id: str,
    name: str,
    graphs: Mapping[str, Graph],
    model: ModelFacts,
    licence: Licence,
    target: str,
    provenance: Mapping[str, Any],
    scheduler: SchedulerConfig,
) -> str:
    """Markdown with Hugging Face's front matter; the arguments are the manifest's fields."""
    sections = [
        _front_matter(licence),
        f"# {name}",
        "A text-to-video model as verified ONNX graphs, for the Hummingbird runtime "
        f"(NumPy and ONNX Runtime). Made for target `{target}`.",
        _usage(model),
        "## Intended use",
        _intended_use(model),
        "## Facts",
        _facts(model, scheduler, graphs),
        "## Graphs and parity",
        _graphs(graphs),
        "## Limits",
        _limits(model, graphs),
        "## Provenance",
        "```json\n" + json.dumps(provenance, indent=2, sort_keys=True) + "\n```",
        f"Bundle id `{bundle_id}`. Every file's SHA-256 is in `manifest.json`.",
        "## Licence",
        f"{licence.name}: see `{licence.file}`.",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(licence: Licence) -> str:
    return "\n".join(
        [
            "---",
            "license: other",
            f"license_name: {json.dumps(licence.name)}",
            f"license_link: {licence.file}",
            "pipeline_tag: text-to-video",
            "library_name: hummingbird-edge",
            "tags: [text-to-video, onnx, latent-diffusion]",
            "---",
        ]
    )


def _usage(model: ModelFacts) -> str:
    prompt = json.dumps(model.vocabulary_examples[0] if model.vocabulary_examples else "a prompt")
    return (
        "```python\n"
        "from hummingbird_runtime import TextToVideoPipeline\n\n"
        'with TextToVideoPipeline.from_pretrained("path/to/this/folder") as pipe:\n'
        f'    pipe({prompt}, seed=7).save("clip.mp4")\n'
        "```"
    )


def _intended_use(model: ModelFacts) -> str:
    if not model.grammar:
        return (
            "Short clips from a sentence, for research, prototypes and creative work within the "
            "licence. Not for depicting real people or events as if they were recorded, and not "
            "for decisions about people."
        )
    text = (
        "Demonstrations and tests of the text-to-video pipeline. The model draws one small world "
        "and nothing else; words outside its vocabulary are left out of the prompt and reported."
    )
    examples = "\n".join(f"- {example}" for example in model.vocabulary_examples)
    return f"{text}\n\n{model.grammar}\n\nExamples:\n\n{examples}"


def _facts(model: ModelFacts, scheduler: SchedulerConfig, graphs: Mapping[str, Graph]) -> str:
    guidance = model.guidance
    rows = [
        ("frames", model.frames.default, model.frames.trained, model.frames.allowed),
        ("height, pixels", model.height.default, model.height.trained, model.height.allowed),
        ("width, pixels", model.width.default, model.width.trained, model.width.allowed),
        (
            "inference steps",
            model.num_inference_steps.default,
            ", ".join(map(str, model.num_inference_steps.trained)),
            model.num_inference_steps.allowed,
        ),
        (
            "fps condition",
            model.fps_condition.default,
            ", ".join(map(str, model.fps_condition.trained)),
            model.fps_condition.allowed,
        ),
        (
            f"guidance scale ({guidance.kind})",
            guidance.default,
            f"{guidance.trained[0]} to {guidance.trained[1]}",
            guidance.allowed,
        ),
    ]
    lines = ["| | default | trained | allowed |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {default} | {trained} | {allowed[0]} to {allowed[1]} |"
        for what, default, trained, allowed in rows
    ]
    snr = ", zero terminal SNR" if scheduler.rescale_betas_zero_snr else ""
    lines += [
        "",
        f"Height is a multiple of {model.height.multiple_of}, width of {model.width.multiple_of}. "
        f"Clips play at {model.playback_fps} frames per second. Sampler: "
        f"{scheduler.sampler}, {scheduler.prediction_type}, {scheduler.timestep_spacing} "
        f"timesteps{snr}. Latents: {model.latent_channels} channels, one cell per "
        f"{model.vae_scale_factor} x {model.vae_scale_factor} pixels.",
    ]
    if UPSCALER in graphs:
        lines += [
            "",
            f"Decoded frames are made {UPSCALE} times larger, to {UPSCALE * model.width.default} x "
            f"{UPSCALE * model.height.default} pixels; `upscale=False` leaves them as they are.",
        ]
    return "\n".join(lines)


def _graphs(graphs: Mapping[str, Graph]) -> str:
    lines = [
        "Each graph file was run against the torch module that it came from, in float32 "
        "(relative L2 error of one run, the worst of the cases). Quality compares a graph of lower "
        "precision with the same graph in float32: final latents of four-step clips for the U-Net, "
        "frames for the decoder, embeddings for the text encoder.",
        "",
        "| graph | precision | opset | relative L2 error | cases | quality |",
        "|---|---|---|---|---|---|",
    ]
    for role, graph in sorted(graphs.items()):
        parity = graph.parity
        quality = ", ".join(f"{name} {value:g}" for name, value in sorted(graph.quality.items()))
        lines.append(
            f"| {role} | {graph.precision} | {graph.opset} | "
            f"{parity['relative_l2']:.1e} | {parity['cases']:.0f} | {quality or '-'} |"
        )
    rounded = {
        role: graph.parity["weights_relative_l2"]
        for role, graph in sorted(graphs.items())
        if "weights_relative_l2" in graph.parity
    }
    if rounded:
        figures = ", ".join(f"{role} {error:.1e}" for role, error in rounded.items())
        lines += [
            "",
            "Weights are stored as float16 and computed with in float32; the torch module was "
            f"given the same rounded weights. Rounding moved the weights by (relative L2): "
            f"{figures}.",
        ]
    return "\n".join(lines)


def _limits(model: ModelFacts, graphs: Mapping[str, Graph]) -> str:
    tokens = graphs["text_encoder"].inputs[0].dims[-1]
    return "\n".join(
        [
            f"- Prompts are cut at {tokens} tokens, start and end included; the runtime says so.",
            f"- Beyond {model.frames.trained} frames or {model.width.trained} x "
            f"{model.height.trained} pixels the model is outside of what it was trained on.",
            "- Equal seeds give equal noise everywhere, but clips of different machines may "
            "differ in the last bits.",
            "- The hashes guard against accident; they are no signature of who made the bundle.",
        ]
    )
