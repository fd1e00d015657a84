"""What the interoperability tests share: the packages, quietly imported, and small bundles."""

from __future__ import annotations

import importlib
import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hummingbird_runtime.bundle import Bundle, builtin_bundle
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.scheduler_config import DynamicRescale

DDIM = SchedulerConfig(
    sampler="ddim",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
)
ANCESTRAL_DDIM = SchedulerConfig(
    sampler="ddim", timestep_spacing="leading+1", eta=1.0, dynamic_rescale=DynamicRescale()
)


@pytest.fixture(scope="session")
def onnx_exporter() -> ModuleType:
    """``micro_models``, where everything that exports a bundle is installed."""
    for name in ("torch", "onnx", "onnxscript", "onnxsim", "safetensors"):
        pytest.importorskip(name)
    return importlib.import_module("micro_models")


@pytest.fixture(scope="session")
def openvino() -> ModuleType:
    return pytest.importorskip("openvino")


@pytest.fixture(scope="session")
def optimum() -> ModuleType:
    """optimum's ONNX Runtime pipelines; importing them warns of other packages' old habits."""
    pytest.importorskip("diffusers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("optimum.onnxruntime", reason="needs optimum-onnx")
        importlib.import_module("hummingbird_export.interop.optimum_pipeline")
    logging = importlib.import_module("diffusers.utils.logging")
    logging.disable_progress_bar()
    return importlib.import_module("hummingbird_export.interop")


def with_scheduler(bundle: Path, scheduler: SchedulerConfig, out: Path) -> Path:
    """A copy of a bundle with another schedule: graphs do not know schedules."""
    shutil.copytree(bundle, out)
    path = out / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(scheduler.to_json()))
    seal(out, replace(Bundle.open(bundle).manifest, files=file_entries(out)))
    return out


@pytest.fixture(scope="session")
def two_pass_bundle(onnx_exporter: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, classifier-free guidance."""
    from hummingbird_train.world.tokenizer_files import write_tokenizer

    folder = tmp_path_factory.mktemp("two-pass")
    return onnx_exporter.export(
        folder / "bundle",
        onnx_exporter.networks(guided=False),
        write_tokenizer(folder / "tokenizer"),
        ANCESTRAL_DDIM,
    )


@pytest.fixture(scope="session")
def bundles(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Bundle folders by name, made when they are asked for."""
    made: dict[str, Path] = {"lcm, embedded": builtin_bundle()}

    def by_name(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("bundle") / "bundle"
            if name == "ddim, embedded":
                made[name] = with_scheduler(builtin_bundle(), DDIM, folder)
            else:
                two_pass = request.getfixturevalue("two_pass_bundle")
                made["ddim, two passes"] = two_pass
                made["lcm, two passes"] = with_scheduler(two_pass, SchedulerConfig(), folder)
        return made[name]

    return by_name
