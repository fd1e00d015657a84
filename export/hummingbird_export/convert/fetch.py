"""``hummingbird fetch``: files of a Hugging Face repository at a pinned revision.

A thin wrapper over huggingface_hub, which is optional. Downloads go through its cache, so that an
interrupted one goes on; the output folder appears whole or not at all.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from hummingbird_export.convert.provenance import FETCH_RECORD, NOTICE, sha256_of
from hummingbird_runtime.atomic import atomic_folder
from hummingbird_runtime.cli.parser import Parser
from hummingbird_runtime.errors import IntegrityError, ResourceError, UsageError


def main(arguments: list[str]) -> int:
    """Fetch; see ``hummingbird fetch --help``."""
    parser = Parser(
        prog="hummingbird fetch",
        description="Download files of a Hugging Face repository at a pinned revision.",
    )
    add = parser.add_argument
    add("repo", metavar="REPO", help="owner/name")
    add("--revision", required=True, metavar="SHA", help="commit, 40 hex digits")
    add(
        "--file",
        action="append",
        metavar="NAME",
        help="a file in it; may be given again; default: all",
    )
    add("--sha256", metavar="HEX", help="what the one file must have")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--force", action="store_true", help="replace an older folder that fetch made")
    parsed = parser.parse(arguments)
    out = fetch(
        parsed.output,
        parsed.repo,
        revision=parsed.revision,
        names=parsed.file or [],
        sha256=parsed.sha256,
        overwrite=parsed.force,
    )
    print(NOTICE, file=sys.stderr)
    record = json.loads((out / FETCH_RECORD).read_bytes())
    for name, entry in record["files"].items():
        print(f"{entry['sha256']}  {out / name}")
    return 0


def fetch(
    out: Path,
    repo: str,
    *,
    revision: str,
    names: list[str],
    sha256: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Download files into a new folder, with a record of their hashes.

    Args:
        out: the folder to make; its parent exists.
        repo: owner and name of a repository.
        revision: a whole commit hash; a branch could hold other weights tomorrow.
        names: files in it; none takes all of them.
        sha256: what the one file must have.
        overwrite: replace an older folder that ``fetch`` made.

    Returns:
        The folder.

    Raises:
        UsageError: ``fetch.revision``, ``fetch.file``, ``fetch.checksum``, ``output.exists``,
            ``output.not_a_checkpoint``.
        IntegrityError: ``fetch.hash_mismatch``.
        ResourceError: ``fetch.failed``, ``output.*``.
    """
    _check_request(out, revision, names, sha256, overwrite)
    hub: Any = importlib.import_module("huggingface_hub")  # absence: one line by the verb table
    try:
        wanted = names or hub.HfApi().list_repo_files(repo, revision=revision)
        cached = {
            name: Path(hub.hf_hub_download(repo, _checked_name(name), revision=revision))
            for name in wanted
        }
    except UsageError:
        raise
    except Exception as error:  # its tree of errors changes from release to release
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ResourceError(
            "fetch.failed",
            f"repository {repo} at {revision}: got {type(error).__name__}: {first[:200]}, expected "
            f"{', '.join(names) or 'its files'}",
            hint="check name, revision and network; a gated repository needs `hf auth login`",
        ) from error
    with atomic_folder(out, overwrite=overwrite) as folder:
        files = {name: _place(path, folder / name) for name, path in cached.items()}
        (got,) = {entry["sha256"] for entry in files.values()} if sha256 else {None}
        if sha256 is not None and got != sha256.lower():
            raise IntegrityError(
                "fetch.hash_mismatch",
                f"file {names[0]} of {repo}: got SHA-256 {got}, expected {sha256.lower()}",
                hint="do not use it; check revision and hash with the publisher",
            )
        record = {"repo": repo, "revision": revision, "files": files}
        with (folder / FETCH_RECORD).open("wb") as file:
            file.write(json.dumps(record, indent=1).encode("utf-8") + b"\n")
    return out


def _check_request(
    out: Path, revision: str, names: list[str], sha256: str | None, overwrite: bool
) -> None:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise UsageError(
            "fetch.revision",
            f"revision, got {revision[:60]!r}, expected a commit of 40 hex digits",
            hint="a branch or tag can move; copy the commit from the repository's page",
        )
    for name in names:
        _checked_name(name)
    if sha256 is not None and (len(names) != 1 or not re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        raise UsageError(
            "fetch.checksum",
            f"--sha256, got {sha256[:80]!r} for {len(names)} files, expected 64 hex digits and one "
            "--file",
            hint="fetch files one by one to check them",
        )
    if overwrite and out.is_dir() and any(out.iterdir()) and not (out / FETCH_RECORD).is_file():
        raise UsageError(
            "output.not_a_checkpoint",
            f"output {out}: got a folder without {FETCH_RECORD}, expected one that fetch made",
            hint="choose another folder; --force would delete everything in this one",
        )


def _checked_name(name: str) -> str:
    path = PurePosixPath(name)
    plain = bool(name) and "\\" not in name and ":" not in name and name.isprintable()
    if not plain or path.is_absolute() or ".." in path.parts or name == FETCH_RECORD:
        raise UsageError(
            "fetch.file",
            f"file {name[:80]!r}, got a name that is taken or leads elsewhere, expected a path "
            "in the repository",
            hint="name it as the repository's page does",
        )
    return name


def _place(cached: Path, target: Path) -> dict[str, Any]:
    """Link a cached file into the folder, or copy it where links do not reach; its hash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    real = cached.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
    return {"sha256": sha256_of(target), "bytes": target.stat().st_size}
