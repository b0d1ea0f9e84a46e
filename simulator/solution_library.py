"""Solutions by key: those that have not served for longest go when all take too much memory."""

from collections import OrderedDict

from simulator.solution import Solution

# As much as the timelines of three networks at their largest.
_MOST_BYTES = 2**29


class Library:
    """The solutions that have been found, by the keys of their episodes."""

    def __init__(self) -> None:
        self._solutions: OrderedDict[bytes, Solution] = OrderedDict()  # those that served last come last
        self.memory_bytes = 0

    def __len__(self) -> int:
        return len(self._solutions)

    def find(self, key: bytes) -> Solution | None:
        """Return the solution of a key, which has served now, if there is one."""
        if key in self._solutions:
            self._solutions.move_to_end(key)
        return self._solutions.get(key)

    def keep(self, key: bytes, solution: Solution) -> None:
        """Keep a solution, in place of another with its key; and forget others if all take too much memory."""
        self._forget(key)
        self._solutions[key] = solution
        self.memory_bytes += solution.memory_bytes
        while self.memory_bytes > _MOST_BYTES:
            self._forget(next(iter(self._solutions)))

    def _forget(self, key: bytes) -> None:
        if key in self._solutions:
            self.memory_bytes -= self._solutions.pop(key).memory_bytes
