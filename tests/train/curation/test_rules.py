"""Rules: read from TOML, judged in order, near duplicates last; wrong ones are named."""

from __future__ import annotations

import itertools
import random
import tomllib

import pytest

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.curation import near_duplicates
from hummingbird_train.curation.near_duplicates import find_copies
from hummingbird_train.curation.rules import DuplicateRule, Rules


def rules(text: str) -> Rules:
    return Rules.from_toml(tomllib.loads(text))


@pytest.mark.parametrize(
    ("rule", "score", "reason"),
    [
        ("min = 2", 2, ""),
        ("min = 2", 1.999, "a.b < 2"),
        ("max = 0.5", 0.5, ""),
        ("max = 0.5", 0.51, "a.b > 0.5"),
        ("min = 1, max = 2", 3, "a.b > 2"),
        ("equals = true", True, ""),
        ("equals = true", False, "a.b is not True"),
        ("equals = 0", 0, ""),
        ('one_of = ["x", "y"]', "y", ""),
        ('one_of = ["x", "y"]', "z", "a.b is none of 'x', 'y'"),
        ("min = 0", True, ""),
    ],
)
def test_a_rule_keeps_or_says_why(rule: str, score: object, reason: str) -> None:
    assert rules(f'"a.b" = {{ {rule} }}').keep({"a.b": score}) == (not reason, reason)


@pytest.mark.parametrize(
    ("policy", "kept"), [("", False), ('missing = "drop"', False), ('missing = "keep"', True)]
)
def test_a_missing_score_follows_the_policy(policy: str, kept: bool) -> None:
    reason = "" if kept else "a.b missing"
    assert rules(f'{policy}\n"a.b" = {{ min = 1 }}').keep({}) == (kept, reason)
    own = policy or 'missing = "drop"'
    assert rules(f'missing = "error"\n"a.b" = {{ min = 1, {own} }}').keep({}) == (kept, reason)


def test_a_missing_score_may_be_an_error() -> None:
    with pytest.raises(InputError) as caught:
        rules('"a.b" = { min = 1, missing = "error" }').keep({"a.c": 1})
    assert caught.value.code == "rules.score_missing"


def test_a_bound_on_a_text_is_an_error() -> None:
    with pytest.raises(InputError) as caught:
        rules('"a.b" = { min = 1 }').keep({"a.b": "h264"})
    assert caught.value.code == "rules.score_type"


def test_the_first_broken_rule_of_the_file_is_the_reason() -> None:
    both = rules('"z.z" = { min = 1 }\n"a.a" = { min = 1 }')
    assert both.keep({"a.a": 0, "z.z": 0}) == (False, "z.z < 1")


def test_dots_need_no_quotes() -> None:
    quoted = rules('"a.b" = { min = 1 }\n"a.c" = { max = 2 }\n"d.e" = { equals = 1 }')
    assert rules("a.b.min = 1\na.c.max = 2\nd = { e = { equals = 1 } }") == quoted


@pytest.mark.parametrize(
    "text",
    [
        '"a.b" = 3',
        '"a.b" = {}',
        '"a.b" = { missing = "keep" }',
        '"a.b" = { minimum = 3 }',
        '"a.b" = { min = "3" }',
        '"a.b" = { min = true }',
        '"a.b" = { min = nan }',
        '"a.b" = { min = 3, max = 2 }',
        '"a.b" = { one_of = [] }',
        '"a.b" = { one_of = "x" }',
        '"a.b" = { one_of = [[1]] }',
        '"a.b" = { equals = [1] }',
        '"a.b" = { min = 1, missing = "ignore" }',
        'missing = "ignore"',
        "sharpness = { min = 3 }",
        '".b" = { min = 3 }',
        "duplicates = true",
        "duplicates = {}",
        'duplicates = { of = "fingerprint" }',
        'duplicates = { of = "a.b", distance = -1 }',
        'duplicates = { of = "a.b", distance = 1.5 }',
        'duplicates = { of = "a.b", near = 3 }',
        'duplicates = { of = "a.b", best = 3 }',
    ],
)
def test_a_wrong_rule_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        rules(text)
    assert caught.value.code == "rules.invalid"
    assert "rule " in caught.value.message


def test_rules_name_every_score_they_read() -> None:
    text = 'duplicates = { of = "f.h", best = "q.s" }\n"a.b" = { min = 1 }'
    assert rules(text).named_scores() == ["a.b", "f.h", "q.s"]
    assert rules("").named_scores() == []


def flipped(value: int, bits: int, rng: random.Random, width: int = 64) -> int:
    for place in rng.sample(range(width), bits):
        value ^= 1 << place
    return value


def prints(values: dict[str, int], **more: dict[str, float]) -> dict:
    return {
        clip: {"f.h": f"{value:016x}", **{f"q.{k}": v[clip] for k, v in more.items()}}
        for clip, value in values.items()
    }


@pytest.mark.parametrize("many", [0, 10**9], ids=["wide bands", "narrow bands"])
@pytest.mark.parametrize("distance", [0, 1, 3, 6, 12, 24, 30, 64, 100])
def test_copies_are_those_of_the_definition(
    distance: int, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_MANY", many)
    rng = random.Random(distance)
    values = {}
    for family in range(40):
        base = rng.getrandbits(64)
        for child in range(4):
            values[f"{family:02}{child}"] = flipped(base, rng.randint(0, 8), rng)
    kept: list[str] = []
    expected = set()
    for clip in sorted(values):
        near = [k for k in kept if (values[k] ^ values[clip]).bit_count() <= distance]
        if near:
            expected.add(clip)
        else:
            kept.append(clip)
    rule = DuplicateRule("f.h", distance)
    found = find_copies(rule, prints(values))
    assert found.keys() == expected
    assert len(expected) > 1
    for clip, twin in found.items():
        assert twin in kept
        assert (values[clip] ^ values[twin]).bit_count() <= distance


def test_the_best_copy_stays_whatever_the_order() -> None:
    values, quality = {"a": 5, "b": 5, "c": 4, "d": 900}, {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0}
    rule = DuplicateRule("f.h", 1, "q.s")
    table = prints(values, s=quality)
    for order in itertools.permutations(table):
        assert find_copies(rule, {k: table[k] for k in order}) == {"a": "b", "c": "b"}
    assert find_copies(DuplicateRule("f.h", 1), table) == {"b": "a", "c": "a"}


def test_no_chain_of_small_steps_drops_a_different_clip() -> None:
    chain = {str(i): (1 << i) - 1 for i in range(9)}  # neighbours differ in one bit
    found = find_copies(DuplicateRule("f.h", 1), prints(chain))
    assert all((chain[a] ^ chain[b]).bit_count() == 1 for a, b in found.items())
    assert found.keys() == {"1", "3", "5", "7"}


def test_clips_without_a_fingerprint_are_no_copies() -> None:
    table = {"a": {"f.h": "00"}, "b": {}, "c": {"f.h": "00"}, "d": {"x.y": 1}}
    assert find_copies(DuplicateRule("f.h"), table) == {"c": "a"}
    assert find_copies(DuplicateRule("f.h"), {}) == {}


@pytest.mark.parametrize("bad", ["xyz", 3, "", "000"])
def test_what_is_no_fingerprint_is_an_error(bad: object) -> None:
    with pytest.raises(InputError) as caught:
        find_copies(DuplicateRule("f.h"), {"a": {"f.h": "00"}, "b": {"f.h": bad}})
    assert caught.value.code == "rules.fingerprint"
