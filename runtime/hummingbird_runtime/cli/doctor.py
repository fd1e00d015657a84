"""``hummingbird doctor``: check this machine and say what to fix."""

from __future__ import annotations

import dataclasses
import json

from hummingbird_runtime.cli.native_output import native_output_on_stderr
from hummingbird_runtime.cli.parser import Parser
from hummingbird_runtime.doctor import examine
from hummingbird_runtime.errors import ResourceError


def main(arguments: list[str]) -> int:
    """Print every finding; see ``hummingbird doctor --help``.

    Raises:
        ResourceError: ``doctor.problems`` when something keeps the runtime from working.
    """
    parser = Parser(prog="hummingbird doctor", description="Check this machine, say what to fix.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parsed = parser.parse(arguments)
    with native_output_on_stderr():
        findings = examine()
    if parsed.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status:8}{finding.name:18}{finding.found}")
            if finding.fix:
                print(f"{'':8}{'':18}fix: {finding.fix}")
    problems = [finding.name for finding in findings if finding.status == "problem"]
    if problems:
        raise ResourceError(
            "doctor.problems",
            f"got {len(problems)} problems ({', '.join(problems)}), expected none",
            hint="do the fixes listed on stdout",
        )
    return 0
