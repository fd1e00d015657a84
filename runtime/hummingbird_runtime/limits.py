"""Arguments against a bundle's facts: defaults, allowed ranges, and warnings beyond the training.

Each function takes the value of one argument (None means the default) and gives back the checked
value; what it only warns about is appended to ``warnings``.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from hummingbird_runtime.arguments import prompt_text, real_number, whole_number, wrong_type
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.events import Warning
from hummingbird_runtime.facts import Choice, Frames, ModelFacts, Side
from hummingbird_runtime.manifest import DECODERS, UPSCALER

OUTPUT_TYPES = ("video", "np", "latent")


def check_range(code: str, name: str, value: float, allowed: Sequence[float]) -> None:
    """Refuse a value outside [low, high].

    Raises:
        InputError: ``code``.
    """
    low, high = allowed
    if not low <= value <= high:
        expected = f"{low} to {high}" if low != high else f"{low}, the only one of this bundle"
        raise InputError(
            code,
            f"{name}, got {value}, expected {expected}",
            hint=f"the nearest allowed value is {min(max(value, low), high)}",
        )


def frame_count(value: object, frames: Frames, warnings: list[Warning]) -> int:
    """Number of frames; ``request.frames``."""
    count = frames.default if value is None else whole_number("num_frames", value)
    check_range("request.frames", "num_frames", count, frames.allowed)
    if count > frames.trained:
        warnings.append(_untrained("num_frames", count, frames.trained))
    return count


def side_length(name: str, value: object, side: Side, warnings: list[Warning]) -> int:
    """Height or width in pixels; ``request.size`` names the nearest legal value."""
    length = side.default if value is None else whole_number(name, value)
    low, high = side.allowed
    if not low <= length <= high or length % side.multiple_of:
        expected = f"a multiple of {side.multiple_of} from {low} to {high}"
        if low == high:
            expected = f"{low}, the only one of this bundle"
        raise InputError(
            "request.size",
            f"{name}, got {length}, expected {expected}",
            hint=f"the nearest legal value is {nearest_side(length, side)}",
        )
    if length != side.trained:
        warnings.append(_untrained(name, length, side.trained))
    return length


def nearest_side(length: int, side: Side) -> int:
    """The legal length closest to the asked one, the smaller of two equally close."""
    step = side.multiple_of
    first, last = -(-side.allowed[0] // step), side.allowed[1] // step
    return min(max(-((step - 2 * length) // (2 * step)), first), last) * step


def listed_number(
    code: str, name: str, value: object, choice: Choice, warnings: list[Warning], *, cap: int
) -> int:
    """Number of steps or frame-rate condition: a range, and a few values that were trained."""
    number = choice.default if value is None else whole_number(name, value)
    check_range(code, name, number, (choice.allowed[0], min(choice.allowed[1], cap)))
    if number not in choice.trained:
        trained = " or ".join(map(str, choice.trained))
        warnings.append(_untrained(name, number, trained))
    return number


def guidance_scale(value: object, facts: ModelFacts, warnings: list[Warning]) -> float:
    """The guidance scale; ``request.guidance``."""
    guidance = facts.guidance
    if value is None:
        return guidance.default
    scale = real_number("guidance_scale", value)
    if guidance.kind == "none":
        raise InputError(
            "request.guidance",
            f"guidance_scale, got {scale}, expected none: this model takes no guidance",
            hint="leave it out",
        )
    check_range("request.guidance", "guidance_scale", scale, guidance.allowed)
    if not guidance.trained[0] <= scale <= guidance.trained[1]:
        trained = f"{guidance.trained[0]} to {guidance.trained[1]}"
        warnings.append(_untrained("guidance_scale", scale, trained))
    return scale


def negative_prompt(value: object, facts: ModelFacts) -> str:
    """What to avoid; ``request.negative_prompt`` where the model has no second pass."""
    if value is None:
        return ""
    text = prompt_text("negative_prompt", value)
    if facts.guidance.kind != "cfg":
        raise UsageError(
            "request.negative_prompt",
            f"negative_prompt, got a text, expected none: guidance is {facts.guidance.kind!r}",
            hint="leave it out; only models with classifier-free guidance read it",
        )
    return text


def decoder_role(value: object, roles: Collection[str]) -> str:
    """The graph that decodes: ``full`` or ``tiny``; by default full where the bundle has it.

    Raises:
        InputError: ``request.decoder`` for another name, ``bundle.no_such_graph`` for a decoder
            that the bundle does not have.
    """
    available = [name for name, role in DECODERS.items() if role in roles]
    name = available[0] if value is None else value
    if not isinstance(name, str):
        raise wrong_type("decoder", value, "a str")
    if name not in DECODERS:
        raise InputError(
            "request.decoder",
            f"decoder, got {name!r:.60}, expected one of {', '.join(DECODERS)}",
            hint=f"this bundle has {', '.join(available)}",
        )
    if name not in available:
        raise InputError(
            "bundle.no_such_graph",
            f"decoder, got {name!r}, expected what this bundle has: {', '.join(available)}",
            hint="leave it out or use another bundle",
        )
    return DECODERS[name]


def upscaling(value: object, roles: Collection[str], output_type: str) -> bool:
    """Whether frames go through the upscaler: by default where the bundle has one.

    Raises:
        UsageError: ``request.type``; ``request.upscale`` when asked for latents.
        InputError: ``bundle.no_such_graph`` when asked of a bundle without an upscaler.
    """
    if value is None:
        return UPSCALER in roles and output_type != "latent"
    if not isinstance(value, bool):
        raise wrong_type("upscale", value, "True, False or None")
    if value and output_type == "latent":
        raise UsageError(
            "request.upscale",
            "upscale, got True with output_type 'latent', expected frames to upscale",
            hint="leave upscale out, or ask for output_type 'video' or 'np'",
        )
    if value and UPSCALER not in roles:
        raise InputError(
            "bundle.no_such_graph",
            "upscale, got True, expected False: this bundle has no upscaler",
            hint="leave it out or use another bundle",
        )
    return value


def one_of(code: str, name: str, value: object, known: Collection[str]) -> str:
    """A name out of a fixed list.

    Raises:
        UsageError: ``code``, with the nearest name.
    """
    if isinstance(value, str) and value in known:
        return value
    near = difflib.get_close_matches(str(value), known, 1)
    raise UsageError(
        code,
        f"{name}, got {value!r:.60}, expected one of {', '.join(known)}",
        hint=f"did you mean {near[0]}?" if near else "choose one of these",
    )


def _untrained(name: str, got: object, trained: object) -> Warning:
    text = f"{name} {got}: the model was trained on {trained}, the clip may look worse"
    return Warning("request.untrained", text)
