"""A pytest plugin under which mutants are tested: what is compiled runs as plain Python, the same way each time.

numba gives the fields of a record as attributes, NumPy only if the record's type does; and numba divides by zero
without a warning. Load it with `-p mutation.interpreted`, before any other of ours.
"""

from pathlib import Path

import numba
import numpy as np
from hypothesis import HealthCheck, Phase, settings

from simulator import flow_state, sharing

if not Path(sharing.__file__).is_relative_to(Path.cwd()):
    msg = f"the working folder, {Path.cwd()}, is what is mutated, but {sharing.__file__} would be tested"
    raise ImportError(msg)
if not numba.config.DISABLE_JIT:
    msg = "set NUMBA_DISABLE_JIT=1"
    raise ImportError(msg)


class Record(np.void):
    """A record whose fields are attributes: `numpy.record`, four times as fast."""

    __getattr__ = np.void.__getitem__
    __setattr__ = np.void.__setitem__


_RECORDS = {
    sharing: ("LINK", "GROUP", "HELD", "SOLVE"),
    flow_state: ("FLOW", "MEMBERS", "FOLLOWS", "SERVICE", "NOW"),
}
for module, names in _RECORDS.items():
    for name in names:
        setattr(module, name, np.dtype((Record, getattr(module, name))))
np.seterr(all="ignore")

# The same cases for every mutant, and no search for the smallest that fails.
settings.register_profile(
    "mutation",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=5,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
