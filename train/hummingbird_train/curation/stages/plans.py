"""Frame plans that several stages share, so that one decode and one scaling serve all of them."""

from __future__ import annotations

from hummingbird_train.curation.stage import FramePlan

KEYS = FramePlan(max_frames=4, height=144, key_frames=True)
"""A look at what decodes alone, before anything else is decoded."""
ALL = FramePlan(height=72, rough=True)
"""Every frame, small and cheap: what changes from one to the next."""
STILLS = FramePlan(max_frames=4)
"""A few frames as stored: what scaling would hide."""
STILLS_288 = FramePlan(max_frames=4, height=288)
"""The same frames at one height, so that sharpness compares between sizes."""
OVERVIEW = FramePlan(max_frames=8, height=144)
"""Light and colour over the clip."""
PAIRS = FramePlan(fps=8.0, max_frames=48, height=144, run=2)
"""24 pairs an eighth of a second apart: optical flow."""
TRIPLES = FramePlan(max_frames=18, height=144, run=3)
"""6 runs of three neighbours: is the middle one where the outer two put it."""
NEIGHBOURS = FramePlan(max_frames=32, run=2)
"""16 pairs of neighbours as stored: flicker."""
MIDDLE = FramePlan(max_frames=1)
"""One frame as stored."""
