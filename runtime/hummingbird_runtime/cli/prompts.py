"""Prompts on the command line: a bundle's examples, and words that it does not know."""

from __future__ import annotations

from hummingbird_runtime.errors import InputError


def example_prompt(examples: tuple[str, ...], seed: int) -> str:
    """The example that a seed picks.

    Raises:
        InputError: ``sample.no_examples``.
    """
    if not examples:
        raise InputError(
            "sample.no_examples",
            "got a bundle without example prompts, expected at least one",
            hint="use `hummingbird generate` with a prompt of your own",
        )
    return examples[seed % len(examples)]


def unknown_words(words: tuple[str, ...], examples: tuple[str, ...]) -> InputError:
    """The error of ``--strict-prompt``."""
    return InputError(
        "prompt.unknown_words",
        f"prompt: got words the model does not know: {', '.join(words[:10])}",
        hint=f"try: {examples[0]}" if examples else "see `hummingbird info`",
    )
