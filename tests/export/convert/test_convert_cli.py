"""The verbs ``convert`` and ``fetch``: flags, notices, exit codes; a bundle from a checkpoint."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from published_checkpoints import (
    BUNDLE_UNET,
    BUNDLE_VAE,
    CLIP_TEXT,
    CONTAINERS,
    networks,
    published,
)

from hummingbird_export.convert import cli, stream, variants
from hummingbird_export.convert.provenance import NOTICE
from hummingbird_runtime.cli import main

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "07B_merged_all.pt"
    CONTAINERS["module"](path, published())
    return path


@pytest.fixture
def terms(tmp_path: Path) -> list[str]:
    (tmp_path / "TERMS").write_text("No redistribution.")
    return ["--licence", "RAIL-MS", "--licence-file", str(tmp_path / "TERMS")]


@pytest.mark.parametrize("verb", ["convert", "fetch"])
def test_help_needs_no_torch(verb: str):
    code = (
        "import sys\n"
        "from hummingbird_runtime.cli import main\n"
        f"assert main([{verb!r}, '--help']) == 0\n"
        "loaded = {'torch', 'onnx', 'numpy', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: hummingbird {verb}" in done.stdout


def test_the_choices_of_the_flags_are_those_of_the_code():
    assert cli.VARIANTS == variants.NAMES
    assert set(cli.DTYPES) == set(stream.DTYPES)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_inspect_prints_the_table_and_writes_nothing(module: Path, tmp_path: Path, capsys):
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(module), "--inspect", "--allow-pickled-module"]) == 0
    captured = capsys.readouterr()
    assert "the layout of hummingbird-0.7b at other widths" in captured.out
    assert "complete" in captured.out
    assert captured.err == ""
    assert sorted(tmp_path.iterdir()) == before


def test_inspect_of_a_broken_file_ends_with_3_after_its_table(tmp_path: Path, capsys):
    tensors = published()
    del tensors["model.diffusion_model.out.2.bias"]
    CONTAINERS["plain"](tmp_path / "broken.ckpt", tensors)
    assert main(["convert", str(tmp_path / "broken.ckpt"), "--inspect"]) == 3
    captured = capsys.readouterr()
    assert "out.2" in captured.out
    assert captured.err.startswith("error[checkpoint.keys]: ")


def test_a_module_needs_the_flag(module: Path, capsys):
    assert main(["convert", str(module), "--inspect"]) == 4
    assert "--allow-pickled-module" in error_line(capsys)


def test_a_conversion_prints_notice_and_folder(
    module: Path, terms: list[str], tmp_path: Path, capsys
):
    out = tmp_path / "out"
    words = ["convert", str(module), "-o", str(out), "--allow-pickled-module", "--dtype", "fp16"]
    assert main([*words, *terms, "--name", "mine"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert NOTICE in captured.err
    assert json.loads((out / "build.json").read_bytes())["name"] == "mine"
    assert (out / "LICENSE").read_text() == "No redistribution.\n"


@pytest.mark.parametrize("given", [[], ["--licence", "X"], ["--licence-file", "TERMS"]])
def test_the_licence_is_mandatory(given: list[str], terms: list[str], tmp_path: Path, capsys):
    path = tmp_path / "model.ckpt"
    CONTAINERS["plain"](path, published())
    given = [str(tmp_path / word) if word == "TERMS" else word for word in given]
    assert main(["convert", str(path), "-o", str(tmp_path / "out"), *given]) == 2
    line = error_line(capsys)
    assert line.startswith("error[convert.licence]: ")
    assert "RAIL-MS" in line
    assert "research-only" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", None])
def test_a_licence_that_is_no_text_is_refused(data: bytes | None, tmp_path: Path, capsys):
    path = tmp_path / "model.ckpt"
    CONTAINERS["plain"](path, published())
    file = tmp_path / "TERMS"
    if data is not None:
        file.write_bytes(data)
    words = ["--licence", "X", "--licence-file", str(file)]
    code = main(["convert", str(path), "-o", str(tmp_path / "out"), *words])
    assert code == (2 if data == b"" else 3)
    assert error_line(capsys).startswith(
        "error[convert.licence]" if data == b"" else "error[recipe.unreadable]"
    )


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["model.ckpt"], "got neither -o and --inspect"),
        (["model.ckpt", "-o", "x", "--inspect"], "got both -o and --inspect"),
        (["--inspect"], "SRC"),
        (["model.ckpt", "--inspekt"], "did you mean --inspect"),
        (["model.ckpt", "--inspect", "--dtype", "int8"], "int8"),
        (["model.ckpt", "--inspect", "--lora-strength", "nan"], "nan"),
        (["model.ckpt", "--inspect", "--variant", "13b"], "13b"),
    ],
)
def test_wrong_calls_are_typed(words: list[str], match: str, capsys):
    assert main(["convert", *words]) == 2
    assert match in error_line(capsys)


def test_a_lora_is_looked_at_and_refused_where_it_does_not_fit(tmp_path: Path, capsys):
    CONTAINERS["plain"](tmp_path / "model.ckpt", published())
    torch.save([torch.ones(4, 1), torch.ones(1, 4)], tmp_path / "unet_lora.pt")
    words = ["convert", str(tmp_path / "model.ckpt"), "--inspect", "--lora"]
    assert main([*words, str(tmp_path / "unet_lora.pt")]) == 3
    captured = capsys.readouterr()
    assert "1 updates of rank 1" in captured.out
    assert captured.err.startswith("error[lora.layers]: ")
    assert main([*words, str(tmp_path / "model.ckpt")]) == 3
    assert error_line(capsys).startswith("error[lora.pairs]: ")


@pytest.mark.slow
def test_a_converted_checkpoint_builds_a_bundle_that_draws(
    terms: list[str], tmp_path: Path, capsys
):
    from hummingbird_export.build import read_recipe
    from hummingbird_runtime.bundle import Bundle

    CONTAINERS["module"](
        tmp_path / "model.pt", published(networks(BUNDLE_UNET, BUNDLE_VAE, CLIP_TEXT))
    )
    out, bundle = tmp_path / "out", tmp_path / "bundle"
    words = ["convert", str(tmp_path / "model.pt"), "-o", str(out), "--allow-pickled-module"]
    assert main([*words, *terms]) == 0
    recipe = read_recipe(out / "build.json")
    assert recipe.unet == out / "unet.safetensors"
    # the sizes at which the export times its graphs; 320 x 512 pixels would take minutes
    side = {"trained": 64, "default": 64, "allowed": [64, 128]}
    frames = {"trained": 2, "default": 2, "allowed": [1, 4]}
    facts = {**recipe.facts, "height": side, "width": side, "frames": frames}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    words = [str(out / "build.json"), "--facts", str(tmp_path / "facts.json")]
    assert main(["export", "build", *words, "-o", str(bundle)]) == 0
    manifest = Bundle.open(bundle).manifest
    assert manifest.licence.name == "RAIL-MS"
    assert manifest.provenance["redistribution"] == NOTICE
    assert manifest.model.guidance.kind == "embedded"
    clip = str(tmp_path / "clip.npz")
    words = ["--bundle", str(bundle), "--num-inference-steps", "1", "-o", clip]
    assert main(["generate", "a drone", *words]) == 0


# fetch


class FakeHub(types.ModuleType):
    """huggingface_hub with one repository on disk."""

    def __init__(self, root: Path, files: dict[str, bytes]) -> None:
        super().__init__("huggingface_hub")
        self.root, self.asked = root, []
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

    def HfApi(self) -> FakeHub:
        return self

    def list_repo_files(self, repo: str, *, revision: str) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*") if p.is_file())

    def hf_hub_download(self, repo: str, name: str, *, revision: str) -> str:
        self.asked.append((repo, name, revision))
        if not (self.root / name).exists():
            raise ConnectionError(f"404 {name}\nmore lines")
        return str(self.root / name)


FILES = {"07B_merged_all.pt": b"weights", "sub/README.md": b"read me"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "cache", FILES)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def fetch(*words: str, revision: str = REVISION) -> int:
    return main(["fetch", "amd/weights", "--revision", revision, *words])


def test_a_file_is_fetched_with_its_hash(hub: FakeHub, tmp_path: Path, capsys):
    out = tmp_path / "out"
    digest = hashlib.sha256(b"weights").hexdigest()
    words = ["--file", "07B_merged_all.pt", "-o", str(out)]
    assert fetch(*words, "--sha256", digest.upper()) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{digest}  {out / '07B_merged_all.pt'}\n"
    assert NOTICE in captured.err
    assert hub.asked == [("amd/weights", "07B_merged_all.pt", REVISION)]
    assert (out / "07B_merged_all.pt").read_bytes() == b"weights"
    record = json.loads((out / "fetch.json").read_bytes())
    assert record["files"] == {"07B_merged_all.pt": {"sha256": digest, "bytes": 7}}
    assert fetch(*words) == 2
    assert "output.exists" in error_line(capsys)
    assert fetch(*words, "--force") == 0


def test_without_a_name_every_file_is_fetched(hub: FakeHub, tmp_path: Path):
    assert fetch("-o", str(tmp_path / "out")) == 0
    for name, data in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == data


def test_a_wrong_hash_leaves_nothing(hub: FakeHub, tmp_path: Path, capsys):
    words = ["--file", "07B_merged_all.pt", "-o", str(tmp_path / "out"), "--sha256", "0" * 64]
    assert fetch(*words) == 4
    assert "fetch.hash_mismatch" in error_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc", REVISION.upper(), REVISION + "0"])
def test_a_revision_that_can_move_is_refused(hub: FakeHub, tmp_path: Path, revision: str, capsys):
    assert fetch("-o", str(tmp_path / "out"), revision=revision) == 2
    line = error_line(capsys)
    assert "fetch.revision" in line
    assert "branch" in line
    assert hub.asked == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "c:x", "fetch.json"])
def test_names_that_leave_the_folder_are_refused(hub: FakeHub, tmp_path: Path, name: str, capsys):
    assert fetch("--file", name, "-o", str(tmp_path / "out")) == 2
    assert "fetch.file" in error_line(capsys)
    hub.list_repo_files = lambda repo, revision: [name]  # a hostile listing
    assert fetch("-o", str(tmp_path / "out")) == 2
    assert "fetch.file" in error_line(capsys)
    assert hub.asked == []


@pytest.mark.parametrize("words", [["--sha256", "0" * 64], ["--sha256", "zz", "--file", "a"]])
def test_a_hash_goes_with_one_file(hub: FakeHub, tmp_path: Path, words: list[str], capsys):
    assert fetch("-o", str(tmp_path / "out"), *words) == 2
    assert "fetch.checksum" in error_line(capsys)


def test_faults_of_the_network_are_one_line(hub: FakeHub, tmp_path: Path, capsys):
    assert fetch("--file", "absent.pt", "-o", str(tmp_path / "out")) == 5
    line = error_line(capsys)
    assert line.startswith("error[fetch.failed]: ")
    assert "404 absent.pt" in line
    assert not (tmp_path / "out").exists()


def test_other_folders_are_not_replaced(hub: FakeHub, tmp_path: Path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    assert fetch("-o", str(tmp_path / "mine"), "--force") == 2
    assert "output.not_a_checkpoint" in error_line(capsys)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert fetch("-o", str(tmp_path / "out")) == 5
    line = error_line(capsys)
    assert line.startswith("error[extra.missing]: ")
    assert "huggingface_hub" in line
