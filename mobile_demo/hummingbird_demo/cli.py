"""``hummingbird demo``: the app in a window; with ``--measure`` this device's times, no window."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from hummingbird_demo.catalogue import LANGUAGES
from hummingbird_runtime import ResourceError, UsageError
from hummingbird_runtime.cli.parser import Parser, number_in
from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.cli.worker import run_cancellable


def main(arguments: list[str]) -> int:
    """Run the verb; see ``hummingbird demo --help``.

    Raises:
        UsageError: ``usage.arguments``, ``demo.window_size``.
        ResourceError: ``extra.missing`` without Kivy, ``demo.no_window`` without a display.
        HummingbirdError: what the measurement raises.
    """
    parsed = _parser().parse(arguments)
    bundle = None if parsed.bundle is None else Path(parsed.bundle)
    if parsed.measure is not None:
        return _measure(bundle, Path(parsed.measure), parsed.threads)
    size = _window_size(parsed.size)
    if find_spec("kivy") is None:
        raise missing_extra("hummingbird demo", "kivy", "demo")
    from hummingbird_demo.app_model import AppModel
    from hummingbird_demo.device import this_device
    from hummingbird_demo.ui.window import configure

    data = None if parsed.data is None else Path(parsed.data)
    device = this_device()
    configure(size if device.kind == "desktop" else None)
    from kivy.core.window import Window

    if Window is None:
        raise ResourceError(
            "demo.no_window",
            "got no window from Kivy, expected a display and an OpenGL driver",
            hint="SDL_VIDEODRIVER=offscreen LIBGL_ALWAYS_SOFTWARE=1 needs neither",
        )
    from hummingbird_demo.ui.app import HummingbirdApp

    model = AppModel(device, data=data, bundle=bundle)
    if parsed.language is not None:
        model.change_settings(language=parsed.language)
    HummingbirdApp(model).run()
    return 0


def _measure(bundle: Path | None, target: Path, threads: int | None) -> int:
    from hummingbird_demo.measure import measure, write_measurement
    from hummingbird_runtime.output import check_target

    check_target(target, overwrite=True)

    def report(run: int, runs: int) -> None:
        if sys.stderr.isatty():
            print(f"measuring, run {run} of {runs}", file=sys.stderr)

    found = run_cancellable(
        lambda token: measure(bundle, threads=threads, report=report, cancel=token)
    )
    print(write_measurement(found, target))
    return 0


def _window_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and 240 <= int(width) <= 8192) or not (
        240 <= int(height) <= 8192
    ):
        raise UsageError(
            "demo.window_size",
            f"--size, got {text[:40]!r}, expected WIDTHxHEIGHT of 240 to 8192 pixels each",
            hint="--size 412x915 is a phone",
        )
    return int(width), int(height)


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird demo",
        description="The phone app in a window of this desktop; needs the extra 'demo'.",
    )
    add = parser.add_argument
    add("--bundle", metavar="DIR", help="bundle folder in place of the built-in one")
    add("--data", metavar="DIR", help="where clips, models and settings are kept")
    add("--size", default="412x915", metavar="WxH", help="window, pixels (default: %(default)s)")
    add("--language", choices=LANGUAGES, help="language of the app; kept as its setting")
    add(
        "--measure",
        metavar="FILE",
        help="measure this device without a window and write JSON for `hummingbird bench devices`",
    )
    add("--threads", type=number_in(1, 1024), metavar="N", help="threads while measuring")
    return parser
