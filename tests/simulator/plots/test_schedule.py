"""The picture of a schedule: every phase is in it, at its place and time, and the same rows are the same picture."""

import io

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from simulator.plots.schedule import draw_schedule
from simulator.plots.topology_parts import COLOURS
from support.phase_tables import ideal_phases, phase_table
from workloads.schedules import SCHEDULES

NONE = (-1, -1, -1)
ORANGE, GREEN = COLOURS[1], COLOURS[2]


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def boxes(axes: Axes) -> list[tuple[float, float, float, float, str]]:
    """Return (start, end, upper edge, lower edge, colour) of each box."""
    found = []
    for collection in axes.collections:
        if isinstance(collection, PolyCollection):
            for path in collection.get_paths():
                box = path.get_extents()
                found.append((box.x0, box.x1, box.y0, box.y1, to_hex(collection.get_facecolor()[0])))
    return found


def num_numbers(axes: Axes) -> int:
    return sum(len(each.get_offsets()) for each in axes.collections if isinstance(each, PathCollection))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_phase_is_at_its_time_on_its_line(name: str):
    phases = ideal_phases(name, 4, 8, 2 if SCHEDULES[name].takes_chunks else 1)
    axes = axes_of(draw_schedule(phases))
    # times run to tens of milliseconds, so that the axis is in milliseconds; pairs have two boxes, one on the other
    found = {(start, end, round((upper + lower) / 2)) for start, end, upper, lower, _ in boxes(axes)}
    expected = zip(
        (phases["start_s"] * 1e3).tolist(),
        (phases["end_s"] * 1e3).tolist(),
        phases["rank"].tolist(),
        strict=True,
    )
    assert sorted(found) == [pytest.approx(box) for box in sorted(expected)]
    assert len(boxes(axes)) == len(phases) + (phases["kind"] == "forward-backward").sum()
    assert axes.get_xlabel() == "time (ms)"
    assert axes.get_xlim() == (0, pytest.approx(phases["end_s"].max() * 1e3))


def test_a_pair_has_its_forward_above_its_backward():
    (forward, backward) = boxes(
        axes_of(draw_schedule(phase_table([(0, 1, "forward-backward", 0, 0, 3, 0, 0, 1, 0.0, 2.0)])))
    )
    bottom, top = -0.5, 0.5  # of the line; the axis points down
    assert bottom < forward[2] < forward[3] == backward[2] == 0.0 < backward[3] < top
    assert (forward[4], backward[4]) == (ORANGE.lower(), GREEN.lower())


def test_the_second_stage_of_a_rank_is_paler():
    # rank 0 of DualPipe holds stage 0 of the first pipeline and stage 1 of the other; 0.5 x colour + 0.5 x white
    cells = [(0, 0, 4), (1, 1, 7)]
    rows = [(0, 1, "forward", *cell, *NONE, float(place), place + 1.0) for place, cell in enumerate(cells)]
    first, second = (colour for *_, colour in sorted(boxes(axes_of(draw_schedule(phase_table(rows))))))
    assert first == ORANGE.lower()
    half_white = [(int(ORANGE[place : place + 2], 16) + 255) / 2 / 255 for place in (1, 3, 5)]
    assert second == to_hex(half_white)


def test_of_ranks_with_the_same_stages_the_first_is_drawn():
    phases = ideal_phases("1f1b", 2, 4)
    later = phases.assign(rank=phases["rank"] + 2, end_s=phases["end_s"] + 1e-4)
    axes = axes_of(draw_schedule(pd.concat([later, phases])))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["rank 0", "rank 1"]
    assert sorted(boxes(axes)) == sorted(boxes(axes_of(draw_schedule(phases))))
    bottom, top = axes.get_ylim()
    assert bottom > top  # line 0 is uppermost


def test_micro_batches_are_written_where_they_fit():
    # 4 ranks, 8 micro-batches: 33 ms on 11 inches, so that 1 ms is a third of an inch; a digit of 7 points is a tenth
    few = ideal_phases("1f1b", 4, 8)
    assert num_numbers(axes_of(draw_schedule(few))) == len(few)
    # 120 micro-batches of 16 ranks: the picture grows, and letters shrink, until four of five have room
    many = ideal_phases("dualpipe", 16, 120)
    figure = draw_schedule(many)
    written = num_numbers(axes_of(figure)) / len(boxes(axes_of(figure)))
    assert 0.8 <= written < 1.0
    assert 12.0 < figure.get_size_inches()[0] <= 30.0
    # 1,000 micro-batches on at most 30 inches are a thirtieth of an inch each, forward and backward
    assert num_numbers(axes_of(draw_schedule(ideal_phases("1f1b", 2, 1000)))) == 0


def colours(figure: Figure) -> dict[str, str]:
    """Return the colour of each kind that the legend tells."""
    legend = axes_of(figure).get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    return {
        text: to_hex(handle.get_facecolor())
        for text, handle in zip(texts, legend.legend_handles, strict=True)
        if hasattr(handle, "get_facecolor")
    }


def told(phases: pd.DataFrame) -> list[str]:
    legend = axes_of(draw_schedule(phases)).get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_legend_tells_what_there_is():
    assert told(ideal_phases("1f1b", 4, 8)) == ["forward", "backward", "idle"]
    usual = ["forward", "backward", "backward-input", "weight"]
    assert told(ideal_phases("dualpipe", 4, 8)) == [*usual, "overlapped pair", "either direction", "idle"]
    two = ideal_phases("interleaved-1f1b", 4, 8, 2)
    assert told(two) == ["forward", "backward", "stages of a rank", "idle"]


def test_a_kind_has_one_colour_in_all_pictures():
    usual = colours(draw_schedule(ideal_phases("zb1p", 4, 8)))
    kinds = ["forward", "backward-input", "weight"]
    assert len({usual[kind] for kind in kinds}) == 3
    phases = ideal_phases("zb1p", 4, 8)
    more = [
        (0, 1, kind, *NONE, *NONE, 0.04, 0.05)
        for kind in ("reduce-gradients", "optimizer", "gather-weights", "checkpoint")
    ]
    with_more = colours(draw_schedule(pd.concat([phases, phase_table(more)])))
    assert {kind: with_more[kind] for kind in kinds} == {kind: usual[kind] for kind in kinds}
    assert len({with_more[kind] for kind in [*kinds, *(row[2] for row in more)]}) == 7


def test_the_same_rows_are_the_same_picture():
    def picture(phases: pd.DataFrame) -> bytes:
        file = io.BytesIO()
        draw_schedule(phases, "title", "subtitle").savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()

    phases = ideal_phases("dualpipe", 4, 8)
    assert picture(phases) == picture(phases.copy())
    assert picture(phases) != picture(phases.iloc[1:])


def test_phases_without_tasks_are_left_out_and_no_stage_is_an_error():
    phases = ideal_phases("1f1b", 2, 2)
    never = phase_table([(0, 1, "forward", 0, 0, 9, *NONE, float("nan"), float("nan"))])
    assert boxes(axes_of(draw_schedule(pd.concat([phases, never])))) == boxes(axes_of(draw_schedule(phases)))
    with pytest.raises(ValueError, match="no phase has a stage"):
        draw_schedule(phases.iloc[:0])
