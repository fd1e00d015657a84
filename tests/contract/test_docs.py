"""README, docs and examples say what is true: their code runs, their links and flags exist."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import io
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import tiny_bundle
from markdown_page import Page

import hummingbird_runtime.bundle
from hummingbird_runtime import manifest
from hummingbird_runtime.cli import main
from hummingbird_runtime.request import Options
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import TokenizerConfig

ROOT = Path(__file__).parents[2]
NAMES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PATHS = [ROOT / name for name in NAMES] + sorted((ROOT / "docs").glob("*.md"))
PAGES = {str(path.relative_to(ROOT)): Page(path) for path in PATHS}
# An export traces three networks, which takes torch longer than all the rest together.
EXAMPLES = [
    pytest.param(
        path,
        id=path.stem,
        marks=[pytest.mark.slow] if "hummingbird_export" in path.read_text() else [],
    )
    for path in sorted((ROOT / "examples").glob("*.py"))
]
NESTED = ("train", "export", "curate", "bench")
HEAVY = ("torch", "onnx", "onnxscript", "onnxsim", "safetensors")

every_page = pytest.mark.parametrize("name", PAGES)


def pages_marked(mark: str) -> list[str]:
    return [name for name, page in PAGES.items() if any(b.mark == mark for b in page.blocks)]


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes, ranges and examples of the built-in bundle; graphs that run in microseconds."""
    side = manifest.Side(trained=64, default=64, multiple_of=16, allowed=(32, 128))
    facts = tiny_bundle.facts(
        frames=manifest.Frames(trained=26, default=26, allowed=(1, 104)),
        height=side,
        width=side,
        decode_chunk=26,
    )
    return tiny_bundle.write(tmp_path_factory.mktemp("bundles") / "quick", model=facts)


@pytest.fixture
def quick_builtin(
    quick_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """The built-in bundle replaced by a quick one, and an empty working folder."""
    monkeypatch.setattr(hummingbird_runtime.bundle, "builtin_bundle", lambda: quick_bundle)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def run_blocks(page: Page, *, mark: str) -> int:
    """Run the marked blocks in order, Python in one namespace; returns how many there were."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    marked = [block for block in page.blocks if block.mark == mark]
    for block in marked:
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), namespace)
            continue
        assert block.language == "console", f"{block.where}: a marked block of no known language"
        for command in block.commands:
            program, *arguments = shlex.split(command)
            assert program == "hummingbird", f"{block.where}: only this command can be run"
            assert main(arguments) == 0, f"{block.where}: {command}"
    return len(marked)


def need_export() -> None:
    for module in HEAVY:
        pytest.importorskip(module)


@pytest.mark.parametrize("name", pages_marked("run"))
@pytest.mark.usefixtures("quick_builtin")
def test_code_of_a_page_runs_in_order(name: str):
    assert run_blocks(PAGES[name], mark="run")


@pytest.mark.parametrize("name", pages_marked("run: torch"))
@pytest.mark.slow
@pytest.mark.usefixtures("quick_builtin")
def test_code_that_needs_torch_runs_in_order(name: str):
    need_export()
    assert run_blocks(PAGES[name], mark="run: torch")


def test_readme_example_draws_with_the_built_in_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("av")  # it writes an .mp4
    monkeypatch.chdir(tmp_path)
    assert run_blocks(PAGES["README.md"], mark="run: built-in")
    assert (tmp_path / "clip.mp4").stat().st_size > 1000


@pytest.mark.parametrize("path", EXAMPLES)
def test_example_runs_and_is_short(path: Path, quick_builtin: pytest.MonkeyPatch):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    if "hummingbird_export" in text:
        need_export()
    quick_builtin.setattr(sys, "argv", [path.name])
    runpy.run_path(str(path), run_name="__main__")


@every_page
def test_every_relative_link_leads_somewhere(name: str):
    broken = []
    for link in PAGES[name].links:
        if re.match(r"[a-z]+://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (PAGES[name].path.parent / target).resolve() if target else PAGES[name].path
        if not path.exists() or (anchor and anchor not in Page(path).anchors):
            broken.append(link)
    assert not broken


@every_page
def test_every_flag_exists(name: str):
    page = PAGES[name]
    commands = [command for block in page.blocks for command in block.commands]
    for text in [*commands, *page.spans]:
        verb, flags = parse_command(text)
        if verb:
            missing = flags - known_flags(verb)
            assert not missing, f"{name}: {text}: no {missing} of {' '.join(verb)}"
        elif flags:
            missing = flags - set().union(*(known_flags(v) for v in all_verbs()))
            assert not missing, f"{name}: {text}: no verb has {missing}"


def parse_command(text: str) -> tuple[tuple[str, ...], set[str]]:
    """(verb words, flags) of a hummingbird command; ((), flags) of a bare ``--flag``."""
    found = re.match(r"(?:\S*/)?hummingbird ([a-z]+)(?: ([a-z][a-z-]*)(?= |$))?", text)
    if not found and not text.startswith("--"):
        return (), set()
    flags = set(re.findall(r"(?<![\w\-\"'])(--[a-z][a-z-]*|-[a-z])(?![\w-])", text))
    if not found:
        return (), flags
    nested = found[1] in NESTED and found[2]
    return ((found[1], found[2]) if nested else (found[1],)), flags


@functools.cache
def help_of(*verb: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*verb, "--help"]) == 0, f"no verb {' '.join(verb)}"
    return out.getvalue()


def known_flags(verb: tuple[str, ...]) -> set[str]:
    listed = re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", help_of(*verb))
    return {*listed, "--debug", "--help", "--version"}


def all_verbs() -> list[tuple[str, ...]]:
    nested = {
        outer: re.findall(r"^ {2,4}([a-z][a-z-]*) ", help_of(outer), re.MULTILINE)
        for outer in NESTED
    }
    words = re.findall(r"^  ([a-z]+) ", help_of(), re.MULTILINE)
    return [(w,) for w in words] + [(o, w) for o, inner in nested.items() for w in inner]


@every_page
def test_every_make_target_and_extra_exists(name: str):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = PAGES[name]
    commands = [command for block in page.blocks for command in block.commands]
    for text in [*commands, *page.spans]:
        if found := re.match(r"make ([a-z-]+)", text):
            assert found[1] in targets, f"{name}: {text}"
        for extras in re.findall(r"(?:hummingbird-edge|\.)\[([a-z,]+)\]", text):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), (
                f"{name}: {text}"
            )


def test_every_field_of_the_bundle_is_specified():
    documented = set(re.split(r"[^\w.]+", " ".join(PAGES["docs/bundle.md"].spans)))
    listed = [getattr(manifest, name) for name in manifest.__all__]
    for cls in [*filter(dataclasses.is_dataclass, listed), SchedulerConfig, TokenizerConfig]:
        fields = {field.name for field in dataclasses.fields(cls)}
        assert fields <= documented, f"{cls.__name__}: {fields - documented}"


def test_every_argument_of_a_call_is_listed():
    assert set(Options.__annotations__) | {"prompt"} <= {
        *re.findall(r"\w+", " ".join(PAGES["docs/embedding.md"].spans)),
        "prompt",
    }


@every_page
def test_every_toml_block_parses(name: str):
    for block in PAGES[name].blocks:
        if block.language == "toml":
            assert tomllib.loads(block.text), block.where


def test_every_path_of_the_file_tree_exists():
    (tree,) = (b for b in PAGES["ARCHITECTURE.md"].blocks if b.mark == "tree")
    folders: list[str] = []
    missing = []
    for line in tree.text.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name]
        path = ROOT.joinpath(*folders)
        if not (path.is_dir() if name.endswith("/") else path.is_file()):
            missing.append("".join(folders))
    assert not missing


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert f": {path.name}\n" in navigation


def test_readme_is_short_and_measured():
    assert len(PAGES["README.md"].text.splitlines()) <= 150
    left = {n: re.findall(r"@@\w+@@", page.text) for n, page in PAGES.items() if "@@" in page.text}
    assert not left, "figures that nobody has measured yet"


def test_the_heavy_packages_are_known():
    """A renamed package would turn the torch examples into silent skips."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [line for lane in ("train", "export") for line in wanted["optional-dependencies"][lane]]
    listed = {re.split(r"[\[<>=]", line)[0] for line in lines}
    assert set(HEAVY) <= listed
    assert importlib.util.find_spec("hummingbird_export") is not None
