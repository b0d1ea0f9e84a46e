"""railplane: how long does a step take on this cluster, and which links are busy?

The names below are the public face; each is imported when it is first asked for, so that `import simulator`
itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulator.comparison import compare
    from simulator.replay import replay_flows
    from simulator.run import simulate
    from simulator.scenario import load_scenario
    from simulator.sweeps import sweep

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load_scenario", "replay_flows", "simulate", "sweep"]

_HOME = {
    "compare": "simulator.comparison",
    "load_scenario": "simulator.scenario",
    "replay_flows": "simulator.replay",
    "simulate": "simulator.run",
    "sweep": "simulator.sweeps",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOME:
        msg = f"module 'simulator' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)
