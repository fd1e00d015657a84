"""The tiny world: scenes drawn at random, rendered to clips, described in words, and judged.

Rendering and words need NumPy only; judging needs SciPy as well and is imported from
``hummingbird_train.world.judge`` and ``.accuracy`` by who measures.
"""

from hummingbird_train.world.grammar import (
    EXAMPLES,
    GRAMMAR,
    WORDS,
    caption,
    judging_prompts,
)
from hummingbird_train.world.render import render
from hummingbird_train.world.scene import FPS, FRAMES, SIZE, Scene, is_held_out, sample_scene
from hummingbird_train.world.tokenizer_files import write_tokenizer

__all__ = [
    "EXAMPLES",
    "FPS",
    "FRAMES",
    "GRAMMAR",
    "SIZE",
    "WORDS",
    "Scene",
    "caption",
    "is_held_out",
    "judging_prompts",
    "render",
    "sample_scene",
    "write_tokenizer",
]
