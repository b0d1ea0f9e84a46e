"""`railplane calibrate`: measure a GPU, or read what was measured, and write the cost table that it makes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from simulator.calibration.gpu.build import BuildFailed, MissingTool
from simulator.calibration.gpu.cuda_library import CudaError
from simulator.calibration.gpu.measure import measure
from simulator.calibration.gpu.samples import Device, Measurement, SamplesError
from simulator.calibration.gpu.samples_reader import read_samples
from simulator.calibration.gpu.timing import TimingError
from simulator.calibration.known_gpus import peaks_of
from simulator.calibration.measured_table import comparison, table_of
from simulator.calibration.table_file import write_table
from simulator.costs import load_cost_table
from simulator.input_error import InputError, clipped

COMPARED_WITH: Final = "h800-published"
COMMAND: Final = "railplane calibrate"
_MOST_CHARACTERS: Final = 1200


class CalibrationFailed(RuntimeError):  # noqa: N818
    """The compiler or the device failed, through no fault of the input: which, on one line."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration found: the measurement, and the table's constants beside `h800-published`'s as Markdown.

    notes: what of the measurement is not in the table as one may think
    """

    measurement: Measurement
    compared: str
    notes: tuple[str, ...]

    @property
    def wrong(self) -> tuple[str, ...]:
        """Return the kernels that failed their verification, each once."""
        return tuple(dict.fromkeys(one.kernel for one in self.measurement.verified if not one.passed))


def calibrate(
    out: Path,
    *,
    device: int = 0,
    samples: Path | None = None,
    quick: bool = False,
    with_gemm: bool = True,
    say: Callable[[str], None] = print,
) -> Calibrated:
    """Return what a GPU's kernels come to, and write the cost table that they make.

    out: the table's file, whose stem names the table; the samples and the log of a measurement go beside it, into a
    folder with that stem and `_samples`
    device: number of the GPU that is measured; samples: of an earlier measurement, in place of measuring
    quick, with_gemm: as of `simulator.calibration.gpu.measure.measure`

    Raises InputError where the machine lacks something, the samples are broken or make no table; CalibrationFailed
    where nvcc refuses the kernels or the device fails.
    """
    folder = out.with_name(f"{out.stem}_samples")
    _check_out(out, samples, folder)
    if find_spec("scipy") is None:
        message = "the fit needs scipy, which is missing; install it, or railplane with its extra `calibrate`"
        raise InputError(COMMAND, None, None, message)
    if samples is None:
        with _measuring(folder):
            measurement = measure(
                folder, device=device, quick=quick, with_gemm=with_gemm, check=_check_gpu, say=say
            )
    else:
        measurement = _read(samples)
    try:
        table, notes = table_of(measurement, out.stem)
    except ValueError as error:
        raise InputError(str(samples or folder), None, None, str(error)) from error
    with _writing(out):
        write_table(table, out)
    for note in notes:
        say(note)
    return Calibrated(measurement, comparison(table, load_cost_table(COMPARED_WITH, Path())), notes)


def _check_out(out: Path, samples: Path | None, folder: Path) -> None:
    """Raise InputError unless the table, and the folder of a measurement, can be written; leave nothing there."""
    if out.suffix != ".json":
        raise InputError(str(out), None, None, "a cost table is a .json file; give the file such an ending")
    with _writing(out):
        if not out.parent.is_dir():
            raise InputError(str(out), None, None, f"there is no folder {str(out.parent)!r} to write it into")
        _check_file(out, samples, folder)
        was_there = out.exists()
        out.open("a").close()
        if not was_there:
            out.unlink()


def _check_file(out: Path, samples: Path | None, folder: Path) -> None:
    """Raise InputError where the table would replace what is none, or a measurement has no room beside it."""
    if out.exists() and not out.is_file():
        raise InputError(str(out), None, None, "is no file; --out names the file of the table")
    if samples is not None and out.exists() and samples.exists() and out.samefile(samples):
        raise InputError(str(out), None, None, "--out names the file of --samples, which it would overwrite")
    if samples is None and folder.exists() and not folder.is_dir():
        message = "is a file, where the folder of the measurement goes; move it, or name another --out"
        raise InputError(str(folder), None, None, message)


def _check_gpu(device: Device) -> None:
    """Raise InputError, before anything is measured, where a table cannot be made of the GPU."""
    try:
        peaks_of(device)
    except ValueError as error:
        raise InputError(COMMAND, None, None, str(error)) from error


def _read(samples: Path) -> Measurement:
    try:
        return read_samples(samples)
    except SamplesError as error:
        message = str(error).removeprefix(f"{samples}: ")
        raise InputError(str(samples), None, None, message) from error


@contextmanager
def _measuring(folder: Path) -> Iterator[None]:
    """Turn what goes wrong in a measurement into an error of one line; the log in `folder` has all of it."""
    try:
        yield
    except MissingTool as error:
        raise InputError(COMMAND, None, None, str(error)) from error
    except (BuildFailed, CudaError, TimingError) as error:
        message = f"{clipped(str(error), _MOST_CHARACTERS)} (in full in {folder / 'log.txt'})"
        raise CalibrationFailed(message) from error
    except OSError as error:
        raise InputError(
            str(error.filename or folder), None, None, f"cannot write there: {error.strerror}"
        ) from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong when the table is written into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(str(path), None, None, f"cannot write there: {error.strerror}") from error
