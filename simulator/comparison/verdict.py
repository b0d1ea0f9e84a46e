"""Where results differ and why, in sentences that are read off the tables."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import pandas as pd

from simulator.comparison.figures import are_equal, difference
from simulator.comparison.links import are_alike
from simulator.comparison.sides import Side
from simulator.result import ROUNDING
from simulator.units import show_quantity

_BOUND_FROM: Final = (
    0.9  # share of the step that a link needs alone, from which on the step is called bound by it
)
_AS_LONG_FROM: Final = 2.0  # times, from which on a factor says more than percent do
_PARTS_NAMED: Final = 3
_LEAST_SHOWN: Final = 0.001  # share that a digit behind the point tells from nothing
_FIELDS_NAMED: Final = 6


def verdict(
    sides: Sequence[Side], figures: pd.DataFrame, kinds: pd.DataFrame, fields: pd.DataFrame
) -> list[str]:
    """Return the sentences: the steps, their parts, what bounds each, its links, the networks, what was changed."""
    return [
        *_steps(sides),
        *_parts(sides),
        *_bounds(sides, kinds),
        *_computing(sides),
        *_link_kinds(sides, kinds),
        *_waits(sides),
        *_networks(sides, figures),
        *_changed(fields),
    ]


def _steps(sides: Sequence[Side]) -> list[str]:
    """Say which steps are equal to the first one, to the last bit or but for rounding, and how far others are."""
    first, step_s = sides[0], _step_s(sides[0])
    same = [side.label for side in sides[1:] if _step_s(side) == step_s]
    near = [side.label for side in sides[1:] if side.label not in same and are_equal([_step_s(side), step_s])]
    lines = []
    for labels, how in ((same, "to the last bit"), (near, "but for rounding (1e-9)")):
        if labels:
            lines.append(f"{_joined([first.label, *labels])} take the same step, {how}: {_time(step_s)}.")
    for side in sides[1:]:
        if side.label not in {*same, *near}:
            apart = _longer(_step_s(side), step_s)
            lines.append(
                f"{side.label} takes {_time(_step_s(side))}, {apart} {first.label} ({_time(step_s)})."
            )
    return lines


def _parts(sides: Sequence[Side]) -> list[str]:
    """Say which parts of the step the differences lie in."""
    first, lines = sides[0].summary["breakdown_s"], []
    for side in sides[1:]:
        parts = side.summary["breakdown_s"]
        if set(parts) != set(first):
            lines.append(f"The steps of {side.label} and {sides[0].label} have parts of other names.")
            continue
        apart = {
            part: parts[part] - first[part] for part in parts if not are_equal([parts[part], first[part]])
        }
        most = sorted(apart, key=lambda part: -abs(apart[part]))[:_PARTS_NAMED]
        if most:
            named = ", ".join(
                f"{part} {'+' if apart[part] > 0 else '-'}{_time(abs(apart[part]))}" for part in most
            )
            lines.append(f"Where {side.label} and {sides[0].label} differ most: {named}.")
    return lines


def _bounds(sides: Sequence[Side], kinds: pd.DataFrame) -> list[str]:
    """Say what the busiest link of each would need alone, and whether that bounds the step."""
    rows = {
        side.label: kinds[kinds["scenario"] == side.label].sort_values("busiest_s", kind="stable").iloc[-1]
        for side in sides
        if side.summary["bounds_s"]["busiest_link"] > 0.0 and _step_s(side) > 0.0
    }

    def said(side: Side) -> str:
        if side.label not in rows:
            return "nothing crosses a link"
        row = rows[side.label]
        share = row["busiest_s"] / _step_s(side)
        what = f"the busiest link, of kind {row['kind']}, needs {share:.1%} of the step for its bytes alone"
        return f"{what}, so that it bounds the step" if share >= _BOUND_FROM else what

    lines = [f"In {who}, {text}." for text, who in _together(sides, said)]
    names = {label: f"{row['busiest_source']} -> {row['busiest_target']}" for label, row in rows.items()}
    found = _together(sides, lambda side: names.get(side.label, ""))
    named = [f"{name} in {who}" for name, who in found if name]
    return [*lines, f"The busiest links: {'; '.join(named)}."] if named else lines


def _computing(sides: Sequence[Side]) -> list[str]:
    """Say how much of each step kernels run, and how much waits for communication or for the pipeline."""

    def said(side: Side) -> str:
        summary, step_s = side.summary, _step_s(side)
        shares = {}
        if kernels := summary.get("kernels", {}).get("step_share_by_how"):
            shares["kernels"] = sum(kernels.values())
        hidden_by_nothing = summary["breakdown_s"].get("exposed_communication")
        exposed_s = summary["metrics"].get("exposed_communication_s", hidden_by_nothing)
        if exposed_s is not None and step_s:
            shares["communication that no kernel hides"] = exposed_s / step_s
        if "bubble" in summary["breakdown_s"] and step_s:
            shares["bubbles of the pipeline"] = summary["breakdown_s"]["bubble"] / step_s
        return ", ".join(f"{share:.1%} {name}" for name, share in shares.items())

    return [f"The time of GPUs in {who}: {text}." for text, who in _together(sides, said) if text]


def _link_kinds(sides: Sequence[Side], kinds: pd.DataFrame) -> list[str]:
    """Say which kinds of links are saturated in which, and which differ although they hold nothing back."""
    rows_of = {str(kind): rows for kind, rows in kinds.groupby("kind", sort=False)}
    held = {kind: rows for kind, rows in rows_of.items() if (rows["saturated_fraction"] > ROUNDING).any()}
    differ = {
        kind: rows for kind, rows in rows_of.items() if kind not in held and not are_alike(rows, len(sides))
    }
    lines = [
        f"{links} are saturated, that is at their effective capacity: {text}."
        for text, links in _kinds_by_text({kind: _saturated(sides, rows) for kind, rows in held.items()})
    ]
    if held and all(are_alike(rows, len(sides)) for rows in held.values()) and _all_take_the_same(sides):
        lines.append(
            f"All links that are ever saturated are as many, as busy and as long saturated in {_everyone(sides)}: "
            f"whatever else differs, links hold {_everyone(sides)} steps up alike."
        )
    return lines + [
        f"{links} differ: {text}. None is ever saturated, so they hold no flow back."
        for text, links in _kinds_by_text({kind: _texts(sides, _uses(rows)) for kind, rows in differ.items()})
    ]


def _kinds_by_text(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Return each different text, and of which kinds of links it is said, in words."""
    kinds: dict[str, list[str]] = {}
    for kind, text in texts.items():
        kinds.setdefault(text, []).append(kind)
    return [
        (text, f"Links of kind{'s' if len(of_text) > 1 else ''} {_joined(of_text)}")
        for text, of_text in kinds.items()
    ]


def _saturated(sides: Sequence[Side], rows: pd.DataFrame) -> str:
    """Return for how much of each step links of a kind were saturated, and, if they differ, how busy they were.

    rows: those of `kinds` that are of the kind
    """
    share = dict(zip(rows["scenario"], rows["saturated_fraction"], strict=True))
    use = {} if are_alike(rows, len(sides)) else _uses(rows)

    def said(side: Side) -> str:
        if side.label not in share:
            return "there are none"
        value = share[side.label]
        text = f"for up to {_share(value)} of the step" if value > ROUNDING else "never"
        return f"{text} ({use[side.label]})" if use else text

    return "; ".join(f"{text} in {who}" for text, who in _together(sides, said))


def _uses(rows: pd.DataFrame) -> dict[str, str]:
    """Return how busy the links of a kind are, in words, by scenario."""
    return {
        row["scenario"]: f"{row['count']:,} at {row['mean_utilisation']:.1%} in the mean, "
        f"the busiest at {row['peak_utilisation']:.1%}"
        if row["used"]
        else f"{row['count']:,} that carry nothing"
        for row in rows.to_dict("records")
    }


def _texts(sides: Sequence[Side], texts: dict[str, str]) -> str:
    """Return a text of each scenario, those that are equal together."""
    found = _together(sides, lambda side: texts.get(side.label, "there are none"))
    return "; ".join(f"{text} in {who}" for text, who in found)


def _all_take_the_same(sides: Sequence[Side]) -> bool:
    return are_equal([_step_s(side) for side in sides])


def _waits(sides: Sequence[Side]) -> list[str]:
    """Say which kind of link the last rank of each exchange waits for, where it is known and not alike in all."""
    by_side = {
        side.label: {row["collective"]: row["slowest_link_kind"] for row in side.summary["waits"]}
        for side in sides
    }
    lines = []
    for name in dict.fromkeys(name for waits in by_side.values() for name in waits):
        held = [side for side in sides if by_side[side.label].get(name)]
        if len({by_side[side.label][name] for side in held}) > 1:
            found = _together(held, lambda side, name=name: str(by_side[side.label][name]))  # type: ignore[misc]
            texts = ", ".join(f"a link of kind {kind} in {who}" for kind, who in found)
            lines.append(f"The last rank of {name} waits longest for {texts}.")
    return lines


def _networks(sides: Sequence[Side], figures: pd.DataFrame) -> list[str]:
    """Say what the networks have and cost, where that differs, and whether it buys time."""
    network = figures[figures["group"] == "network"]
    apart = set(network.loc[~network["equal"], "figure"])
    value = {(row.figure, row.scenario): row.value for row in network.itertuples()}
    known = [side for side in sides if side.network]
    if len(known) < 2 or not apart & {"switches", "links", "cost_usd"}:
        return ["The networks have as many switches and links, and cost the same."] if len(known) > 1 else []

    def parts(label: str) -> str:
        counts = f"{value['switches', label]:,.0f} switches, {value['links', label]:,.0f} links between them"
        each = show_quantity(value["cost_per_endpoint_usd", label], "dollars")
        return f"{counts}, {show_quantity(value['cost_usd', label], 'dollars')} ({each} an endpoint)"

    found = _together(sides, lambda side: parts(side.label) if side.network else "")
    lines = [f"The networks: {'; '.join(f'{text} in {who}' for text, who in found if text)}."]
    first = sides[0]
    for side in known[1:] if first in known else []:
        cost = difference(value["cost_usd", side.label], value["cost_usd", first.label])
        if math.isnan(cost) or abs(cost) <= ROUNDING:
            continue
        dearer = f"costs {abs(cost):.1%} {'more' if cost > 0 else 'less'}"
        steps = [_step_s(side), _step_s(first)]
        effect = "with the same step" if are_equal(steps) else f"and its step is {_longer(*steps)} that one's"
        lines.append(f"The network of {side.label} {dearer} than that of {first.label}, {effect}.")
    return lines


def _changed(fields: pd.DataFrame) -> list[str]:
    """Say which fields differ."""
    names = list(dict.fromkeys(fields["field"]))
    if not names:
        return ["The scenarios, as resolved, do not differ but for their names."]
    more = len(names) - _FIELDS_NAMED
    rest = f" and {more} more" if more > 0 else ""
    return [f"What was changed: {', '.join(names[:_FIELDS_NAMED])}{rest}."]


def _together(sides: Sequence[Side], said: Callable[[Side], str]) -> list[tuple[str, str]]:
    """Return each different text, and of which sides it is said, in words; in the order of the sides."""
    labels: dict[Hashable, list[str]] = {}
    for side in sides:
        labels.setdefault(said(side), []).append(side.label)
    return [
        (str(text), _everyone(sides) if len(of_text) == len(sides) else _joined(of_text))
        for text, of_text in labels.items()
    ]


def _share(fraction: float) -> str:
    return f"{fraction:.1%}" if fraction >= _LEAST_SHOWN else f"{100 * fraction:.1g}%"


def _everyone(sides: Sequence[Side]) -> str:
    return "both" if len(sides) == 2 else f"all {len(sides)}"


def _joined(labels: Sequence[str]) -> str:
    return " and ".join([", ".join(labels[:-1]), labels[-1]]) if len(labels) > 1 else labels[0]


def _longer(value: float, first: float) -> str:
    """Return how much longer a time is than the first."""
    if first and value >= _AS_LONG_FROM * first:
        return f"{value / first:,.3g} times as long as"
    share = f"{abs(difference(value, first)):.2%} " if first else ""
    return f"{share}{'longer' if value > first else 'shorter'} than"


def _step_s(side: Side) -> float:
    return float(side.summary["step_time_s"])


def _time(seconds: float) -> str:
    return show_quantity(seconds, "time")
