"""Every picture of one run, in reading order, from its tables alone."""

from collections.abc import Iterator

from simulator.link_groups import NETWORK_KINDS
from simulator.pipeline_ranks import pipeline_rank_of
from simulator.plots.gpu_links import draw_gpu_links
from simulator.plots.heat_map import draw_heat_map, heat_rows
from simulator.plots.network_load import draw_network_load
from simulator.plots.overview import draw_overview
from simulator.plots.picture import Picture
from simulator.plots.roofline import draw_roofline, has_roofline
from simulator.plots.saving import settle
from simulator.plots.schedule import draw_schedule
from simulator.plots.utilisation_lines import draw_utilisation_lines
from simulator.result import Result

_OF_DATASHEET = "in percent of what the links' datasheets say"


def result_pictures(result: Result) -> list[Picture]:
    """Return the pictures of a run, each with its caption; those that it has nothing of are left out."""
    return [picture._replace(figure=settle(picture.figure)) for picture in _pictures(result)]


def _pictures(result: Result) -> Iterator[Picture]:
    summary, links = result.summary, result.links
    has_stages = bool(pipeline_rank_of(result.phases))
    yield Picture("overview", _overview_caption(result, has_stages=has_stages), draw_overview(result))
    if has_stages:
        caption = (
            "The pipeline over time: a line for each pipeline rank, a box for each phase with its micro-batch, white"
            " where it is idle. An overlapped pair has its forward above its backward."
        )
        yield Picture(
            "schedule", caption, draw_schedule(result.phases, summary["scenario"], summary["question"])
        )
    if links["bytes"].any():
        if links.loc[links["kind"].isin(NETWORK_KINDS), "bytes"].any():
            caption = f"The network, its cables coloured by their utilisation over the step, {_OF_DATASHEET}."
            yield Picture("network_load", caption, draw_network_load(result))
        caption = f"How busy each GPU's own links and its NIC's were over the step, {_OF_DATASHEET}."
        yield Picture("gpu_links", caption, draw_gpu_links(result))
        caption = f"How busy links were over time, {_OF_DATASHEET}. A row is {heat_rows(result).meaning}."
        yield Picture("utilisation_map", caption, draw_heat_map(result))
        caption = (
            f"How busy layers of links, planes and rails were over time, {_OF_DATASHEET}; a line is the mean of its"
            " links, and those that hardly differ share one."
        )
        yield Picture("utilisation_lines", caption, draw_utilisation_lines(result))
    if has_roofline(summary):
        caption = (
            "What kernels reach of the GPU's peaks. Points: arithmetic over arithmetic intensity, larger for kernels"
            " that take more of the time, under the GPU's roofs. Bars: kernels that only move bytes."
        )
        yield Picture("roofline", caption, draw_roofline(summary))


def _overview_caption(result: Result, *, has_stages: bool) -> str:
    parts = ["Where the step went."]
    if result.links["bytes"].any():
        parts.append(
            "How busy each kind of link was over the step, on average and its busiest link, and over time; kinds that"
            " hardly differ share a line."
        )
    if has_stages:
        parts.append("When the GPUs of each pipeline rank computed.")
    return " ".join(parts)
