"""A verified bundle: the folder, its manifest and its sampler configuration.

Opening hashes every file and starts no session. A bundle is immutable: a file that changes after
it was verified is refused when it is about to be used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hummingbird_runtime.bundle_files import FileIdentity, read_small, unreadable
from hummingbird_runtime.errors import InputError, IntegrityError
from hummingbird_runtime.integrity import verify_folder
from hummingbird_runtime.manifest import SCHEDULER, Graph, Manifest
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_runtime.strict_json import MAX_BYTES, fail, parse_json


def builtin_bundle() -> Path:
    """Folder of the bundle that comes with the package: it draws simple moving shapes."""
    return Path(__file__).parent / "_bundles" / "shapes-v1"


@dataclass(frozen=True)
class Bundle:
    """What :meth:`open` returns; every file in it has been checked."""

    root: Path
    manifest: Manifest
    scheduler: SchedulerConfig
    identities: dict[str, FileIdentity]
    """Each file as it was when it was hashed."""

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None) -> Bundle:
        """Verify a bundle folder.

        Args:
            path: the folder; None is the built-in bundle.

        Raises:
            InputError, IntegrityError, ResourceError: ``bundle.*``, see docs/errors.md.
        """
        try:
            root = Path(os.path.realpath(builtin_bundle() if path is None else path))
        except ValueError as error:  # a NUL character
            raise InputError(
                "bundle.not_found",
                f"bundle {os.fspath(path or '')!r}: {error}, expected a folder",
                hint="name a folder that `hummingbird export` wrote",
            ) from error
        manifest, identities = verify_folder(root)
        scheduler = parse_json(read_small(root / SCHEDULER, MAX_BYTES + 1), what=SCHEDULER)
        if not isinstance(scheduler, dict):
            fail(SCHEDULER, "got no object, expected the sampler's settings")
        return cls(root, manifest, SchedulerConfig.from_json(scheduler), identities)

    def graph(self, role: str) -> Graph:
        """The manifest's entry of a graph.

        Raises:
            InputError: ``bundle.no_such_graph``.
        """
        if role not in self.manifest.graphs:
            raise InputError(
                "bundle.no_such_graph",
                f"bundle {self.manifest.name}: got graph {role!r}, "
                f"it has {', '.join(sorted(self.manifest.graphs))}",
                hint="use another bundle or leave the option out",
            )
        return self.manifest.graphs[role]

    def path(self, role: str) -> Path:
        """The file of a graph, its folder's files unchanged since they were verified.

        Raises:
            InputError: ``bundle.no_such_graph``.
            IntegrityError: ``bundle.changed``.
        """
        path = self.graph(role).path
        self.check_unchanged(path.rpartition("/")[0] + "/" if "/" in path else "")
        return self.root / path

    def folder(self, name: str) -> Path:
        """A folder of the bundle, such as ``tokenizer``, its files unchanged since verified.

        Raises:
            IntegrityError: ``bundle.changed``.
        """
        self.check_unchanged(name + "/")
        return self.root / name

    def check_unchanged(self, prefix: str) -> None:
        """Refuse a file that changed since it was verified.

        Args:
            prefix: of the paths that are looked at; a whole path is one file.

        Raises:
            IntegrityError: ``bundle.changed``.
            ResourceError: ``bundle.unreadable``.
        """
        for path, identity in self.identities.items():
            if path.startswith(prefix):
                try:
                    now = FileIdentity.of(os.lstat(self.root / path))
                except OSError as error:
                    raise unreadable(path, error) from error
                if now != identity:
                    raise IntegrityError(
                        "bundle.changed",
                        f"bundle file {path}: changed after it was verified",
                        hint="write new bundles to a new folder; open the bundle again",
                    )
