"""Save results on a disk that has less and less room left, and say what each attempt left: a JSON list.

unshare -rm python full_disk.py FOLDER STEP

FOLDER becomes a file system of its own, in memory and for this process alone. Each round is a child that replaces an
old result by a new one with STEP bytes less of room, from more than enough to none.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from simulator.result import Result
from support.sweep_folders import contents

SIZE = 1 << 20


def result(name: str, rows: int) -> Result:
    """Return a result of tables that pyarrow cannot make small."""
    drawn = np.random.default_rng(rows)
    tables = [pd.DataFrame({"value": drawn.random(rows)}) for _ in range(5)]
    return Result({"scenario": name}, *tables, scenario_text=f"name: {name}\n")


def attempt(folder: Path, room: int) -> dict[str, Any]:
    """Save a new result where an old one is, with so many bytes left on the disk; return what came of it."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    (folder / "filler").unlink(missing_ok=True)
    result("old", 2_000).save(out)
    before = contents(out)
    free = os.statvfs(folder)
    with (folder / "filler").open("wb") as filler:
        filler.write(bytes(max(0, free.f_bavail * free.f_frsize - room)))
    said = None
    try:
        result("new", 3_000).save(out)
    except OSError as error:
        said = [error.strerror, str(Path(str(error.filename)).relative_to(out))]
    after = contents(out)
    return {
        "room": room,
        "said": said,
        "unchanged": after == before,
        "loads": Result.load(out).summary["scenario"],
    }


def main(folder: str, step: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    rounds = [attempt(Path(folder), room) for room in range(SIZE // 4, -1, -int(step))]
    print(json.dumps(rounds))


if __name__ == "__main__":
    main(*sys.argv[1:])
