"""The provider arguments of from_pretrained, in every accepted form."""

from __future__ import annotations

import pytest

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.providers import session_options_from
from hummingbird_runtime.session import CPU, SessionOptions


def test_nothing_given_is_the_cpu() -> None:
    assert session_options_from() == SessionOptions()
    assert session_options_from().providers == (CPU,)


def test_options_may_be_given_flat_for_one_provider_or_by_name() -> None:
    flat = session_options_from(provider="X", provider_options={"device_id": 1})
    named = session_options_from(provider="X", provider_options={"X": {"device_id": "1"}})
    assert flat == named
    assert flat.provider_options == {"X": {"device_id": "1"}}


def test_several_providers_keep_their_order() -> None:
    options = session_options_from(
        providers=["B", "A"], session_options={"session.intra_op.allow_spinning": 0}, threads=2
    )
    assert options.providers == ("B", "A")
    assert options.threads == 2
    assert options.config == {"session.intra_op.allow_spinning": "0"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"provider": "A", "providers": ["B"]}, "provider.ambiguous"),
        ({"providers": []}, "provider.none"),
        ({"providers": "CPUExecutionProvider"}, "request.type"),
        ({"providers": [1]}, "request.type"),
        ({"provider": 1}, "request.type"),
        ({"providers": ["A"], "provider_options": {"B": {}}}, "provider.options"),
        ({"providers": [CPU], "provider_options": {CPU: {"arena": 1}}}, "provider.options"),
        ({"session_settings": {"memory_reuse": False}}, "request.type"),
        ({"threads": 0}, "session.threads"),
        ({"threads": 100_000}, "session.threads"),
        ({"threads": True}, "request.type"),
        ({"threads": "2"}, "request.type"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        session_options_from(**arguments)
    assert caught.value.code == code
