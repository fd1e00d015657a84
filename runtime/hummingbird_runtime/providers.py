"""The provider arguments of ``from_pretrained`` (optimum's names) as one ``SessionOptions``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hummingbird_runtime.arguments import whole_number, wrong_type
from hummingbird_runtime.auto_providers import AUTO
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.session import CPU, SessionOptions
from hummingbird_runtime.session_settings import SessionSettings


def session_options_from(
    *,
    provider: str | None = None,
    providers: Sequence[str] | None = None,
    provider_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, str] | None = None,
    session_settings: SessionSettings | None = None,
    threads: int | None = None,
) -> SessionOptions:
    """Collect how graphs are opened.

    Args:
        provider: one execution provider.
        providers: several, in order of preference, or ``auto``; excludes ``provider``.
        provider_options: options by provider name, or of ``provider`` alone.
        session_options: extra session configuration entries.
        session_settings: memory and optimization settings that win over the bundle's.
        threads: threads of one run.

    Raises:
        UsageError: ``provider.ambiguous`` when both kinds are given, ``provider.options`` for
            options of a provider that is not asked for, ``request.type``, ``session.threads``.
    """
    if provider is not None and providers is not None:
        raise UsageError(
            "provider.ambiguous",
            "got provider and providers, expected one of them",
            hint="list every provider, in order of preference, in providers",
        )
    names: tuple[str, ...] = (CPU,) if provider is None else (provider,)
    if providers is not None:
        if isinstance(providers, str) and providers != AUTO:
            raise wrong_type("providers", providers, f"a list of str, or {AUTO!r}")
        names = (AUTO,) if isinstance(providers, str) else tuple(providers)
    for name in names:
        if not isinstance(name, str):
            raise wrong_type("provider", name, "a str")
    options = dict(provider_options or {})
    if provider is not None and not all(isinstance(v, Mapping) for v in options.values()):
        options = {provider: options}
    strangers = sorted(options.keys() - set(names))
    if strangers and names != (AUTO,):
        raise UsageError(
            "provider.options",
            f"provider_options, got options of {', '.join(strangers)}, "
            f"expected options of {', '.join(names)}",
            hint="key the options by the names of the providers",
        )
    if options.get(CPU):
        raise UsageError(
            "provider.options",
            f"provider_options, got {', '.join(options[CPU])} of {CPU}, expected none",
            hint="the CPU takes threads, session_options and session_settings",
        )
    if session_settings is not None and not isinstance(session_settings, SessionSettings):
        raise wrong_type("session_settings", session_settings, "SessionSettings")
    return SessionOptions(
        providers=names,
        provider_options={
            name: {str(key): str(value) for key, value in entries.items()}
            for name, entries in options.items()
        },
        threads=None if threads is None else whole_number("threads", threads),
        config={str(key): str(value) for key, value in (session_options or {}).items()},
        settings=session_settings or SessionSettings(),
    )
