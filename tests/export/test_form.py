"""How far a U-Net works in pieces: the rule, its bounds, and the cuts that a graph makes of it."""

from __future__ import annotations

import lowered_networks as nets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_export.lowering.builder import GraphBuilder
from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_export.lowering.sizes import Sizes
from hummingbird_export.targets import LARGEST_PIECE, TARGETS, Target
from hummingbird_runtime.manifest import Tensor
from hummingbird_train.models.unet import UNetConfig

PUBLISHED = (26, 40, 64)


def hidden(config: UNetConfig, size: tuple[int, int, int], level: int) -> int:
    """Bytes of a feed-forward's hidden activation."""
    frames, rows, columns = size
    cells = (rows // 2**level) * (columns // 2**level)
    return 4 * frames * cells * 4 * config.channel_mult[level] * config.model_channels


def scores(config: UNetConfig, size: tuple[int, int, int], level: int) -> int:
    """Bytes of the weights of all pairs of a frame's cells, in every head."""
    frames, rows, columns = size
    cells = (rows // 2**level) * (columns // 2**level)
    heads = config.channel_mult[level] * config.model_channels // config.num_head_channels
    return 4 * frames * heads * cells**2


def test_without_fused_attention_the_scores_of_a_piece_fit():
    # 26 frames * 5 heads * 2560^2 * 4 bytes = 3.41 GB, then 0.43 GB and 53 MB; hidden: 341 MB, ...
    form = Form.in_pieces(UNetConfig.hummingbird_07b(), PUBLISHED, 2**27, fused=False)
    assert form == Form(frame_chunks=(26, 4, 1, 1), cell_chunks=(3, 2, 1, 1))


@pytest.mark.parametrize(
    ("largest", "pieces"),
    [(400_000_000, (1, 1, 1, 1)), (52_000_000, (7, 4, 2, 1)), (13_000_000, (26, 14, 7, 2))],
)
def test_the_published_network_is_cut_as_computed_by_hand(largest: int, pieces: tuple[int, ...]):
    # 26 * 2560 cells * 4 * 320 channels * 4 bytes = 341 MB, then 170, 85 and 21 MB
    form = Form.in_pieces(UNetConfig.hummingbird_07b(), PUBLISHED, largest, fused=True)
    assert form == Form(fused=True, frame_chunks=pieces, cell_chunks=pieces)
    assert form.fewest_frames == pieces[0]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_each_target_cuts_as_far_as_its_memory_asks(target: Target):
    config = UNetConfig.hummingbird_07b()
    form = target.form_for(config, PUBLISHED)
    assert form.fused == (target.form == "cpu")
    if target.name == "portable":
        assert form is PORTABLE
        assert form.fewest_frames == 1
        return
    largest = LARGEST_PIECE[target.chunks]
    for level in range(4):
        pieces = form.frames_at(level)
        held = hidden(config, PUBLISHED, level)
        if not form.fused and level < 3:
            held = max(held, scores(config, PUBLISHED, level))
        assert held / pieces <= largest * 1.01 or pieces == 26


@given(
    st.integers(1, 104), st.integers(1, 16), st.integers(1, 16),
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 10**8),
)  # fmt: skip
def test_pieces_are_the_fewest_that_fit(
    frames: int, rows: int, columns: int, mults: list[int], largest: int
):
    config = UNetConfig(channel_mult=tuple(mults))
    k = config.size_multiple
    size = frames, k * rows, k * columns
    form = Form.in_pieces(config, size, largest, fused=True)
    assert form.fused
    assert form.frame_chunks == form.cell_chunks
    assert len(form.frame_chunks) == len(mults)
    for level, pieces in enumerate(form.frame_chunks):
        whole = hidden(config, size, level)
        assert 1 <= pieces <= frames  # no piece of a usual clip is empty
        assert whole <= pieces * largest or pieces == frames
        assert pieces == 1 or whole > (pieces - 1) * largest
    assert form.fewest_frames == max(form.frame_chunks)


def test_a_small_clip_is_not_cut():
    assert Form.in_pieces(UNetConfig.tiny(), (26, 8, 8), 52_000_000, fused=True) == Form(
        fused=True, frame_chunks=(1, 1), cell_chunks=(1, 1)
    )


def test_levels_that_a_form_does_not_name_are_whole():
    form = Form(frame_chunks=(3, 2), cell_chunks=(4,))
    assert [form.frames_at(level) for level in range(4)] == [3, 2, 1, 1]
    assert [form.cells_at(level) for level in range(4)] == [4, 1, 1, 1]
    assert Form().fewest_frames == 1


@pytest.mark.parametrize("pieces", [1, 2, 3, 7])
def test_pieces_of_a_graph_differ_by_at_most_one_and_join_in_order(pieces: int):
    g = GraphBuilder("cuts")
    sample = g.input(Tensor("sample", "float32", (1, 1, "F", 1, 1)))
    sizes = Sizes(g, sample)
    x = g.input(Tensor("x", "float32", ("F", 2)))
    parts = sizes.split(x, "t", pieces)
    outputs = [(part, Tensor(f"y{i}", "float32", (f"n{i}", 2))) for i, part in enumerate(parts)]
    joined = (sizes.join(parts), Tensor("y", "float32", ("F", 2)))
    if pieces == 1:
        assert parts == [x]
        assert joined[0] is x
        return
    run = nets.in_memory(g.finish([joined, *outputs])).run
    for frames in range(1, 24):
        array = np.arange(2 * frames, dtype=np.float32).reshape(frames, 2)
        whole, *cut = run(None, {"sample": np.zeros((1, 1, frames, 1, 1), np.float32), "x": array})
        lengths = [len(part) for part in cut]
        assert sum(lengths) == frames
        assert max(lengths) - min(lengths) <= 1
        np.testing.assert_array_equal(whole, array)
        np.testing.assert_array_equal(np.concatenate(cut), array)
