"""Places that a prompt names, and the planes that they become."""

from __future__ import annotations

import numpy as np
import torch

from hummingbird_train.models.place import COORDINATES, HALF_SPAN, PlacePlanes


def made(channels: int = 5) -> PlacePlanes:
    torch.manual_seed(3)
    module = PlacePlanes(context_dim=6, channels=channels)
    for parameter in module.parameters():  # the last layer starts at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return module.requires_grad_(False)


def test_new_planes_leave_the_features_alone():
    assert not PlacePlanes(6, 4)(torch.randn(2, 3, 6), None, (4, 2, 2)).any()


def test_places_move_along_a_straight_line_in_time():
    places = made().place(torch.randn(2, 7, 6), torch.arange(26))
    steps = places.diff(dim=1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-5, rtol=0)
    assert steps.abs().max() > 1e-3
    middle = made().place(torch.zeros(1, 7, 6), torch.tensor([0, 25])).mean(dim=1)
    assert middle.shape == (1, COORDINATES)
    assert HALF_SPAN == 25 / 2


def test_planes_are_x_y_and_a_bowl_over_cell_centres():
    module, tokens = made(channels=2), torch.randn(1, 7, 6)
    got = module(tokens, torch.tensor([4]), (1, 2, 4))[0, 0].numpy()  # (channels, h, w)
    x, y = np.meshgrid([-0.75, -0.25, 0.25, 0.75], [-0.5, 0.5])
    place = module.place(tokens, torch.tensor([4]))
    weights = module.planes(torch.nn.functional.silu(module.hidden(place)))
    weights = weights.reshape(2, COORDINATES).numpy()
    want = sum(
        w[:, None, None] * plane
        for w, plane in zip(weights.T, (x, y, x * x + y * y - 2 / 3), strict=True)
    )
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_indices_count_from_zero_and_may_differ_by_clip():
    module, tokens = made(), torch.randn(2, 7, 6)
    counted = module(tokens, None, (3, 2, 2))
    given = module(tokens, torch.arange(3).expand(2, -1), (3, 2, 2))
    torch.testing.assert_close(counted, given)
    late = module(tokens, torch.tensor([[0, 1, 2], [5, 6, 7]]), (3, 2, 2))
    torch.testing.assert_close(late[0], counted[0])
    assert not torch.allclose(late[1], counted[1], atol=1e-3)


def test_a_word_anywhere_in_the_prompt_says_the_same():
    module, tokens = made(), torch.randn(1, 7, 6)
    turned = module(tokens.roll(3, dims=1), None, (3, 2, 2))
    torch.testing.assert_close(turned, module(tokens, None, (3, 2, 2)), atol=1e-5, rtol=1e-5)
