"""The picture of a schedule: every phase is in it, at its place and time, and the same rows are the same picture."""

import io

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from simulator.drawing_schedule import draw_schedule
from workloads.schedules import SCHEDULES, make_schedule
from workloads.schedules.ideal import ideal_times


def table(name: str, num_ranks: int, num_micro_batches: int, second: float = 1e-3) -> pd.DataFrame:
    """Return the rows of a schedule on an ideal network: forward 1, backward 2, a pair 3, in milliseconds."""
    schedule = make_schedule(name, num_ranks, num_micro_batches)
    times = ideal_times(schedule, second, second, second, 3 * second)
    rows = []
    for rank, (phases, spans) in enumerate(zip(schedule.phases, times, strict=True)):
        for phase, span in zip(phases, spans, strict=True):
            cells = [cell for cell in (phase.forward, phase.backward) if cell]
            label = "/".join(str(cell.micro_batch) for cell in cells)
            rows.append((rank, phase.kind.value, label, span.start_s, span.end_s))
    return pd.DataFrame(rows, columns=["rank", "kind", "label", "start_s", "end_s"])


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def boxes(axes: Axes) -> list[tuple[float, float, float]]:
    """Return (start, end, place) of each box."""
    found = []
    for collection in axes.collections:
        assert isinstance(collection, PolyCollection)
        for path in collection.get_paths():
            box = path.get_extents()
            found.append((box.x0, box.x1, (box.y0 + box.y1) / 2))
    return found


@pytest.mark.parametrize("name", [name for name, recipe in SCHEDULES.items() if not recipe.takes_chunks])
def test_every_phase_is_a_box_at_its_time(name):
    rows = table(name, 4, 8)
    axes = axes_of(draw_schedule(rows))
    # times run to tens of milliseconds, so that the axis is in milliseconds; rank r is line r
    expected = sorted(
        zip(
            (rows["start_s"] * 1e3).tolist(),
            (rows["end_s"] * 1e3).tolist(),
            rows["rank"].tolist(),
            strict=True,
        )
    )
    assert sorted(boxes(axes)) == [pytest.approx(box) for box in expected]
    assert axes.get_xlabel() == "time (ms)"
    assert axes.get_xlim() == (0, pytest.approx(rows["end_s"].max() * 1e3))


def test_the_first_rank_is_on_top_and_ranks_need_not_be_consecutive():
    rows = table("1f1b", 2, 2).replace({"rank": {0: 3, 1: 12}})
    axes = axes_of(draw_schedule(rows))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["rank 3", "rank 12"]
    bottom, top = axes.get_ylim()
    assert bottom > top  # line 0 is uppermost
    assert {place for _, _, place in boxes(axes)} == {0.0, 1.0}


def test_micro_batches_are_written_where_they_fit():
    # 33 ms on 10.9 inches: a box of 1 ms is a third of an inch, which holds one digit at 7 points, and not twelve
    # letters (0.7 inches).
    rows = table("1f1b", 4, 8)
    axes = axes_of(draw_schedule(rows))
    texts = sorted(text.get_text() for text in axes.texts)
    assert texts == sorted(rows["label"])
    rows.loc[0, "label"] = "micro-batch 0"
    texts = sorted(text.get_text() for text in axes_of(draw_schedule(rows)).texts)
    assert texts == sorted(rows["label"][1:])
    assert not axes_of(draw_schedule(table("1f1b", 4, 800))).texts


def colours(figure: Figure) -> dict[str, str]:
    legend = axes_of(figure).get_legend()
    return {
        text.get_text(): str(patch.get_facecolor())
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }


def test_a_kind_has_one_colour_in_all_pictures():
    usual = colours(draw_schedule(table("dualpipe", 4, 8)))
    assert list(usual) == ["forward", "backward", "backward-input", "weight", "forward-backward"]
    assert len(set(usual.values())) == len(usual)
    assert colours(draw_schedule(table("1f1b", 4, 8))) == {
        kind: usual[kind] for kind in ("forward", "backward")
    }
    # a real run has kinds of its own: told apart from the usual ones, and from each other
    rows = table("dualpipe", 4, 8)
    more = pd.DataFrame(
        [(0, "optimizer", "", 0.04, 0.05), (1, "all-gather", "", 0.04, 0.05)], columns=rows.columns
    )
    with_more = colours(draw_schedule(pd.concat([rows, more])))
    assert list(with_more) == [*usual, "all-gather", "optimizer"]
    assert len(set(with_more.values())) == len(usual) + 2


def test_the_same_rows_are_the_same_picture():
    def picture(rows: pd.DataFrame) -> bytes:
        file = io.BytesIO()
        draw_schedule(rows, "title", "subtitle").savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()

    rows = table("dualpipe", 4, 8)
    assert picture(rows) == picture(rows.copy())
    assert picture(rows) != picture(rows.iloc[1:])


def test_nothing_to_draw_is_named():
    rows = table("1f1b", 2, 2)
    with pytest.raises(ValueError, match="no column 'label'; it needs a row a phase with rank, kind, label"):
        draw_schedule(rows.drop(columns="label"))
    with pytest.raises(ValueError, match="has no phase; it needs a row a phase"):
        draw_schedule(rows.iloc[:0])
