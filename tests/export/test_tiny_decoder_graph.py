"""The tiny decoder as a graph: standard operators, the full decoder's names, the same numbers."""

from __future__ import annotations

from pathlib import Path

from hummingbird_export.random_models import randomize
from hummingbird_export.storage import save_graph
from hummingbird_export.trace import operators, trace
from hummingbird_export.verify import verify_graph
from hummingbird_export.wrappers import decoder_graph, tiny_decoder_graph
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.tiny_decoder import TinyDecoder, TinyDecoderConfig


def test_it_is_traced_and_computes_what_torch_does(tmp_path: Path):
    decoder = TinyDecoder(TinyDecoderConfig(channels=(16, 8, 8), blocks=(2, 1, 1)))
    randomize(decoder, seed=1)
    module, signature = tiny_decoder_graph(decoder)
    model = trace(module, signature)
    assert set(operators(model)) == {
        f"ai.onnx:{name}" for name in ("Add", "Conv", "Mul", "Relu", "Resize", "Tanh")
    }
    # Sums of at most 9 * 16 float32 products in another order.
    assert verify_graph(save_graph(model, tmp_path), module, signature).relative_l2 < 1e-5


def test_its_inputs_and_outputs_are_the_full_decoders():
    _, full = decoder_graph(AutoencoderKL(AutoencoderConfig.tiny()))
    _, tiny = tiny_decoder_graph(TinyDecoder(TinyDecoderConfig.tiny()))
    assert tiny.role == "vae_decoder_tiny"
    assert (tiny.inputs, tiny.outputs, tiny.axes) == (full.inputs, full.outputs, full.axes)
