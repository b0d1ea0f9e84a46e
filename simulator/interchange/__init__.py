"""Scenarios as text that other simulators read, so that a case can be checked by packets or by another model.

docs/interchange.md says what is written. What a format cannot say is refused, or, where a file without it is still of
use, written only if the user accepts that by name.
"""

from simulator.interchange.acceptance import ACCEPTANCES, NotSayableError
from simulator.interchange.case import Case
from simulator.interchange.goal import write_goal
from simulator.interchange.hpcc import write_hpcc

__all__ = ["ACCEPTANCES", "Case", "NotSayableError", "write_goal", "write_hpcc"]
