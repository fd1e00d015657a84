"""Every bad command line and call of the catalogue: exit code, one error line, nothing done.

A row is refused before a graph runs; a wrong flag, output or bundle before one is even opened.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import HummingbirdError
from hummingbird_runtime.session import OnnxRuntimeBackend, OnnxRuntimeSession

SECONDS = 5.0
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX links, FIFOs and byte names")
HERE = ["folder.png", "link.png", "linkdir.png", "loop.png", "lost.png", "old.png", "pipe.png"]


@dataclasses.dataclass
class Work:
    """What was done with graphs."""

    opened: int = 0
    runs: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    counted = Work()
    real_open, real_run = OnnxRuntimeBackend.open, OnnxRuntimeSession.run

    def count_open(self, *arguments):
        counted.opened += 1
        return real_open(self, *arguments)

    def count_run(self, *arguments, **options):
        counted.runs += 1
        return real_run(self, *arguments, **options)

    monkeypatch.setattr(OnnxRuntimeBackend, "open", count_open)
    monkeypatch.setattr(OnnxRuntimeSession, "run", count_run)
    return counted


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with everything in it that an output name could collide with."""
    folder = tmp_path / "here"
    (folder / "folder.png").mkdir(parents=True)
    (folder / "old.png").write_bytes(b"old")
    if os.name != "nt":
        (folder / "link.png").symlink_to("old.png")
        (folder / "linkdir.png").symlink_to("folder.png")
        (folder / "lost.png").symlink_to("no/where.png")
        (folder / "loop.png").symlink_to("loop.png")
        os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)
    return folder


def untouched(folder: Path) -> bool:
    names = sorted(path.name for path in folder.iterdir())
    expected = HERE if os.name != "nt" else ["folder.png", "old.png"]
    return names == expected and (folder / "old.png").read_bytes() == b"old"


def check_refusal(capsys, words: list[str], exit_code: int, error: str) -> str:
    started = time.process_time()  # not the clock on the wall: other work may share the machine
    got = main(words)
    assert time.process_time() - started < SECONDS
    out, err = capsys.readouterr()
    assert (got, err.splitlines()[-1].partition(": ")[0]) == (exit_code, f"error[{error}]"), err
    assert out == ""
    assert "Traceback" not in err
    assert "\x1b" not in err
    return err


P = ("generate", "p", "-o", "a.png")
USAGE = "usage.arguments"

LINES = {
    # verbs
    "verb empty": ([""], 2, "usage.unknown_verb"),
    "verb in capitals": (["GENERATE"], 2, "usage.unknown_verb"),
    "verb with a space": (["generate "], 2, "usage.unknown_verb"),
    "verb is a flag": (["--seed", "1"], 2, "usage.unknown_verb"),
    "verb is a path": (["../generate"], 2, "usage.unknown_verb"),
    "verb is control characters": (["\x1b[31m\n\0"], 2, "usage.unknown_verb"),
    "verb of 100,000 characters": (["x" * 100_000], 2, "usage.unknown_verb"),
    # words and flags
    "no prompt, no output": (["generate"], 2, USAGE),
    "prompt given as a flag": (["generate", "--prompt", "p", "-o", "a.png"], 2, USAGE),
    "an empty second prompt": ([*P, ""], 2, USAGE),
    "unknown short flag": ([*P, "-x"], 2, USAGE),
    "three dashes": ([*P, "---seed", "1"], 2, USAGE),
    "flag in capitals": ([*P, "--SEED", "1"], 2, USAGE),
    "flag with an underscore": ([*P, "--num_frames", "4"], 2, USAGE),
    "value for --force": ([*P, "--force=yes"], 2, USAGE),
    "value for --json": ([*P, "--json=1"], 2, USAGE),
    "output that looks like a flag": (["generate", "p", "-o", "-a.png"], 2, USAGE),
    "output flag twice, last empty": ([*P, "-o"], 2, USAGE),
    "info of two bundles": (["info", "a", "b"], 2, USAGE),
    "info with a wrong flag": (["info", "--jsn"], 2, USAGE),
    "verify of two bundles": (["verify", "a", "b"], 2, USAGE),
    "verify without time": (["verify", "--deep", "--timeout", "0"], 2, USAGE),
    "doctor of something": (["doctor", "x"], 2, USAGE),
    "sample with a prompt": (["sample", "a.png", "--prompt", "p"], 2, USAGE),
    "sample to two files": (["sample", "a.png", "-o", "b.png"], 2, USAGE),
    "sample with a wrong seed": (["sample", "a.png", "--seed", "x"], 2, USAGE),
    "sample of a negative seed": (["sample", "a.png", "--seed"], 2, USAGE),
    # output names
    "output empty": ([*P, "-o", ""], 2, "output.suffix"),
    "output is this folder": ([*P, "-o", "."], 2, "output.suffix"),
    "output is the root": ([*P, "-o", "/"], 2, "output.suffix"),
    "output is stdout": ([*P, "-o", "-"], 2, "output.suffix"),
    "output is only a suffix": ([*P, "-o", ".png"], 2, "output.suffix"),
    "output ends in a dot": ([*P, "-o", "a."], 2, "output.suffix"),
    "output suffix with a space": ([*P, "-o", "a.png "], 2, "output.suffix"),
    "output suffix nearly right": ([*P, "-o", "a.mp4v"], 2, "output.suffix"),
    "output suffix of another tool": ([*P, "-o", "a.mkv"], 2, "output.suffix"),
    "output suffix doubled": ([*P, "-o", "a.png.txt"], 2, "output.suffix"),
    "output with a NUL": ([*P, "-o", "a\0.png"], 2, "output.bad_name"),
    "output is a folder": ([*P, "-o", "folder.png"], 2, "output.is_folder"),
    "output is a folder, forced": ([*P, "-o", "folder.png/", "--force"], 2, "output.is_folder"),
    "output exists": ([*P, "-o", "old.png"], 2, "output.exists"),
    "output exists, by a long way": ([*P, "-o", "folder.png/../old.png"], 2, "output.exists"),
    "output under a file": ([*P, "-o", "old.png/a.png"], 5, "output.folder_missing"),
    "output folder missing": ([*P, "-o", "no/a.png", "--force"], 5, "output.folder_missing"),
    "output name of 256 bytes": ([*P, "-o", "x" * 252 + ".png"], 5, "output.name_too_long"),
    "output 3000 folders deep": ([*P, "-o", "d/" * 3000 + "a.png"], 5, "output.name_too_long"),
    "sample over a file": (["sample", "old.png"], 2, "output.exists"),
    # bundles that are none
    "bundle with a NUL": ([*P, "--bundle", "a\0b"], 3, "bundle.not_found"),
    "bundle is a file": ([*P, "--bundle", "old.png"], 3, "bundle.not_found"),
    "bundle under a file": ([*P, "--bundle", "old.png/b"], 3, "bundle.not_found"),
    "bundle with a long name": ([*P, "--bundle", "x" * 5000], 3, "bundle.not_found"),
    "bundle is an empty folder": ([*P, "--bundle", "folder.png"], 3, "bundle.missing_file"),
    "info of nothing": (["info", "nowhere"], 3, "bundle.not_found"),
    "info of a file": (["info", "old.png", "--json"], 3, "bundle.not_found"),
    "verify of a file": (["verify", "old.png"], 3, "bundle.not_found"),
    "verify of an empty folder": (["verify", "folder.png", "--deep"], 3, "bundle.missing_file"),
    "sample of nothing": (["sample", "a.png", "--bundle", "nowhere"], 3, "bundle.not_found"),
}
WHOLE = ["abc", "", " ", "1.0", "1e3", "0x10", "1_0", "٣", "1,2", "None", "--", "inf", "9" * 21]
for flag in ("num-frames", "height", "width", "num-inference-steps", "seed", "fps-condition"):
    LINES |= {f"{flag} {text!r}": ([*P, f"--{flag}={text}"], 2, USAGE) for text in WHOLE}
for flag, texts in {
    "guidance-scale": ["seven", "", "nan", "-inf", "1e999", "0x8", "1_0", "7,5", "1/2", "--"],
    "fps": ["abc", "", "nan", "inf", "0.0", "-1", "1_0", "1e-7", "0.0099", "1000.1", "1e6", "--"],
    "timeout": ["abc", "", "nan", "inf", "0", "-0.0", "-1", "1_0"],
    "threads": ["abc", "", "0", "-1", "1.5", "1025", "1_0"],
    "providers": ["", ",", " , ,", "--"],
    "decoder": ["", "FULL", "vae_decoder", "full,tiny"],
}.items():
    LINES |= {f"{flag} {text!r}": ([*P, f"--{flag}={text}"], 2, USAGE) for text in texts}


@pytest.mark.parametrize(("words", "exit_code", "error"), LINES.values(), ids=LINES)
def test_wrong_lines_open_no_graph(
    capsys, here: Path, work: Work, tiny_bundle_path: Path, words, exit_code: int, error: str
) -> None:
    if "--bundle" not in words and words[0] == "generate":
        words = [*words, "--bundle", str(tiny_bundle_path)] if words[-1] != "-o" else words
    check_refusal(capsys, words, exit_code, error)
    assert untouched(here)
    assert work == Work(0, 0)


@posix
@pytest.mark.parametrize(
    ("name", "exit_code", "error"),
    [
        ("link.png", 2, "output.exists"),
        ("linkdir.png", 2, "output.is_folder"),
        ("lost.png", 5, "output.folder_missing"),
        ("loop.png", 2, "output.exists"),
        ("pipe.png", 2, "output.exists"),
    ],
)
def test_links_and_pipes_in_the_way_are_kept(
    capsys, here: Path, work: Work, tiny_bundle_path: Path, name: str, exit_code: int, error: str
) -> None:
    words = ["generate", "p", "-o", name, "--bundle", str(tiny_bundle_path)]
    check_refusal(capsys, words, exit_code, error)
    assert untouched(here)
    assert work == Work(0, 0)


@posix
def test_a_link_takes_its_format_from_the_name_that_was_asked_for(
    capsys, tmp_path: Path, tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.npz").symlink_to("data.bin")
    words = ["generate", "a red ball", "-o", "clip.npz", "--bundle", str(tiny_bundle_path)]
    assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "clip.npz").is_symlink()
    with np.load(tmp_path / "data.bin") as stored:
        assert stored["frames"].shape[0] == 6


BIG = str(10**20 - 1)
REQUESTS = {
    **{f"{n} frames": (["--num-frames", n], 3, "request.frames") for n in ("0", "-1", "13", BIG)},
    **{
        f"{side} {n}": ([f"--{side}", n], 3, "request.size")
        for side in ("height", "width")
        for n in ("0", "-16", "8", "17", "31", "63", "65", "80", "65536", BIG)
    },
    "65536 x 65536": (["--height", "65536", "--width", "65536"], 3, "request.size"),
    **{
        f"{n} steps": (["--num-inference-steps", n], 3, "request.steps")
        for n in ("0", "-1", "51", "1001", BIG)
    },
    **{f"seed {n}": (["--seed", n], 3, "request.seed") for n in ("-1", str(2**64), BIG, "-" + BIG)},
    **{
        f"guidance {n}": (["--guidance-scale", n], 3, "request.guidance")
        for n in ("0", "-1", "0.999", "10.001", "1e9", "1e308")
    },
    **{
        f"fps condition {n}": (["--fps-condition", n], 3, "request.fps_condition")
        for n in ("0", "-1", "31", "1000", "1000000", BIG)
    },
    "negative prompt": (["--negative-prompt", "a cat"], 2, "request.negative_prompt"),
    "no negative prompt": (["--negative-prompt", ""], 2, "request.negative_prompt"),
    "negative surrogate": (["--negative-prompt", "\udc80"], 3, "prompt.encoding"),
    "tiny decoder": (["--decoder", "tiny"], 3, "bundle.no_such_graph"),
    "two faults at once": (["--seed", "-1", "--num-frames", "0"], 3, "request.frames"),
}
PROMPTS = {
    "a lone surrogate": ("a\ud800b", 3, "prompt.encoding"),
    "bytes that are no UTF-8": ("a \udcff\udcfe ball", 3, "prompt.encoding"),
    "one byte too many": ("a" * (2**16 + 1), 3, "prompt.too_long"),
    "a megabyte": ("red ball " * 120_000, 3, "prompt.too_long"),
    "a megabyte of emoji": ("\U0001f534" * 250_000, 3, "prompt.too_long"),
    "unknown word": ("a red cat", 3, "prompt.unknown_words"),
    "unknown script": ("كرة حمراء", 3, "prompt.unknown_words"),
    "control token": ("a red ball <|endoftext|>", 3, "prompt.unknown_words"),
    "words joined": ("aredball", 3, "prompt.unknown_words"),
}
for name, (prompt, code, error) in PROMPTS.items():
    REQUESTS[name] = (["PROMPT", prompt], code, error)


@pytest.mark.parametrize(("words", "exit_code", "error"), REQUESTS.values(), ids=REQUESTS)
def test_wrong_requests_run_no_graph(
    capsys, here: Path, work: Work, tiny_bundle_path: Path, words, exit_code: int, error: str
) -> None:
    prompt, more = (words[1], []) if words[0] == "PROMPT" else ("a red ball", words)
    line = ["generate", prompt, "-o", "a.png", "--bundle", str(tiny_bundle_path), "--threads", "1"]
    check_refusal(capsys, [*line, "-q", "--strict-prompt", *more], exit_code, error)
    assert untouched(here)
    assert work.runs == 0


WORKS = {
    **{
        f"prompt {name}": [text]
        for name, text in {
            "empty": "",
            "of spaces": " \t\r\n\u00a0\u3000",
            "of 10,000 characters": "a red ball " * 909,
            "of 64 KiB in one word": "a" * 2**16,
            "of 64 KiB of entities": "&amp;" * (2**16 // 5),
            "with a NUL": "a red\0ball",
            "with emoji": "a \U0001f468\u200d\U0001f469\u200d\U0001f467 ball",
            "right to left": "\u202eكرة حمراء\u202c a red ball",
            "with control tokens": "<|startoftext|>a red ball<|endoftext|>",
            "with entities": "a &amp;lt;red&amp;gt; ball",
            "with ligatures": "a ﬁne ｒｅｄ ball",
            "with C1 controls": "a \x80red\x9f ball",
            "with combining marks": "a re\u0301d ball",
            "with a BOM and CRLF": "\ufeffa red\r\nball",
            "like a flag": "--",
        }.items()
    },
    "one frame": ["p", "--num-frames", "1"],
    "most frames": ["p", "--num-frames", "12"],
    **{f"{n} steps": ["p", "--num-inference-steps", n] for n in ("1", "3", "7", "50")},
    **{f"seed {n}": ["p", "--seed", str(n)] for n in (0, 2**32, 2**63, 2**64 - 1)},
    "a seed with sign and spaces": ["p", "--seed", " +7 "],
    "a flag twice: the last wins": ["p", "--seed", "-1", "--seed", "3"],
    "the smallest size": ["p", "--height", "16", "--width", "16"],
    "the least guidance": ["p", "--guidance-scale", "1"],
    "the most guidance": ["p", "--guidance-scale", "10.0"],
}


@pytest.mark.parametrize("words", WORKS.values(), ids=WORKS)
def test_odd_but_legal_requests_work(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle_path: Path, words
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt, *more = words
    line = ["generate", "-o", "a.y4m", "--bundle", str(tiny_bundle_path), "--threads", "1", *more]
    started = time.process_time()
    assert main([*line, "--", prompt]) == 0, capsys.readouterr().err
    assert time.process_time() - started < SECONDS
    assert capsys.readouterr().out == "a.y4m\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.y4m"]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp", ".png", ".y4m", ".npz"])
@pytest.mark.parametrize("fps", ["0.01", "0.7123", "29.97", "1000"])
def test_every_format_can_say_every_rate(
    capsys, tmp_path: Path, tiny_bundle_path: Path, suffix: str, fps: str
) -> None:
    pytest.importorskip({".mp4": "av", ".gif": "PIL", ".webp": "PIL"}.get(suffix, "numpy"))
    path = tmp_path / f"a{suffix}"
    line = ["generate", "p", "-o", str(path), "--fps", fps, "--num-inference-steps", "1"]
    assert main([*line, "--bundle", str(tiny_bundle_path)]) == 0, capsys.readouterr().err
    assert path.stat().st_size > 100
    if suffix == ".mp4":
        import av

        with av.open(str(path)) as container:
            assert float(container.streams.video[0].average_rate) == pytest.approx(float(fps), 1e-3)


@pytest.fixture(scope="module")
def pipe(tiny_bundle_path: Path) -> Iterator[TextToVideoPipeline]:
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path, threads=1) as pipeline:
        yield pipeline


LATENT = (1, 4, 6, 4, 4)
CALLS = {
    "no prompt": ({}, 2, "prompt.type"),
    "prompt of bytes": ({"prompt": b"a ball"}, 2, "prompt.type"),
    "prompt is a number": ({"prompt": 7}, 2, "prompt.type"),
    "prompt is a set": ({"prompt": {"a"}}, 2, "prompt.type"),
    "a list with a number": ({"prompt": ["a", 7]}, 2, "prompt.type"),
    "a list with a surrogate": ({"prompt": ["a", "\ud800"]}, 3, "prompt.encoding"),
    "a list of lists": ({"prompt": [["a"]]}, 2, "prompt.type"),
    "a list beyond the last seed": ({"prompt": ["a", "b"], "seed": 2**64 - 1}, 3, "request.seed"),
    "a list with a wrong seed": ({"prompt": ["a"], "seed": "1"}, 2, "request.type"),
    "another option": ({"prompt": "a", "steps": 4}, 2, "request.unknown_option"),
    "bool frames": ({"prompt": "a", "num_frames": True}, 2, "request.type"),
    "float width": ({"prompt": "a", "width": 32.0}, 2, "request.type"),
    "text seed": ({"prompt": "a", "seed": "7"}, 2, "request.type"),
    "float32 seed": ({"prompt": "a", "seed": np.float32(7)}, 2, "request.type"),
    "huge seed": ({"prompt": "a", "seed": 10**400}, 3, "request.seed"),
    "guidance NaN": ({"prompt": "a", "guidance_scale": np.float32("nan")}, 3, "request.not_finite"),
    "guidance beyond floats": ({"prompt": "a", "guidance_scale": 10**400}, 3, "request.not_finite"),
    "guidance of text": ({"prompt": "a", "guidance_scale": "7"}, 2, "request.type"),
    "complex guidance": ({"prompt": "a", "guidance_scale": 7j}, 2, "request.type"),
    "latents of ints": ({"prompt": "a", "latents": np.zeros(LATENT, int)}, 2, "request.type"),
    "latents as lists": ({"prompt": "a", "latents": [[0.0]]}, 2, "request.type"),
    "latents of another shape": (
        {"prompt": "a", "latents": np.zeros((1, 4, 5, 4, 4))}, 3, "request.latents"
    ),
    "latents with NaN": ({"prompt": "a", "latents": np.full(LATENT, np.nan)}, 3, "request.latents"),
    "latents beyond float32": (
        {"prompt": "a", "latents": np.full(LATENT, 1e39)}, 3, "request.latents"
    ),
    "embeddings and prompt": (
        {"prompt": "a", "prompt_embeds": np.zeros((1, 24, 8))}, 2,
        "request.prompt_embeds_and_prompt",
    ),
    "embeddings too narrow": ({"prompt_embeds": np.zeros((1, 24, 7))}, 3, "request.prompt_embeds"),
    "another output": ({"prompt": "a", "output_type": "pil"}, 2, "request.output_type"),
    "a hook that is none": ({"prompt": "a", "callback_on_step_end": 1}, 2, "request.type"),
    "a cancel that is none": ({"prompt": "a", "cancel": True}, 2, "request.type"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "exit_code", "error"), CALLS.values(), ids=CALLS)
def test_wrong_calls_leave_the_pipeline_ready(
    pipe: TextToVideoPipeline, work: Work, arguments: dict, exit_code: int, error: str
) -> None:
    with pytest.raises(HummingbirdError) as caught:
        pipe(**arguments)
    assert (caught.value.exit_code, caught.value.code) == (exit_code, error)
    assert caught.value.hint
    assert work.runs == 0
    assert pipe("a red ball", num_inference_steps=1, num_frames=1).frames.shape == (1, 32, 32, 3)
