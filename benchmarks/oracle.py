"""SimGrid, the other side of the comparison: builds `simgrid_driver.cpp` where it is installed, and runs it."""

import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from cases import FloatArray, Flows
from known import known_cases

HOW_TO_INSTALL: Final = (
    "SimGrid is missing: `apt-get install libsimgrid-dev g++` (Debian 12 has SimGrid 3.32)"
)
_SOURCE: Final = Path(__file__).with_name("simgrid_driver.cpp")
_DRIVER: Final = Path(__file__).with_name("build") / "simgrid_driver"
_FLAGS: Final = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
_BUILD_LIMIT_S: Final = 600  # for what the driver does before its simulation begins
_KNOWN_ERROR: Final = 1e-12  # of answers found by hand: some roundings


@dataclass(frozen=True, slots=True)
class SimGridRun:
    """How long SimGrid simulated, and when each flow ended: finish_s [num_flows] seconds."""

    wall_s: float
    finish_s: FloatArray


def build_driver() -> Path | None:
    """Return the driver, compiled if it is older than its source; None where SimGrid or g++ is missing.

    Raises RuntimeError, with what the compiler says, if it does not compile, or if it errs on a known case.
    """
    compiler = shutil.which("g++")
    if compiler is None or not _has_simgrid(compiler):
        return None
    if not _DRIVER.exists() or _DRIVER.stat().st_mtime < _SOURCE.stat().st_mtime:
        _DRIVER.parent.mkdir(exist_ok=True)
        command = [compiler, *_FLAGS, str(_SOURCE), "-lsimgrid", "-o", str(_DRIVER)]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            msg = f"{_SOURCE.name} does not compile:\n{compiled.stderr}"
            raise RuntimeError(msg)
    _check_known(_DRIVER)
    return _DRIVER


def run_simgrid(driver: Path, flows: Flows, limit_s: int) -> SimGridRun | None:
    """Return what SimGrid makes of the flows, or None if it has simulated for limit_s and is not done."""
    with tempfile.TemporaryDirectory() as folder:
        case, result = Path(folder, "case"), Path(folder, "result")
        _write_case(case, flows)
        ended = subprocess.run(
            [str(driver), str(case), str(result), str(limit_s)],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s + _BUILD_LIMIT_S,
        )
        if ended.returncode == -signal.SIGALRM:
            return None
        if ended.returncode:
            msg = f"SimGrid failed:\n{ended.stderr[-2000:]}"
            raise RuntimeError(msg)
        numbers = np.fromfile(result)
    if len(numbers) != 1 + len(flows) or not np.isfinite(numbers).all():
        msg = "SimGrid left flows that have not ended"
        raise RuntimeError(msg)
    return SimGridRun(float(numbers[0]), numbers[1:])


def _has_simgrid(compiler: str) -> bool:
    """Return whether the compiler finds SimGrid's headers."""
    command = [compiler, "-E", "-x", "c++", "-include", "simgrid/s4u.hpp", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _write_case(path: Path, flows: Flows) -> None:
    """Write the flows as the driver reads them."""
    counts = [len(flows.capacity_bytes_per_s), len(flows), len(flows.path_links)]
    with path.open("wb") as file:
        for column, kind in (
            (counts, np.int64),
            (flows.capacity_bytes_per_s, np.float64),
            (flows.path_offsets, np.int64),
            (flows.path_links, np.int64),
            (flows.size_bytes, np.float64),
            (flows.start_s, np.float64),
        ):
            file.write(np.asarray(column, kind).tobytes())


def _check_known(driver: Path) -> None:
    """Raise RuntimeError unless the driver gets the cases right that can be solved by hand."""
    for known in known_cases():
        run = run_simgrid(driver, known.flows, 10)
        if run is None or not np.allclose(run.finish_s, known.finish_s, rtol=_KNOWN_ERROR, atol=0.0):
            got = "does not end" if run is None else f"ends at {run.finish_s} s"
            msg = f"SimGrid errs on {known.name!r}: it {got}, and should at {known.finish_s} s"
            raise RuntimeError(msg)
