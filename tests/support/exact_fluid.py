"""The slow twin of `simulator.fluid`: the same definition in exact fractions, every rate anew at every instant."""

from dataclasses import dataclass
from fractions import Fraction

from support.exact_fairness import Bill, exact_rates


@dataclass
class ExactFlow:
    """A flow: bytes left to send, and when it starts and has ended (None: not yet)."""

    bill: Bill
    left_bytes: Fraction
    start_s: Fraction
    weight: Fraction
    finish_s: Fraction | None = None
    cancelled: bool = False


class ExactFluid:
    """Links and the flows on them, with a clock that only moves forward."""

    def __init__(self, capacity_bytes_per_s: list[Fraction]) -> None:
        self.capacity_bytes_per_s = list(capacity_bytes_per_s)
        self.flows: list[ExactFlow] = []
        self.now_s = Fraction(0)

    def add(self, bill: Bill, size_bytes: Fraction, start_s: Fraction, weight: Fraction) -> ExactFlow:
        """Return a new flow, which starts at start_s, or now where that has passed."""
        self.flows.append(ExactFlow(bill, size_bytes, max(start_s, self.now_s), weight))
        return self.flows[-1]

    def unfinished(self) -> list[ExactFlow]:
        """Return the flows that have not ended and have not been cancelled."""
        return [flow for flow in self.flows if flow.finish_s is None and not flow.cancelled]

    def under_way(self) -> list[ExactFlow]:
        """Return the unfinished flows that have started."""
        return [flow for flow in self.unfinished() if flow.start_s <= self.now_s]

    def advance(self, until_s: Fraction | None = None) -> None:
        """Move the clock to until_s, or with none to where nothing can move any more."""
        while True:
            self._end_flows()
            sending = self.under_way()
            bills, weights = [flow.bill for flow in sending], [flow.weight for flow in sending]
            rates = exact_rates(self.capacity_bytes_per_s, bills, weights)
            instants = [flow.start_s for flow in self.unfinished() if flow.start_s > self.now_s]
            for flow, rate in zip(sending, rates, strict=True):
                if rate > 0:
                    instants.append(self.now_s + flow.left_bytes / rate)
            next_s = min(instants, default=until_s)
            last = next_s is None or (until_s is not None and next_s >= until_s)
            to_s = until_s if last else next_s
            if to_s is not None:
                for flow, rate in zip(sending, rates, strict=True):
                    flow.left_bytes -= rate * (to_s - self.now_s)
                self.now_s = to_s
            if last:
                self._end_flows()
                return

    def _end_flows(self) -> None:
        """End what has nothing left to send, or no link to send it over."""
        for flow in self.under_way():
            if flow.left_bytes == 0 or not flow.bill:
                flow.finish_s = self.now_s
