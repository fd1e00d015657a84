"""The command line: exit codes, what goes to stdout and stderr, and refusals before any work."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from hummingbird_runtime import doctor
from hummingbird_runtime.cli import as_typed, main, verbs
from hummingbird_runtime.cli.progress import Progress
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.manifest import Adapter
from hummingbird_runtime.session import OnnxRuntimeBackend


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    if code:
        assert captured.out == "" or arguments[0] == "doctor"
        assert captured.err.splitlines()[-1].startswith("error[")
        assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def generate(capsys, bundle: Path, *arguments: object) -> tuple[int, str, str]:
    return run(capsys, "generate", "--bundle", bundle, "--threads", 1, *arguments)


def test_generate_writes_the_file_and_prints_its_path(
    capsys, here: Path, tiny_bundle_path: Path
) -> None:
    code, out, err = generate(capsys, tiny_bundle_path, "a red ball", "-o", "clip.npz")
    assert (code, out, err) == (0, "clip.npz\n", "")
    assert [path.name for path in here.iterdir()] == ["clip.npz"]
    with np.load(here / "clip.npz") as stored:
        assert stored["frames"].shape == (6, 32, 32, 3)


def test_json_tells_how_to_draw_the_clip_again(capsys, here: Path, tiny_bundle_path: Path) -> None:
    options = ["--seed", 7, "--num-frames", 3, "--height", 16, "--width", 48, "--fps", 5]
    code, out, _ = generate(
        capsys, tiny_bundle_path, "a red cat", "-o", "a.png", "--json", *options
    )
    document = json.loads(out)
    assert code == 0
    assert document["path"] == "a.png"
    assert document["bundle_id"] == tiny_bundle.BUNDLE_ID
    assert [document[key] for key in ("seed", "frames", "height", "width", "fps")] == [
        7, 3, 16, 48, 5.0
    ]  # fmt: skip
    assert document["unknown_words"] == ["cat"]
    assert "prompt.unknown_words" in [warning["code"] for warning in document["warnings"]]
    assert {"load", "text", "denoise", "decode", "save", "total"} <= document["timings"].keys()
    assert document["timings"]["total"] >= document["timings"]["load"]


def test_equal_seeds_give_equal_files(capsys, here: Path, tiny_bundle_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(capsys, tiny_bundle_path, "a red ball", "-o", f"{name}.y4m", "--seed", seed)
    a, b, c = ((here / f"{name}.y4m").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_unknown_words_warn_and_strict_refuses_them(
    capsys, here: Path, tiny_bundle_path: Path
) -> None:
    prompt = ("a red surfing cat", "-o", "a.png")
    code, out, err = generate(capsys, tiny_bundle_path, *prompt)
    assert (code, out) == (0, "a.png\n")
    assert err.startswith("warning[prompt.unknown_words]: ")
    assert "surfing, cat" in err
    assert "a red ball moving left" in err
    assert generate(capsys, tiny_bundle_path, *prompt, "--force", "-q") == (0, "a.png\n", "")
    code, _, err = generate(capsys, tiny_bundle_path, "a cat", "-o", "b.png", "--strict-prompt")
    assert code == 3
    assert "error[prompt.unknown_words]" in err
    assert not (here / "b.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("-o", "a.png"), 2, "usage.arguments"),
        (("p",), 2, "usage.arguments"),
        (("p", "q", "-o", "a.png"), 2, "usage.arguments"),
        (("p", "-o"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--steps", "4"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--num-inference-steps", "abc"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--num-inference-steps"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--num-inf", "4"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--seed", "1.5"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--seed", "1_0"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--seed", "9" * 5000), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--guidance-scale", "nan"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--guidance-scale", "inf"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--fps", "0"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--timeout", "-1"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--threads", "0"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--threads", "-1"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--threads", "100000"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--decoder", "best"), 2, "usage.arguments"),
        (("p", "-o", "a.png", "--providers", ","), 2, "usage.arguments"),
        (("p", "-o", "a.xyz"), 2, "output.suffix"),
        (("p", "-o", "a"), 2, "output.suffix"),
        (("p", "-o", "folder.png"), 2, "output.is_folder"),
        (("p", "-o", "old.png"), 2, "output.exists"),
        (("p", "-o", "no/a.png"), 5, "output.folder_missing"),
        (("p", "-o", "x" * 5000 + ".png"), 5, "output.name_too_long"),
        (("p", "-o", "a.png", "--providers", "NoSuchProvider"), 5, "provider.unavailable"),
        (("p", "-o", "a.png", "--seed", "-1"), 3, "request.seed"),
        (("p", "-o", "a.png", "--width", "0"), 3, "request.size"),
        (("p", "-o", "a.png", "--width", "33"), 3, "request.size"),
        (("p", "-o", "a.png", "--num-frames", "1000000000"), 3, "request.frames"),
        (("p", "-o", "a.png", "--num-inference-steps", "0"), 3, "request.steps"),
        (("p", "-o", "a.png", "--fps-condition", "1000000"), 3, "request.fps_condition"),
        (("p", "-o", "a.png", "--guidance-scale", "1e9"), 3, "request.guidance"),
        (("a\udcff", "-o", "a.png"), 3, "prompt.encoding"),
        (("p", "-o", "a.png", "--decoder", "tiny"), 3, "bundle.no_such_graph"),
        (("p", "-o", "a.png", "--bundle", "nowhere"), 3, "bundle.not_found"),
        (("p", "-o", "a.png", "--bundle", "folder.png"), 3, "bundle.missing_file"),
    ],
)
def test_bad_command_lines(
    capsys, here: Path, tiny_bundle_path: Path, arguments: tuple[str, ...], code: int, error: str
) -> None:
    (here / "folder.png").mkdir()
    (here / "old.png").write_bytes(b"old")
    got, _, err = generate(capsys, tiny_bundle_path, *arguments)
    assert (got, err.splitlines()[-1].partition("]")[0]) == (code, f"error[{error}")
    assert sorted(path.name for path in here.iterdir()) == ["folder.png", "old.png"]
    assert (here / "old.png").read_bytes() == b"old"


def test_a_mistyped_flag_or_verb_names_the_nearest(capsys, here: Path) -> None:
    assert "did you mean --height?" in run(capsys, "generate", "p", "-o", "a.png", "--heigth", 3)[2]
    code, _, err = run(capsys, "genrate")
    assert code == 2
    assert "did you mean `hummingbird generate`?" in err
    assert "hummingbird --help" in run(capsys, "zzzz")[2]


def test_no_words_at_all_print_the_help_as_talk(capsys) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (2, "")
    assert "usage: hummingbird" in err


def test_help_and_version_are_data(capsys) -> None:
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    assert all(verb in out for verb in verbs.VERBS)
    for verb in ("generate", "sample", "info", "verify", "doctor"):
        code, out, err = run(capsys, verb, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: hummingbird {verb}")
    assert run(capsys, "--version")[1].startswith("hummingbird 0.")


def test_sample_needs_no_arguments(
    capsys, here: Path, tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hummingbird_runtime.cli.sample.find_spec", lambda name: None)
    code, out, err = run(capsys, "sample", "--bundle", tiny_bundle_path)
    assert (code, out) == (0, "sample.png\n")
    assert "hummingbird-edge[video]" in err
    assert run(capsys, "sample", "--bundle", tiny_bundle_path)[0] == 2  # it exists now
    code, out, _ = run(
        capsys, "sample", "b.png", "--seed", 3, "--json", "--bundle", tiny_bundle_path
    )
    assert json.loads(out)["prompt"] == "a blue square moving up"
    assert run(capsys, "sample", "-o", "c.npz", "--bundle", tiny_bundle_path)[:2] == (0, "c.npz\n")
    assert run(capsys, "sample", "d.npz", "-o", "c.npz", "--bundle", tiny_bundle_path)[0] == 2


def test_sample_without_examples_says_what_to_use(capsys, here: Path, tmp_path: Path) -> None:
    facts = tiny_bundle.facts(vocabulary_examples=())
    bundle = tiny_bundle.write(tmp_path / "bundle", model=facts)
    code, _, err = run(capsys, "sample", "a.png", "--bundle", bundle)
    assert code == 3
    assert "error[sample.no_examples]" in err


def test_info_prints_facts_and_json(capsys, tiny_bundle_path: Path) -> None:
    code, out, _ = run(capsys, "info", tiny_bundle_path)
    assert code == 0
    for text in ("CC0-1.0", "a COLOUR SHAPE moving DIRECTION", "opset 18", "embedded"):
        assert text in out
    document = json.loads(run(capsys, "info", tiny_bundle_path, "--json")[1])
    assert document["bundle_id"] == tiny_bundle.BUNDLE_ID
    assert document["scheduler"]["sampler"] == "lcm"
    assert document["model"]["frames"]["allowed"] == [1, 12]


def test_info_lists_quality_styles_and_all_bytes_of_a_graph(capsys, tmp_path: Path) -> None:
    graphs = tiny_bundle.graphs()
    unet = dataclasses.replace(graphs["unet"], quality={"snr_db_mean": 18.25}, precision="int8")
    content = {**tiny_bundle.files(), "unet/model.onnx_data": b"x" * 5_000_000}
    bundle = tiny_bundle.write(
        tmp_path / "x",
        content,
        graphs={**graphs, "unet": unet},
        adapters={"ink": Adapter("LICENSE")},
    )
    out = run(capsys, "info", bundle)[1]
    assert "int8, opset 18, 5.0 MB" in out
    assert "quality: snr_db_mean 18.2" in out
    assert "styles\n  ink\n" in out
    assert "\nstyles\n" not in run(capsys, "info", tiny_bundle.write(tmp_path / "y"))[1]


def test_a_bad_request_is_refused_before_a_graph_is_opened(
    capsys, here: Path, tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self, path: Path, options: object) -> None:
        pytest.fail("a graph was opened")

    monkeypatch.setattr(OnnxRuntimeBackend, "open", never)
    for words in (["--seed", -1], ["--num-frames", 99], ["--height", 33], ["--decoder", "tiny"]):
        assert generate(capsys, tiny_bundle_path, "a red ball", "-o", "a.npz", *words)[0] == 3
    assert run(capsys, "sample", "a.npz", "--bundle", tiny_bundle_path, "--seed", -1)[0] == 3


def test_verify_checks_and_deep_also_runs(capsys, tiny_bundle_path: Path) -> None:
    code, out, err = run(capsys, "verify", tiny_bundle_path)
    assert (code, err) == (0, "")
    assert out.startswith("ok tiny")
    code, out, _ = run(capsys, "verify", tiny_bundle_path, "--deep")
    assert code == 0
    assert "two runs equal" in out


def test_verify_refuses_a_damaged_bundle(capsys, tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    with (bundle / "unet" / "model.onnx").open("r+b") as file:
        file.write(b"\x09")
    code, _, err = run(capsys, "verify", bundle)
    assert code == 4
    assert "error[bundle.hash_mismatch]" in err
    assert "unet/model.onnx" in err


def test_verify_deep_refuses_swapped_graphs(capsys, tmp_path: Path) -> None:
    content = tiny_bundle.files()
    unet, decoder = content["unet/model.onnx"], content["vae_decoder/model.onnx"]
    content |= {"unet/model.onnx": decoder, "vae_decoder/model.onnx": unet}
    bundle = tiny_bundle.write(tmp_path / "bundle", content)
    assert run(capsys, "verify", bundle)[0] == 0  # the hashes are right
    code, _, err = run(capsys, "verify", bundle, "--deep")
    assert code == 4
    assert "error[bundle.signature_mismatch]" in err


def test_doctor_tells_every_finding_with_its_fix(
    capsys, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"video": (("no_such_module",), "writes .mp4")})
    monkeypatch.setattr(doctor, "MEMORY_NEEDED", 1 << 62)
    findings = {finding.name: finding for finding in doctor.examine()}
    assert findings["numpy"].status == findings["onnxruntime"].status == "ok"
    assert findings["extra video"].status == "note"
    assert "hummingbird-edge[video]" in findings["extra video"].fix
    assert all(f.fix for f in findings.values() if f.status == "problem")
    code, out, _ = run(capsys, "doctor", "--json")
    assert {finding["name"] for finding in json.loads(out)} == findings.keys()
    if findings["memory"].status == "problem":
        assert code == 5
    assert "fix: " in run(capsys, "doctor")[1]


def test_a_missing_extra_is_one_line_that_names_it(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        verbs.VERBS, "train", verbs.Verb("no_such_package.cli:main", "train", "train")
    )
    code, _, err = run(capsys, "train", "base")
    assert code == 5
    assert err.count("\n") == 1
    assert "hummingbird-edge[train]" in err


def test_a_third_party_verb_is_found_by_its_entry_point(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Point:
        def load(self):
            return lambda arguments: print("third", *arguments) or 0

    def entry_points(group: str, name: str) -> list[Point]:
        assert group == "hummingbird.verbs"
        return [Point()] if name == "paint" else []

    monkeypatch.setattr(verbs.metadata, "entry_points", entry_points)
    assert run(capsys, "paint", "x")[:2] == (0, "third x\n")
    assert run(capsys, "brush")[0] == 2


@pytest.mark.parametrize(
    ("raised", "code", "error"),
    [
        (KeyboardInterrupt(), 130, "runtime.cancelled"),
        (MemoryError(), 5, "resource.memory"),
        (FileNotFoundError(2, "gone", "x"), 5, "resource.system"),
        (ZeroDivisionError("a\nb\x1b[31m"), 6, "internal.bug"),
    ],
)
def test_every_exception_has_an_exit_code_and_one_line(
    capsys, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, error: str
) -> None:
    def verb(arguments: list[str]) -> int:
        raise raised

    monkeypatch.setattr("hummingbird_runtime.cli.find_verb", lambda word: verb)
    got, _, err = run(capsys, "anything")
    assert (got, err.partition("]")[0]) == (code, f"error[{error}")
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert isinstance(as_typed(raised), HummingbirdError)
    assert main(["anything", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_progress_draws_one_line_on_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress(stream=stream)
        progress.note("opening")
        progress.step(2, 4, 0.5)
        assert ("2/4" in stream.getvalue()) == drawn
        progress.warn("a.b", "text")
        progress.close()
        assert "warning[a.b]: text\n" in stream.getvalue()
        assert "\n" not in stream.getvalue().replace("warning[a.b]: text\n", "")
    quiet = Terminal()
    Progress(stream=quiet, quiet=True).warn("a.b", "text")
    assert quiet.getvalue() == ""


def test_closed_streams_are_no_reason_to_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["--version"]) == 0
    assert main(["nonsense"]) == 2
    assert main(["verify", "nowhere"]) == 3
