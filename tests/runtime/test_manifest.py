"""The manifest: strict reading, equal writing, and model facts that make sense."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_runtime.errors import HummingbirdError, InputError, IntegrityError
from hummingbird_runtime.facts import Choice, Frames, Guidance, Side
from hummingbird_runtime.manifest import Adapter, FileEntry, Manifest, check_relative_path
from hummingbird_runtime.session_settings import OPTIMIZERS, SessionSettings
from hummingbird_runtime.strict_json import MAX_BYTES, parse_json, record


@pytest.fixture(scope="module")
def document(tiny_bundle_path: Path) -> dict[str, Any]:
    return json.loads((tiny_bundle_path / "manifest.json").read_bytes())


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with the value at a dotted path replaced; ``...`` removes the key."""
    result = copy.deepcopy(document)
    *parents, last = path.split("/")
    place = result
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    key = int(last) if isinstance(place, list) else last
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return result


def refusal(document: object) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        Manifest.from_json(json.dumps(document).encode())
    assert "\n" not in str(caught.value)
    return caught.value


def test_reading_what_was_written_gives_an_equal_manifest(document: dict[str, Any]) -> None:
    manifest = Manifest.from_json(document)
    assert Manifest.from_json(manifest.to_bytes()) == manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert manifest.to_bytes().endswith(b"}\n")


@pytest.mark.parametrize("version", [999, "1", 0, 1.5, None, ..., True, [1]])
def test_another_schema_version_is_refused_by_version(
    document: dict[str, Any], version: object
) -> None:
    if version is True:  # equal to 1 in Python, and in JSON a different thing
        assert refusal(changed(document, "schema_version", version)).code in (
            "bundle.version",
            "bundle.manifest_invalid",
        )
        return
    error = refusal(changed(document, "schema_version", version))
    assert (error.code, error.exit_code) == ("bundle.version", 3)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("bundle_id", "not-a-uuid"),
        ("bundle_id", 7),
        ("name", None),
        ("name", "\x1b[2J"),
        ("name", "\ud800"),
        ("model/grammar", "a\x9bb"),
        ("graphs/unet/parity", {"\x07": 1.0}),
        ("name", ...),
        ("licence", ...),
        ("licence/file", "NOTICE"),
        ("surprise", 1),
        ("files", []),
        ("files/LICENSE/bytes", -1),
        ("files/LICENSE/bytes", 1.0),
        ("files/LICENSE/bytes", True),
        ("files/LICENSE/bytes", 1 << 60),
        ("files/LICENSE/sha256", "abc"),
        ("files/LICENSE/sha256", "A" * 64),
        ("files/LICENSE/md5", "0"),
        ("files/unet~1model.onnx", ...),
        ("files/tokenizer~1vocab.json", ...),
        ("graphs/unet", ...),
        ("graphs/loop", {}),
        ("graphs/unet/precision", "fp64"),
        ("graphs/unet/opset", "18"),
        ("graphs/unet/ops", ["Conv"]),
        ("graphs/unet/ops", "ai.onnx:Conv"),
        ("graphs/unet/inputs/0/dtype", "complex64"),
        ("graphs/unet/inputs/0/dims", [None]),
        ("graphs/unet/inputs/0/dims", [1.5]),
        ("graphs/unet/parity/max_abs", "small"),
        ("graphs/unet/quality", {"snr_db_mean": "good"}),
        ("graphs/unet/session/memory_reuse", "no"),
        ("graphs/unet/session/memory_reuse", 0),
        ("graphs/unet/session/optimization", "most"),
        ("graphs/unet/session/disabled_optimizers", ["NoSuchOptimizer"]),
        ("graphs/unet/session/disabled_optimizers", ["ConstantFolding", "ConstantFolding"]),
        ("graphs/unet/session/disabled_optimizers", "ConstantFolding"),
        ("graphs/unet/session/threads", 4),
        ("graphs/vae_decoder", ...),
        ("adapters", {"a b": {"path": "LICENSE"}}),
        ("adapters", {"": {"path": "LICENSE"}}),
        ("adapters", {"ink": {"path": "adapters/gone.safetensors"}}),
        ("adapters", {"ink": {"path": "LICENSE", "targets": "a.b"}}),
        ("adapters", {f"a{i}": {"path": "LICENSE"} for i in range(65)}),
        ("model/latent_channels", 0),
        ("model/vae_scale_factor", 7),
        ("model/frames/allowed", [1]),
        ("model/frames/allowed", [5, 1]),
        ("model/frames/allowed", [1, 10**9]),
        ("model/frames/default", 0),
        ("model/height/multiple_of", 0),
        ("model/width/default", 33),
        ("model/guidance/kind", "cfg"),
        ("model/timestep_cond_dim", None),
        ("model/timestep_cond_dim", 10**9),
        ("model/scaling_factor", 0),
        ("model/latent_rgb", [[1.0]] * 3),
        ("model/latent_rgb", [[0.0] * 5] * 2),
        ("model/playback_fps", 0),
        ("model/decode_chunk", 0),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    document: dict[str, Any], path: str, value: object
) -> None:
    keys = [key.replace("~1", "/") for key in path.split("/")]
    result = copy.deepcopy(document)
    place: Any = result
    for key in keys[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    error = refusal(result)
    assert (error.code, error.exit_code) == ("bundle.manifest_invalid", 3)
    assert error.hint


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schema_version": 1, "schema_version": 1}',
        b'{"schema_version": 1, "name": NaN}',
        b'{"schema_version": 1, "name": -Infinity}',
        b'{"schema_version": 1, "name": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 9 + b"]" * 9,
        b" " * (MAX_BYTES + 1),
    ],
    ids=range(13),
)
def test_json_that_python_would_take_or_choke_on_is_refused(text: bytes) -> None:
    with pytest.raises(InputError) as caught:
        Manifest.from_json(text)
    assert caught.value.code == "bundle.manifest_invalid"
    assert len(str(caught.value)) < 400


def test_eight_levels_are_read_and_nine_are_not() -> None:
    assert parse_json(b"[" * 8 + b"]" * 8, what="x") is not None
    with pytest.raises(InputError):
        parse_json(b"[" * 9 + b"]" * 9, what="x")


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "/etc/passwd",
        "a/",
        "\\\\server\\x",
        "a\\b",
        "C:/x",
        "c:x",
        "a\nb",
        "a\0b",
        "é",
        "a b",
        ".hidden",
        "a/.hidden",
        "a.",
        "-rf",
        "x" * 200,
        "/".join("abcdefghij"),
        "\udcff",
    ],
)
def test_paths_that_could_leave_the_bundle_are_unsafe(document: dict[str, Any], path: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        check_relative_path(path, "files")
    assert caught.value.code == "bundle.unsafe_path"
    refused = refusal(changed(document, "graphs/unet/path", path))
    # control characters are refused in any text of the manifest, before it is seen as a path
    assert refused.code == "bundle.unsafe_path" or not path.isprintable()


def test_names_that_differ_only_by_case_are_refused(document: dict[str, Any]) -> None:
    manifest = Manifest.from_json(document)
    entry = FileEntry("0" * 64, 0)
    for name in ("license", "Manifest.json"):
        with pytest.raises(InputError, match="case"):
            dataclasses.replace(manifest, files={**manifest.files, name: entry})
    many = {f"f{i}": entry for i in range(1025)}
    with pytest.raises(InputError, match="1024"):
        dataclasses.replace(manifest, files={**manifest.files, **many})


def test_a_manifest_from_before_the_optional_fields_still_loads(document: dict[str, Any]) -> None:
    old = copy.deepcopy(document)
    del old["adapters"], old["target"], old["provenance"]
    for graph in old["graphs"].values():
        for name in ("session", "quality", "parity", "precision"):
            del graph[name]
    manifest = Manifest.from_json(json.dumps(old).encode())
    assert {graph.session for graph in manifest.graphs.values()} == {SessionSettings()}
    assert (manifest.adapters, manifest.target) == ({}, "portable")


def test_settings_quality_precision_and_styles_are_read(document: dict[str, Any]) -> None:
    result = copy.deepcopy(document)
    session = {"memory_reuse": False, "optimization": "layout", "disabled_optimizers": []}
    unet = result["graphs"]["unet"]
    unet |= {"session": session, "quality": {"snr_db_mean": 18}, "precision": "int8-dynamic"}
    result["adapters"] = {"ink": {"path": "LICENSE", "targets": ["out.2"]}}
    manifest = Manifest.from_json(json.dumps(result).encode())
    settings = SessionSettings(memory_reuse=False, optimization="layout")
    assert manifest.graphs["unet"].session == settings
    assert manifest.graphs["unet"].quality == {"snr_db_mean": 18.0}
    assert manifest.adapters == {"ink": Adapter("LICENSE", ("out.2",))}
    assert Manifest.from_json(manifest.to_bytes()) == manifest


def test_one_of_the_two_decoders_is_enough(document: dict[str, Any]) -> None:
    result = copy.deepcopy(document)
    result["graphs"]["vae_decoder_tiny"] = result["graphs"].pop("vae_decoder")
    assert "vae_decoder" not in Manifest.from_json(result).graphs
    del result["graphs"]["vae_decoder_tiny"]
    assert "vae_decoder or vae_decoder_tiny" in str(refusal(result))


def test_the_upper_settings_win_where_they_say_something() -> None:
    base = SessionSettings(memory_reuse=False, cpu_arena=True, disabled_optimizers=OPTIMIZERS)
    assert SessionSettings().over(base) == base
    upper = SessionSettings(memory_reuse=True, cpu_arena=False, optimization="basic")
    assert upper.over(base) == dataclasses.replace(upper, disabled_optimizers=OPTIMIZERS)
    assert upper.over(SessionSettings()) == upper


def test_facts_are_checked_wherever_they_are_built() -> None:
    with pytest.raises(InputError):
        Frames(trained=26, default=26, allowed=(1, 20))
    with pytest.raises(InputError):
        Side(trained=64, default=60, multiple_of=16, allowed=(16, 128))
    with pytest.raises(InputError):
        Choice(default=0, trained=(4,), allowed=(1, 8))
    with pytest.raises(InputError):
        Guidance("none", default=float("nan"), trained=(0.0, 1.0), allowed=(0.0, 1.0))
    assert tiny_bundle.facts(guidance=Guidance("none", 1.0, (1.0, 1.0), (1.0, 1.0)),
                             timestep_cond_dim=None).guidance.kind == "none"  # fmt: skip


@given(st.binary(max_size=200))
def test_any_bytes_give_a_manifest_or_a_typed_error(data: bytes) -> None:
    with pytest.raises(HummingbirdError):
        Manifest.from_json(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    ),
    st.data(),
)
def test_any_value_in_any_field_gives_a_manifest_or_a_typed_error(
    document: dict[str, Any], value: object, data: st.DataObject
) -> None:
    result = copy.deepcopy(document)
    place: Any = result
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    try:
        manifest = Manifest.from_json(json.dumps(result).encode())
    except HummingbirdError:
        return
    assert Manifest.from_json(manifest.to_bytes()) == manifest


def test_records_understand_only_what_they_declare() -> None:
    @dataclasses.dataclass(frozen=True)
    class Pair:
        a: int | None
        b: tuple[float, ...] = ()

    globals()["Pair"] = Pair
    assert record(Pair, {"a": None}, "x") == Pair(None)
    assert record(Pair, {"a": 1, "b": [1, 2.5]}, "x") == Pair(1, (1.0, 2.5))
    for bad in ({}, {"a": "1"}, {"a": 1, "b": 2}, {"a": 1, "c": 2}, [], None, {"a": True}):
        with pytest.raises(InputError) as caught:
            record(Pair, bad, "x")
        assert caught.value.code == "bundle.manifest_invalid"
