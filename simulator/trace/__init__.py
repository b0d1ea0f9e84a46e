"""A run as a Chrome trace. Opens in Perfetto.

A process is a node, or a pipeline rank where the run has phases; a thread is a row of one rank, or of a fold of ranks
in lockstep: its phases, its streams, and what it sends beside them. A last process holds counters of the links.
docs/trace.md says what is in the file, and what is left out of a file that would be too large.

Format: "Trace Event Format" (Google, 2016), JSON object form: complete events (`X`), counters (`C`) and metadata
(`M`), times in microseconds, here to whole nanoseconds.
"""

from simulator.trace.document import MAX_BYTES, chrome_trace
from simulator.trace.spans import phase_name

__all__ = ["MAX_BYTES", "chrome_trace", "phase_name"]
