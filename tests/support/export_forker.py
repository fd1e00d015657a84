"""A process that has everything loaded and forks a copy of itself for every export to kill."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import quick_export
from disk_calls import watched
scratch, tokenizer = Path(sys.argv[2]), Path(sys.argv[3])
def export(folder, name):
    quick_export.export(folder / "bundle", tokenizer, target="cpu", precision="fp32", name=name,
                        overwrite=True)
export(scratch, "old")  # import and trace everything once, before the first fork
def act_at(number):
    def act(n, name):
        if n == number:
            os.kill(os.getpid(), signal.SIGKILL)
    return act
print("ready", flush=True)
for line in sys.stdin:
    folder, number = line.rstrip("\\n").split("\\t")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if number == "endless":
            print(os.getpid(), flush=True)
            for i in range(1_000_000):
                export(Path(folder), ("new", "newer")[i % 2])
        with watched(Path(folder), act_at(int(number))) as calls:
            export(Path(folder), "new")
        os.write(writer, str(len(calls)).encode())
        os._exit(0)
    os.close(writer)
    status = os.waitpid(child, 0)[1]
    told = os.read(reader, 100).decode()
    os.close(reader)
    print("end", os.waitstatus_to_exitcode(status), told, flush=True)
"""


class ExportForker:
    """The child process.

    Args:
        folder: for its own first bundle.
        tokenizer: folder with the tokenizer's files.
    """

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        support = Path(__file__).parent
        self.old = folder / "bundle"
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, support, folder, tokenizer],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, **single},
        )  # fmt: skip
        assert self._line() == "ready"

    def steps(self, folder: Path) -> int:
        """Replace ``folder/bundle`` and count the watched calls."""
        self._ask(folder, "0")
        end, status, count = self._line().split()
        assert (end, status) == ("end", "0")
        return int(count)

    def killed_at_step(self, folder: Path, number: int) -> bool:
        """Replace ``folder/bundle`` and die right before a watched call; False past the last."""
        self._ask(folder, str(number))
        return self._line().split()[1] == str(-signal.SIGKILL.value)

    def killed_after(self, folder: Path, seconds: float) -> None:
        """Replace ``folder/bundle`` again and again until the kill."""
        self._ask(folder, "endless")
        child = int(self._line())
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert self._line().split()[1] == str(-signal.SIGKILL.value)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def _ask(self, folder: Path, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\t{what}\n")

    def _line(self, seconds: float = 600) -> str:
        output = self._process.stdout
        assert output is not None
        assert select.select([output], [], [], seconds)[0], "the child does not answer"
        return output.readline().strip()
