"""What a metric is measured in, as its name says: `_s` seconds, `_bytes` bytes, `_bytes_per_s` bytes per second."""

import re
from typing import Final

_DIMENSIONS: Final = (
    (re.compile(r"bytes_per_s(_|$)"), "bytes per second"),
    (re.compile(r"flops_per_s(_|$)"), "flop per second"),
    (re.compile(r"(^|[_.])bytes(_per_gpu)?$"), "bytes"),
    (re.compile(r"(^breakdown_s\.|(?<!per)_s$)"), "time"),
    (re.compile(r"_usd$"), "dollars"),
)
_SHARES: Final = re.compile(r"(^|[_.])(mfu_\w+|\w*utilisation|\w*_fraction|\w*_error)$")


def dimension_of(name: str) -> str | None:
    """Return the dimension of a metric, a key of `simulator.units.UNITS`; None for counts, rates and shares."""
    return next((dimension for pattern, dimension in _DIMENSIONS if pattern.search(name)), None)


def is_share(name: str) -> bool:
    """Return whether a metric is a share of 1, which people read in percent."""
    return bool(_SHARES.search(name))
