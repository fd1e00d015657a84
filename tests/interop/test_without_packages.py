"""Without the extra: every name is one typed line, and importing the package costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hummingbird_export import interop
from hummingbird_runtime import ResourceError

NEEDS = {
    "BundleScheduler": "diffusers",
    "ORTTextToVideoPipeline": "diffusers",
    "OpenVinoGraph": "openvino",
    "load_part": "diffusers",
    "openvino_model": "openvino",
}


def test_every_public_name_is_sorted_and_has_a_home():
    assert interop.__all__ == sorted(interop.__all__)
    assert set(interop.__all__) == set(interop._HOMES) <= set(dir(interop))
    assert set(NEEDS) | {"openvino_seconds"} == set(interop.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = interop.no_such_name


@pytest.mark.parametrize("name", NEEDS)
def test_a_missing_package_is_one_typed_line(monkeypatch: pytest.MonkeyPatch, name: str):
    pytest.importorskip("torch")
    for module in list(sys.modules):
        if module.startswith("hummingbird_export.interop."):
            monkeypatch.delitem(sys.modules, module)
        if module.partition(".")[0] == NEEDS[name]:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, NEEDS[name], None)  # how Python says: not installed
    with pytest.raises(ResourceError, match=NEEDS[name]) as caught:
        getattr(interop, name)
    assert caught.value.code == "extra.missing"
    assert "pip install 'hummingbird-edge[interop]'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_importing_the_package_loads_none_of_them():
    script = (
        "import sys, hummingbird_export.interop\n"
        "print({'torch', 'diffusers', 'optimum', 'openvino', 'onnx'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
