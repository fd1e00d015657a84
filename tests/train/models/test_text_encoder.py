from types import SimpleNamespace

import torch

from hummingbird_train.models.text_encoder import TextConfig, TextEncoder


@torch.no_grad()
def test_matches_the_closed_form_values(vectors: SimpleNamespace) -> None:
    model = vectors.closed_form(
        TextEncoder(TextConfig(vocab_size=100, width=64, heads=4, layers=3))
    )
    assert len(model.state_dict()) == 42
    ids = torch.zeros(1, 77, dtype=torch.int64)
    ids[0, :6] = torch.tensor([98, 5, 17, 40, 3, 99])
    states = model(ids)
    assert states.shape == (1, 77, 64)
    got = [*states.flatten()[[0, 1, 63, 64, 320, 4927]], states.mean(), states.abs().mean()]
    expected = [-1.380778, -1.069740, 1.694296, -1.319791, -0.724315, -0.261338]
    expected += [0.011321, 0.896785]
    # Six published decimals and float32 sums in another order.
    torch.testing.assert_close(torch.stack(got), torch.tensor(expected), atol=5e-6, rtol=0)


def test_full_size_has_the_published_tensors(vectors: SimpleNamespace) -> None:
    with torch.device("meta"):
        model = TextEncoder(TextConfig.videocrafter2())
    assert vectors.digest(model) == (
        294,
        "aa0befe7ccb622040f8a8f422190e1b6c6022be589a39d51567caf15404f6f31",
    )
    assert sum(p.numel() for p in model.parameters()) == 354_032_641


@torch.no_grad()
def test_a_token_does_not_see_those_after_it() -> None:
    model = TextEncoder(TextConfig.tiny(50)).eval()
    ids = torch.arange(24)[None]
    other = ids.clone()
    other[0, 10:] = 49
    a, b = model(ids), model(other)
    torch.testing.assert_close(a[:, :10], b[:, :10], atol=1e-5, rtol=0)
    assert not torch.allclose(a[:, 10:], b[:, 10:], atol=1e-3)


@torch.no_grad()
def test_a_shorter_sequence_gives_the_same_first_states() -> None:
    model = TextEncoder(TextConfig.tiny(50)).eval()
    ids = torch.arange(48).reshape(2, 24)
    # Another length takes other kernels: float32 noise on values of order one.
    torch.testing.assert_close(model(ids[:, :7]), model(ids)[:, :7], atol=1e-5, rtol=0)


def test_tiny_preset_holds_only_what_runs_and_trains() -> None:
    model = TextEncoder(TextConfig.tiny(50))
    assert len(model.transformer.resblocks) == 2
    assert not {"text_projection", "logit_scale"} & set(model.state_dict())
    states = model(torch.arange(24)[None])
    assert states.shape == (1, 24, 96)
    (states * torch.linspace(-1, 1, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_published_extras_never_run() -> None:
    config = TextConfig(vocab_size=50, max_length=8, width=16, heads=2, layers=2)
    model = TextEncoder(config).eval()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        before = model(ids)
        for parameter in model.transformer.resblocks[1].parameters():
            parameter.fill_(torch.nan)
        model.text_projection.fill_(torch.nan)
        assert torch.equal(model(ids), before)
