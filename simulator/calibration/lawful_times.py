"""Measured times made to agree with the law by which listed shapes bound all calls, by the least change.

The law: with every size smaller a kernel takes no longer, and with one size f times larger at most f times as long.
Of a call with sizes x and another with sizes z it allows, in logarithms,

    log t(x) - log t(z)  <=  c(x, z) = sum over sizes of max(0, log(x / z))

Noise, and kernels that change with the shape, break it by a little. As c(x, z) <= c(x, y) + c(y, z), the largest
times that the law allows at or below the measured ones are min over z of log t(z) + c(x, z), the smallest at or above
them max over z of log t(z) - c(z, x). Both agree with the law, and so does their mean, whose largest shift is half of
the law's worst breach: no times that agree have a smaller one.
"""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def lawful(sizes: FloatArray, seconds: FloatArray) -> FloatArray:
    """Return times that agree with the law, those that did being as they were.

    sizes: [shapes, sizes] more than 0; seconds: [shapes]; result: [shapes] seconds
    """
    log_sizes, log_s = np.log(sizes), np.log(seconds)
    allowed = np.maximum(log_sizes[:, None, :] - log_sizes[None, :, :], 0.0).sum(axis=2)  # [x, z]
    highest = (log_s[None, :] + allowed).min(axis=1)
    lowest = (log_s[:, None] - allowed).max(axis=0)
    shift = (highest + lowest) / 2 - log_s
    shifted: FloatArray = seconds * np.exp(shift)
    return shifted
