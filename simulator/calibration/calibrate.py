"""`railplane calibrate`: measure a GPU, or read what was measured, and write the cost table that it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from simulator.calibration.gpu.build import BuildFailed, MissingTool
from simulator.calibration.gpu.library import CudaError
from simulator.calibration.gpu.measure import measure
from simulator.calibration.gpu.samples import Measurement, SamplesError, read_samples
from simulator.calibration.gpu.timing import TimingError
from simulator.calibration.measured_table import comparison, table_of
from simulator.calibration.table_file import write_table
from simulator.costs import load_cost_table
from simulator.input_error import InputError

COMPARED_WITH: Final = "h800-published"


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration found: the measurement, and the table's constants beside `h800-published`'s as Markdown."""

    measurement: Measurement
    compared: str

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

    Raises InputError where the machine lacks something, the samples are broken or make no table.
    """
    if out.suffix != ".json":
        raise InputError(str(out), None, None, "a cost table is a .json file; give the file such an ending")
    if not out.parent.is_dir():
        raise InputError(str(out), None, None, f"there is no folder {str(out.parent)!r} to write it into")
    if find_spec("scipy") is None:
        message = "the fit needs scipy, which is missing; install it, or railplane with its extra `calibrate`"
        raise InputError("railplane calibrate", None, None, message)
    folder = out.with_name(f"{out.stem}_samples")
    try:
        if samples is None:
            measurement = measure(folder, device=device, quick=quick, with_gemm=with_gemm, say=say)
        else:
            measurement = read_samples(samples)
    except (MissingTool, BuildFailed, CudaError, TimingError) as error:
        raise InputError("railplane calibrate", None, None, str(error)) from error
    except SamplesError as error:
        message = str(error).removeprefix(f"{samples}: ")
        raise InputError(str(samples), None, None, message) from error
    try:
        table = table_of(measurement, out.stem)
    except ValueError as error:
        raise InputError(str(samples or folder), None, None, str(error)) from error
    write_table(table, out)
    return Calibrated(measurement, comparison(table, load_cost_table(COMPARED_WITH, Path())))
