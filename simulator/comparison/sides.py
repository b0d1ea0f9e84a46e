"""What is compared: the results of scenarios that run now, side by side, and of folders that hold a run."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import pandas as pd
from joblib import cpu_count, delayed

from simulator.document import Document, parse_document
from simulator.input_error import InputError
from simulator.machine_memory import this_process
from simulator.processes import in_processes
from simulator.result import Result
from simulator.run import simulate
from simulator.scenario import LoadedNetwork, LoadedScenario, load_network, load_scenario
from simulator.size import fewer_at_a_time, most_at_a_time
from simulator.survey import survey

Source: TypeAlias = Path | str | LoadedScenario

_NETWORK_FIGURES: Final = (
    "nodes",
    "endpoints",
    "switches",
    "links",
    "endpoint_links",
    "cost_usd",
    "cost_per_endpoint_usd",
    "diameter_hops",
    "bisection_bytes_per_s",
    "bisection_fraction",
)
_NEEDED: Final = ("step_time_s", "metrics", "breakdown_s", "links", "bounds_s", "waits", "provenance")


class RunKilled(RuntimeError):  # noqa: N818 - it is no error of ours or the user's
    """A process that ran a scenario was killed, as by a machine out of memory."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the results that are compared.

    label: what the comparison calls it; summary, links: as in `Result`; network: figures of `railplane topology`,
    numbers alone; unknown_network: why there are none, else empty; scenario: the scenario as resolved, plain data
    """

    label: str
    summary: dict[str, Any]
    links: pd.DataFrame
    network: dict[str, float]
    unknown_network: str
    scenario: dict[str, Any]


def read_sides(
    scenarios: Sequence[Source] | Mapping[str, Source],
    overrides: Sequence[str],
    jobs: int | None,
    progress: Callable[[float], None] | None,
    say: Callable[[str], None] | None,
    *,
    any_path: bool,
    any_size: bool,
) -> tuple[Side, ...]:
    """Return a side for each scenario file, loaded scenario or folder, in their order: see `compare`."""
    sources = _sources(scenarios)
    _check_number(sources)
    if jobs is not None and jobs < 1:
        raise InputError("--jobs", None, None, f"at least 1 scenario must run at a time, not {jobs}")
    given = list(scenarios) if isinstance(scenarios, Mapping) else None
    if given is None:
        _check_places(sources)
    # what is wrong is said before anything runs
    opened = [_open(source, overrides, any_path=any_path, any_size=any_size) for source in sources]
    labels = given or _labels(sources, [_name(each) for each in opened])
    to_run = [each for each in opened if isinstance(each, LoadedScenario)]
    workers = max(1, min(len(to_run), jobs or cpu_count()))
    if not any_size:
        workers = _that_fit(to_run, workers, say)
    results = iter(_run_all(to_run, workers, progress))
    sides = []
    for label, source, each in zip(labels, sources, opened, strict=True):
        if isinstance(each, LoadedScenario):
            sides.append(_side(label, *next(results), LoadedNetwork(*_network_of(each))))
        else:
            sides.append(_saved_side(label, each, Path(str(source))))
    return tuple(sides)


def _that_fit(scenarios: Sequence[LoadedScenario], wanted: int, say: Callable[[str], None] | None) -> int:
    """Return how many of the wanted processes have memory, and say so if these are fewer."""
    limit = this_process()
    fitting = most_at_a_time([loaded.size.total_bytes for loaded in scenarios], wanted, limit)
    if say is not None and (fewer := fewer_at_a_time(wanted, fitting, limit)):
        say(fewer)
    return fitting


def _sources(scenarios: Sequence[Source] | Mapping[str, Source]) -> list[Source]:
    if isinstance(scenarios, (str, Path, LoadedScenario)):  # a text is a sequence too
        return [scenarios]
    return list(scenarios.values() if isinstance(scenarios, Mapping) else scenarios)


def _check_number(sources: Sequence[Source]) -> None:
    if len(sources) < 2:
        only = _place(sources[0]) if sources else "compare"
        message = "there is nothing to compare it with; give two or more scenario files or folders of results"
        raise InputError(only, None, None, message)


def _check_places(sources: Sequence[Source]) -> None:
    """Raise InputError if one file or folder is named twice."""
    seen = set()
    for source in sources:
        if isinstance(source, LoadedScenario):
            continue
        place = Path(source).resolve()
        if place in seen:
            message = (
                "this is given twice; name each scenario once, and save variants by `railplane run --out`"
            )
            raise InputError(_place(source), None, None, message)
        seen.add(place)


def _open(
    source: Source, overrides: Sequence[str], *, any_path: bool, any_size: bool
) -> LoadedScenario | Result:
    """Return the scenario of a file, or what a folder holds; InputError if there is neither."""
    if isinstance(source, LoadedScenario):
        if overrides:
            message = "this scenario is loaded; set its fields when it is: load_scenario(path, overrides)"
            raise InputError(_place(source), None, None, message)
        return source
    path = Path(source)
    if not path.is_dir():
        return load_scenario(path, overrides, any_path=any_path, any_size=any_size)
    if overrides:
        message = (
            f"this is a saved result, in which --set {overrides[0]} can change nothing; give its scenario"
        )
        raise InputError(str(path), None, None, message)
    return _saved(path)


def _saved(folder: Path) -> Result:
    """Return what `railplane run --out` wrote into a folder."""
    advice = "give a folder that `railplane run --out` wrote, or a scenario file"
    try:
        result = Result.load(folder)
    except FileNotFoundError as error:
        missing = Path(error.filename or str(error)).name  # pandas gives the path alone
        message = f"this folder holds no result, {missing} is missing; {advice}"
        raise InputError(str(folder), None, None, message) from None
    except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are among them
        message = f"the result in this folder cannot be read: {error}; {advice}"
        raise InputError(str(folder), None, None, message) from None
    missing_keys = [name for name in _NEEDED if name not in result.summary]
    if missing_keys or "saturated_fraction" not in result.links:
        what = ", ".join(missing_keys) or "saturated_fraction of links.parquet"
        message = f"the result in this folder lacks {what}; {advice}"
        raise InputError(str(folder), None, None, message)
    return result


def _name(opened: LoadedScenario | Result) -> str:
    return opened.scenario.name if isinstance(opened, LoadedScenario) else str(opened.summary["scenario"])


def _labels(sources: Sequence[Source], names: list[str]) -> list[str]:
    """Return the scenarios' names, or, where two are equal, their paths."""
    if len(set(names)) == len(names):
        return names
    paths = [_place(source) for source in sources]
    if len(set(paths)) == len(paths):
        return paths
    message = "two scenarios have one name and one path; give a name to each: compare({'a': ..., 'b': ...})"
    raise InputError(next(path for path in paths if paths.count(path) > 1), None, "name", message)


def _place(source: Source) -> str:
    return str(source.path if isinstance(source, LoadedScenario) else source)


def _run_all(
    scenarios: Sequence[LoadedScenario], workers: int, progress: Callable[[float], None] | None
) -> list[tuple[dict[str, Any], pd.DataFrame, str]]:
    """Return what each scenario gives, in their order; each runs in a process, at most so many at once."""
    calls = (delayed(_run)(place, loaded) for place, loaded in enumerate(scenarios))
    found = {}
    try:
        with closing(in_processes(calls, workers)) as running:
            for place, *result in running:
                found[place] = tuple(result)
                if progress is not None:
                    progress(len(found) / len(scenarios))
    except BrokenProcessPool as error:
        msg = "a process that ran a scenario was killed; most likely memory did not suffice: try --jobs 1"
        raise RunKilled(msg) from error
    return [found[place] for place in range(len(scenarios))]


def _run(place: int, loaded: LoadedScenario) -> tuple[int, dict[str, Any], pd.DataFrame, str]:
    """Return what a comparison needs of a run: a result has tables of millions of rows beside it."""
    result = simulate(loaded)
    return place, result.summary, result.links, result.scenario_text


def _network_of(loaded: LoadedScenario) -> tuple[str, Any, int, Document]:
    scenario = loaded.scenario
    return scenario.name, scenario.cluster, loaded.num_nodes, loaded.document


def _saved_side(label: str, result: Result, folder: Path) -> Side:
    """Return the side of a saved result; of a graph file that is not beside it no figures are known."""
    try:
        network: LoadedNetwork | InputError = load_network(folder / "scenario.yaml")
    except InputError as error:
        network = error
    return _side(label, result.summary, result.links, result.scenario_text, network)


def _side(
    label: str,
    summary: dict[str, Any],
    links: pd.DataFrame,
    scenario_text: str,
    network: LoadedNetwork | InputError,
) -> Side:
    figures, unknown = {}, ""
    try:
        if isinstance(network, InputError):
            raise network
        found = survey(network).figures()
        figures = {name: found[name] for name in _NETWORK_FIGURES}
        figures["gpus"] = network.num_nodes * network.cluster.node_spec.gpus
    except InputError as error:
        unknown = error.message
    data = parse_document(scenario_text, label).data
    return Side(label, summary, links, figures, unknown, data)
