"""The page's sources against the Python runtime's constants, and what a browser forbids."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import hummingbird_runtime
from hummingbird_runtime import arguments, graphs, manifest, operators
from hummingbird_runtime.scheduler_config import SchedulerConfig

WEB = Path(__file__).parents[2] / "mobile_demo" / "web"
SOURCES = sorted((WEB / "src").glob("*.js"))
SCRIPTS = [*SOURCES, WEB / "sw.js", WEB / "build.js", WEB / "serve.js", WEB / "embed" / "embed.js"]


def source(name: str) -> str:
    return (WEB / "src" / name).read_text("utf-8")


def test_character_references_are_pythons() -> None:
    spec = importlib.util.spec_from_file_location("make_entities", WEB / "make_entities.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.module_text() == source("entities.js")


def test_allowed_operators_are_the_runtimes() -> None:
    text = source("operators.js")
    (standard,) = re.findall(r"const STANDARD = `([^`]*)`", text)
    (microsoft,) = re.findall(r"const MICROSOFT = `([^`]*)`", text)
    listed = {f"ai.onnx:{name}" for name in standard.split()}
    listed |= {f"com.microsoft:{name}" for name in microsoft.split()}
    assert listed == operators.ALLOWED_OPERATORS
    assert f"OLDEST_OPSET = {operators.OLDEST_OPSET};" in text
    assert f"NEWEST_OPSET = {operators.NEWEST_OPSET};" in text


def test_constants_are_the_runtimes() -> None:
    assert f"SCHEMA_VERSION = {manifest.SCHEMA_VERSION};" in source("manifest.js")
    assert f"MAX_FILES = {manifest.MAX_FILES};" in source("manifest.js")
    assert graphs.KEPT_TOGETHER == 2**29
    assert "KEPT_TOGETHER = 2 ** 29;" in source("bundle.js")
    assert arguments.MAX_PROMPT_BYTES == 1 << 16
    assert "MAX_PROMPT_BYTES = 1 << 16;" in source("request.js")
    defaults = source("schedule.js").partition("export const DEFAULTS = {")[2].partition("}")[0]
    found = dict(re.findall(r"(\w+): ([^,]+),", defaults))
    for name, value in SchedulerConfig().to_json().items():
        assert json.loads(found[name]) == value, name


def test_version_is_the_packages() -> None:
    package = json.loads((WEB / "package.json").read_text("utf-8"))
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))
    assert package["version"] == lock["version"] == hummingbird_runtime.__version__
    assert f'VERSION = "{package["version"]}"' in source("version.js")


def test_packages_are_pinned_and_hashed() -> None:
    package = json.loads((WEB / "package.json").read_text("utf-8"))
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    wanted = package["dependencies"] | package["devDependencies"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for path, entry in lock.items() if path)
    assert not any("resolved" in entry for entry in lock.values()), "names one registry"


def test_nothing_is_loaded_from_elsewhere() -> None:
    namespace = "http://www.w3.org/2000/svg"
    for path in [*SCRIPTS, WEB / "style.css", WEB / "index.html", WEB / "icon.svg"]:
        text = path.read_text("utf-8").replace(namespace, "").replace("http://localhost", "")
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]{2,}", text), path.name


def test_no_inline_script_or_style() -> None:
    for name in ("index.html", "embed/index.html"):
        text = (WEB / name).read_text("utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon[a-z]+=", text), name
    (policy,) = re.findall(
        r'Content-Security-Policy" content="([^"]+)"', (WEB / "index.html").read_text("utf-8")
    )
    assert "unsafe-inline" not in policy
    assert "'unsafe-eval'" not in policy
    header = (WEB / "serve.js").read_text("utf-8")
    assert all(part.strip() in re.sub(r'"\s*\+\s*"', "", header) for part in policy.split(";"))


def test_scripts_are_short_and_open_with_what_they_hold() -> None:
    for path in SCRIPTS:
        text = path.read_text("utf-8")
        assert len(text.splitlines()) <= 400, path.name
        assert re.match(r"/\*\*? ?\n? \*? ?\S|/\*\* \S", text), path.name
