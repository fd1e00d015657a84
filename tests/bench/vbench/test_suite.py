"""The suite: prompts, names, seeds, and going on after a stop."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from hummingbird_bench.vbench.suite import (
    SuiteConfig,
    SuitePrompt,
    plan_suite,
    read_prompts,
    sample_suite,
    side_file,
    standard_prompts,
)
from hummingbird_runtime.errors import InputError, UsageError

FACTS = {"bundle_id": "b", "seed": 0, "num_inference_steps": None}


class _Clip:
    def __init__(self, prompt: str, seed: int) -> None:
        self.content = f"{prompt} {seed}".encode()

    def save(self, path: Path, *, overwrite: bool = True) -> None:
        path.write_bytes(self.content)


def test_the_suite_has_the_946_prompts_and_the_counts_of_every_dimension() -> None:
    prompts = standard_prompts()
    counts = Counter(name for prompt in prompts for name in prompt.dimensions)
    assert len(prompts) == 946
    assert counts == {
        "human_action": 100, "temporal_style": 100, "overall_consistency": 93,
        "aesthetic_quality": 93, "imaging_quality": 93, "appearance_style": 90, "scene": 86,
        "background_consistency": 86, "color": 85, "spatial_relationship": 84,
        "multiple_objects": 82, "object_class": 79, "temporal_flickering": 75,
        "subject_consistency": 72, "dynamic_degree": 72, "motion_smoothness": 72,
    }  # fmt: skip
    assert "a toilet, frozen in time" in {prompt.text for prompt in prompts}


def test_names_are_exact_and_flickering_gets_25() -> None:
    clips = plan_suite(standard_prompts())
    names = Counter(clip.prompt for clip in clips)
    assert names["In a still frame, a stop sign"] == 25
    assert names["a person swimming in ocean"] == 5
    assert clips[0].name == "In a still frame, a stop sign-0.mp4"
    assert len(clips) == len({clip.name for clip in clips}) == 75 * 25 + (944 - 75) * 5
    assert max(len(clip.name.encode()) for clip in clips) <= 255


def test_dimensions_choose_prompts_and_flickering_alone_asks_for_more_samples() -> None:
    color = plan_suite(standard_prompts(), SuiteConfig(dimensions=("color",)))
    assert len(color) == 85 * 5
    flicker = plan_suite(standard_prompts(), SuiteConfig(dimensions=("temporal_flickering",)))
    assert len(flicker) == 75 * 25


def test_seeds_depend_on_suite_seed_prompt_and_index_only() -> None:
    whole = {clip.name: clip.seed for clip in plan_suite(standard_prompts())}
    part = plan_suite(standard_prompts(), SuiteConfig(dimensions=("color",)))
    assert all(whole[clip.name] == clip.seed for clip in part)
    assert len(set(whole.values())) == len(whole)
    other = plan_suite(standard_prompts(), SuiteConfig(dimensions=("color",), seed=1))
    assert all(a.seed != b.seed for a, b in zip(part, other, strict=True))


def test_a_prompt_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(InputError, match="slashes"):
        plan_suite([SuitePrompt("either/or")])
    with pytest.raises(InputError, match="255"):
        plan_suite([SuitePrompt("é" * 126)])  # 252 bytes and six more
    with pytest.raises(UsageError, match="dimension 'colour'"):
        plan_suite(standard_prompts(), SuiteConfig(dimensions=("colour",)))
    with pytest.raises(UsageError, match="no prompt"):
        plan_suite([SuitePrompt("a cat")], SuiteConfig(dimensions=("color",)))


def test_prompts_come_from_text_or_from_the_json_of_the_package(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("\ufeffa red ball\n\n  a blue ring \n", encoding="utf-8")
    assert [p.text for p in read_prompts(text)] == ["a red ball", "a blue ring"]
    table = tmp_path / "full.json"
    table.write_text(json.dumps([{"prompt_en": "a cat", "dimension": ["color"]}]))
    assert read_prompts(table) == (SuitePrompt("a cat", ("color",)),)
    table.write_text('[{"prompt": "a cat"}]')
    with pytest.raises(InputError, match="KeyError"):
        read_prompts(table)
    text.write_text("\n")
    with pytest.raises(InputError, match="got none"):
        read_prompts(text)


def test_drawing_goes_on_where_it_stopped_and_draws_nothing_twice(tmp_path: Path) -> None:
    clips = plan_suite([SuitePrompt("a cat"), SuitePrompt("a dog, wet")], SuiteConfig(samples=3))
    folder = tmp_path / "clips"
    drawn: list[str] = []

    def draw(prompt: str, seed: int) -> _Clip:
        if len(drawn) == 4:
            raise KeyboardInterrupt
        drawn.append(f"{prompt} {seed}")
        return _Clip(prompt, seed)

    with pytest.raises(KeyboardInterrupt):
        list(sample_suite(draw, folder, clips, FACTS))
    log = side_file(folder)
    with log.open("ab") as stream:
        stream.write(b'{"name": "torn')  # a kill in the middle of a line
    (folder / ".hummingbird-0.partial.mp4").touch()
    (folder / clips[1].name).unlink()
    drawn.clear()
    fresh = [clip.name for clip, new in sample_suite(draw, folder, clips, FACTS) if new]
    assert fresh == [clips[1].name, clips[4].name, clips[5].name]
    assert sorted(p.name for p in folder.iterdir()) == sorted(clip.name for clip in clips)
    assert (folder / "a dog, wet-2.mp4").read_bytes() == f"a dog, wet {clips[5].seed}".encode()
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert rows[0] == FACTS
    assert [row["seed"] for row in rows[1:]] == [clip.seed for clip in clips]
    assert len({row["name"] for row in rows[1:]}) == 6


def test_a_folder_begun_with_other_options_or_with_foreign_files_is_refused(
    tmp_path: Path,
) -> None:
    clips = plan_suite([SuitePrompt("a cat")], SuiteConfig(samples=1))
    folder = tmp_path / "clips"
    list(sample_suite(_Clip, folder, clips, FACTS))
    with pytest.raises(UsageError, match="other num_inference_steps"):
        list(sample_suite(_Clip, folder, clips, FACTS | {"num_inference_steps": 4}))
    (folder / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"notes\.txt"):
        list(sample_suite(_Clip, folder, clips, FACTS))
    side_file(folder).write_text("[1, 2\n")
    (folder / "notes.txt").unlink()
    with pytest.raises(InputError, match="JSON lines"):
        list(sample_suite(_Clip, folder, clips, FACTS))


def test_the_verb_draws_with_the_bundle_and_writes_seeds_beside_the_folder(
    tmp_path: Path, tiny_bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    from hummingbird_bench.vbench.sample_verb import main

    prompts = tmp_path / "p.txt"
    prompts.write_text("a red ball\n")
    words = ["--suite", "vbench", "-o", str(tmp_path / "out"), "--samples", "2", "--prompts",
             str(prompts), "--bundle", str(tiny_bundle_path), "--threads", "1"]  # fmt: skip
    assert main(words) == 0
    assert main(words) == 0
    talk = capsys.readouterr()
    assert "2 clips, 2 drawn now" in talk.err
    assert "2 clips, 0 drawn now" in talk.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a red ball-0.mp4", "a red ball-1.mp4",
    ]  # fmt: skip
    assert (tmp_path / "out.seeds.jsonl").is_file()
