"""The Android build as far as it goes without an SDK: its spec, its recipes, its archives."""

from __future__ import annotations

import base64
import configparser
import hashlib
import importlib.util
import json
import re
import shutil
import stat
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "mobile_demo"
RECIPES = DEMO / "android_build" / "recipes"
OURS = {path.name for path in RECIPES.iterdir() if (path / "__init__.py").is_file()}
MACHINES = {"arm64-v8a": 183, "x86_64": 62}
MEMBER = "jni/arm64-v8a/libonnxruntime.so"


def load(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


archives = load("archives", DEMO / "android_build" / "archives.py")
Refused = archives.ArchiveRefused


@pytest.fixture(scope="module")
def app() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(DEMO / "buildozer.spec", encoding="utf-8")
    return parser["app"]


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def library(machine: int = 183, content: bytes = b"..OrtGetApiBase..") -> bytes:
    """The beginning of an ELF file for one kind of processor."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + content


def archive(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, target)
    return path


def wheel(path: Path, members: dict[str, bytes], **more: dict[str, str]) -> Path:
    rows = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    record = "\n".join([*rows, "x-1.dist-info/RECORD,,"])
    return archive(path, {**members, "x-1.dist-info/RECORD": record.encode()}, **more)


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_spec_asks_for_no_more_than_it_needs(app: configparser.SectionProxy) -> None:
    asked = {name.rpartition(".")[2] for name in names(app["android.permissions"])}
    assert asked == {"FOREGROUND_SERVICE", "FOREGROUND_SERVICE_DATA_SYNC", "POST_NOTIFICATIONS"}
    assert app["android.allow_backup"] == "False"
    heavy = {"torch", "av", "onnxruntime", "onnx", "opencv", "scipy", "ffpyplayer"}
    assert not heavy & set(names(app["requirements"]))
    assert int(app["android.minapi"]) >= 24  # NumPy's recipe
    assert set(names(app["android.archs"])) <= archives._ELF_MACHINES.keys()


def test_everything_the_spec_names_is_there(app: configparser.SectionProxy) -> None:
    assert (DEMO / "main.py").is_file()
    name, entry, *options = app["services"].split(":")
    assert re.fullmatch(r"[A-Z][a-z]+", name)
    assert (DEMO / entry).is_file()
    assert options == ["foreground", "foregroundServiceType=dataSync"]
    assert (DEMO / app["p4a.local_recipes"]).resolve() == RECIPES
    version = DEMO / app["version.filename"].replace("%(source.dir)s/", "")
    assert re.search(app["version.regex"], version.read_text(encoding="utf-8"))[1].count(".") == 2
    assert set(names(app["requirements"])) >= OURS == {"libonnxruntime", "hummingbird_runtime"}


def test_what_is_packed_holds_the_app_and_not_its_surroundings(
    app: configparser.SectionProxy,
) -> None:
    left_out, kept = set(names(app["source.exclude_dirs"])), set(names(app["source.include_exts"]))
    assert {"web", "android_build"} <= left_out
    needed = {
        path.suffix.removeprefix(".")
        for path in (DEMO / "hummingbird_demo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert needed <= kept


def test_buildozer_reads_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buildozer = pytest.importorskip("buildozer")
    folder = tmp_path / "mobile_demo"
    folder.mkdir()
    shutil.copy(DEMO / "buildozer.spec", folder)
    source = tmp_path / "runtime/hummingbird_runtime/__init__.py"
    source.parent.mkdir(parents=True)
    shutil.copy(ROOT / "runtime/hummingbird_runtime/__init__.py", source)
    (folder / "main.py").touch()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    program = buildozer.Buildozer("buildozer.spec", "android")
    program.check_configuration_tokens()
    assert program.get_version().count(".") == 2
    assert program.config.getlist("app", "services") == [
        "Generate:service.py:foreground:foregroundServiceType=dataSync"
    ]


def test_the_requirements_resolve_to_recipes_and_pure_packages(
    app: configparser.SectionProxy, tmp_path: Path
) -> None:
    pytest.importorskip("pythonforandroid", reason="python-for-android is not installed")
    script = (
        "import sys, json\n"
        "from pythonforandroid.build import Context\n"
        "from pythonforandroid.bootstrap import Bootstrap\n"
        "from pythonforandroid.graph import get_recipe_order_and_bootstrap\n"
        "context = Context()\n"
        "context.local_recipes = sys.argv[1]\n"
        "context.setup_dirs(sys.argv[2])\n"
        "kind = Bootstrap.get_bootstrap('sdl2', context)\n"
        "found = get_recipe_order_and_bootstrap(context, sys.argv[3].split(','), kind)\n"
        "print(json.dumps(found[:2]))\n"
    )
    asked = ",".join(names(app["requirements"]))
    done = subprocess.run(
        [sys.executable, "-c", script, str(RECIPES), str(tmp_path), asked],
        capture_output=True,
        text=True,
        timeout=120,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    recipes, pure = json.loads(done.stdout.splitlines()[-1])
    assert recipes.index("libonnxruntime") < recipes.index("hummingbird_runtime")
    assert recipes.index("numpy") < recipes.index("hummingbird_runtime")
    # what Kivy asks for, all pure Python or with a pure wheel
    known = {"idna", "six", "chardet", "charset-normalizer", "certifi", "requests", "filetype"}
    assert set(pure) <= known | {"urllib3"}
    assert not {"torch", "av", "onnxruntime", "opencv"} & {*recipes, *pure}


@pytest.mark.parametrize("abi", MACHINES)
def test_the_library_of_the_asked_processor_is_taken(tmp_path: Path, abi: str) -> None:
    members = {f"jni/{a}/libonnxruntime.so": library(m) for a, m in MACHINES.items()}
    aar = archive(tmp_path / "a.aar", {**members, "classes.jar": b"x", "../escape": b"x"})
    out = tmp_path / "out"
    out.mkdir()
    path = archives.library_from_aar(aar, abi, out)
    assert path.read_bytes() == members[f"jni/{abi}/libonnxruntime.so"]
    assert files_below(tmp_path) == {"a.aar", "out/libonnxruntime.so"}


@pytest.mark.parametrize(
    ("members", "links", "named"),
    [
        ({}, {}, "0 members"),
        ({MEMBER: library(62)}, {}, "no ELF library for arm64-v8a"),
        ({MEMBER: b"MZ" + library()}, {}, "no ELF library"),
        ({MEMBER: b""}, {}, "no ELF library"),
        ({MEMBER: library(content=b"x" * 20)}, {}, "OrtGetApiBase"),
        ({}, {MEMBER: "/etc/passwd"}, "link"),
    ],
)
def test_an_aar_without_the_library_is_refused(
    tmp_path: Path, members: dict, links: dict, named: str
) -> None:
    aar = archive(tmp_path / "a.aar", members, links)
    with pytest.raises(Refused, match=named):
        archives.library_from_aar(aar, "arm64-v8a", tmp_path)
    assert files_below(tmp_path) == {"a.aar"}


def test_damaged_archives_and_other_hashes_are_refused(tmp_path: Path) -> None:
    aar = archive(tmp_path / "a.aar", {MEMBER: library()})
    data = bytearray(aar.read_bytes())
    good = hashlib.sha256(data).hexdigest()
    archives.check_sha256(aar, good.upper())
    data[60] ^= 1  # inside the only member
    aar.write_bytes(data)
    with pytest.raises(Refused, match="SHA-256"):
        archives.check_sha256(aar, good)
    with pytest.raises(Refused, match="cannot be read"):
        archives.library_from_aar(aar, "arm64-v8a", tmp_path)
    aar.write_bytes(data[: len(data) // 2])
    with pytest.raises(Refused, match="zip"):
        archives.library_from_aar(aar, "arm64-v8a", tmp_path)
    with pytest.raises(Refused, match="no file"):
        archives.check_sha256(tmp_path / "gone", good)


def test_one_package_of_a_wheel_is_unpacked(tmp_path: Path) -> None:
    members = {"p/__init__.py": b"1", "p/data/a.onnx": b"2", "other/__init__.py": b"3"}
    out = tmp_path / "out"
    written = archives.package_from_wheel(wheel(tmp_path / "w.whl", members), "p", out)
    assert files_below(out) == {"p/__init__.py", "p/data/a.onnx"}
    assert {path.read_bytes() for path in written} == {b"1", b"2"}


@pytest.mark.parametrize(
    "name",
    ["../p/x", "p/../../x", "/p/x", "p\\..\\x", "C:/p/x", "p/../x"],
)
def test_names_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    bad = wheel(tmp_path / "w.whl", {"p/__init__.py": b"1", name: b"2"})
    out = tmp_path / "out"
    with pytest.raises(Refused, match="plain path"):
        archives.package_from_wheel(bad, "p", out)
    assert not out.exists()
    assert files_below(tmp_path) == {"w.whl"}


def test_links_bombs_changes_and_other_wheels_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, named: str) -> None:
        with pytest.raises(Refused, match=named):
            archives.package_from_wheel(path, "p", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    good = {"p/__init__.py": b"1"}
    refused(wheel(tmp_path / "l.whl", good, links={"p/link": "/etc"}), "link")
    refused(wheel(tmp_path / "n.whl", {"q/__init__.py": b""}), "no package p")
    refused(archive(tmp_path / "r.whl", good), "RECORD")
    changed = wheel(tmp_path / "c.whl", good)
    with zipfile.ZipFile(changed, "a") as file:
        file.writestr("p/more.py", b"import os")
    refused(changed, "not as RECORD says")
    monkeypatch.setattr(archives, "LARGEST_FILE", 1000)
    refused(wheel(tmp_path / "b.whl", {**good, "p/zeros": bytes(2000)}), "2000 bytes")
    monkeypatch.setattr(archives, "LARGEST_SUM", 1500)
    many = {f"p/{i}": bytes(900) for i in range(2)}
    refused(wheel(tmp_path / "s.whl", {**good, **many}), "1500 bytes")


class FakeContext:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_python_install_dir(self, arch: str) -> str:
        return str(self.folder / arch / "site-packages")


class FakeRecipe:
    """The part of python-for-android's Recipe that ours use."""

    def __init__(self) -> None:
        self.installed: list[str] = []

    def get_build_dir(self, arch: str) -> str:
        return str(self.ctx.folder / "build" / arch)

    def install_libs(self, arch: object, *libs: str) -> None:
        self.installed += libs

    def has_libs(self, arch: object, *libs: str) -> bool:
        return {Path(lib).name for lib in self.installed} >= set(libs)


@pytest.fixture
def recipe_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], FakeRecipe]:
    module = types.ModuleType("pythonforandroid.recipe")
    module.Recipe = FakeRecipe
    monkeypatch.setitem(sys.modules, "pythonforandroid", types.ModuleType("pythonforandroid"))
    monkeypatch.setitem(sys.modules, "pythonforandroid.recipe", module)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(name: str) -> FakeRecipe:
        recipe = load(f"recipe_{name}", RECIPES / name / "__init__.py").recipe
        recipe.ctx = FakeContext(tmp_path)
        return recipe

    yield make
    sys.modules.pop("archives", None)


ARM = types.SimpleNamespace(arch="arm64-v8a")


def test_the_library_recipe_installs_what_the_pinned_aar_holds(
    recipe_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("libonnxruntime")
    aar = archive(tmp_path / "a.aar", {MEMBER: library()})
    monkeypatch.setenv("HUMMINGBIRD_AAR", str(aar))
    monkeypatch.setenv("HUMMINGBIRD_AAR_SHA256", "0" * 64)
    assert recipe.should_build(ARM)
    with pytest.raises(ValueError, match="SHA-256"):
        recipe.build_arch(ARM)
    assert recipe.installed == []
    monkeypatch.setenv("HUMMINGBIRD_AAR_SHA256", hashlib.sha256(aar.read_bytes()).hexdigest())
    recipe.build_arch(ARM)
    assert [Path(lib).read_bytes() for lib in recipe.installed] == [library()]
    assert not recipe.should_build(ARM)


def test_the_runtime_recipe_unpacks_the_runtime_alone(
    recipe_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("hummingbird_runtime")
    members = {"hummingbird_runtime/__init__.py": b"1", "hummingbird_train/__init__.py": b"2"}
    monkeypatch.setenv("HUMMINGBIRD_WHEEL", str(wheel(tmp_path / "w.whl", members)))
    recipe.build_arch(ARM)
    folder = tmp_path / "arm64-v8a" / "site-packages"
    assert files_below(folder) == {"hummingbird_runtime/__init__.py"}
    assert {"numpy", "libonnxruntime"} <= set(recipe.depends)
