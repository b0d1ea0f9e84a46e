"""The files that scenarios name, damaged: each is refused with one message that names it and its line, or is used."""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from fuzz.budget import examples
from fuzz.mutations_files import Kind, damaged, file_kinds
from fuzz.mutations_outcome import blamed_on, call, check_file_is_named, check_refusal
from fuzz.mutations_small import small_model, write_files
from fuzz.mutations_trial import try_file
from simulator.scenario import load_network
from topologies import build_cluster
from topologies.graph_file import write_graph

pytestmark = pytest.mark.usefixtures("compiled")
_SHIPPED: Final = Path(__file__).parents[2] / "scenarios"
_KINDS: Final = (
    *("flows.csv", "flows.parquet", "loads.csv", "loads.parquet", "decisions.parquet"),
    *("config.json", "costs.json", "g.json", "g.graphml", "table.txt"),
)
_QUICK: Final = 10  # of each kind of file


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    """Every kind of file, small and good."""
    folder = tmp_path_factory.mktemp("graphs")
    spec = folder / "spec.yaml"
    spec.write_text(
        "name: n\ncluster: {node: h800, nodes: 2, topology: {kind: two-layer-fat-tree, switch_ports: 8}}\n"
    )
    cluster = load_network(spec).cluster
    graph = build_cluster(cluster.node_spec, 2, cluster.topology)
    for name in ("g.json", "g.graphml"):
        write_graph(graph, folder / name)
    found = file_kinds(folder, small_model())
    assert tuple(found) == _KINDS
    return found


def _scenario(folder: Path, kind: Kind) -> Path:
    """Write a scenario that names a file of that kind, which is good, beside it; return the scenario's path."""
    write_files(_SHIPPED, folder)
    (folder / kind.name).write_bytes(kind.content)
    path = folder / "s.yaml"
    path.write_text(f"name: s\n{kind.scenario}")
    return path


@pytest.mark.parametrize("name", _KINDS)
def test_a_damaged_file_is_refused_or_used(
    tmp_path: Path, kinds: dict[str, Kind], name: str, record_property: Callable[[str, object], None]
) -> None:
    path = _scenario(tmp_path, kinds[name])
    assert try_file(path, name) == "ran"  # else what follows might be refused for what was wrong before
    for number in range(examples(_QUICK, 1 / len(_KINDS))):
        (tmp_path / name).write_bytes(damaged(kinds[name], random.Random(f"{name} {number}")))
        with blamed_on(tmp_path / name, f"{name}, {number}"):
            record_property(f"{name} {number}", try_file(path, name))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _input(path: Path) -> None:
    path.symlink_to("/dev/stdin")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # a terabyte of zeros that takes no room


def _gone(path: Path) -> None:
    """Leave nothing there."""


@pytest.mark.parametrize("place", [_pipe, _device, _input, _loop, _socket, _sparse, Path.mkdir, _gone])
@pytest.mark.parametrize("name", _KINDS)
def test_what_is_no_file_to_read_is_refused_at_once(
    tmp_path: Path, kinds: dict[str, Kind], name: str, place: Callable[[Path], None]
) -> None:
    path = _scenario(tmp_path, kinds[name])
    (tmp_path / name).unlink()
    place(tmp_path / name)
    for options in ((), ("--any-path",)):  # a device lies outside of the folder
        outcome = call("check", path, *options)
        check_refusal(outcome, str(path))
        assert name in outcome.err


@pytest.mark.parametrize("name", _KINDS)
def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, kinds: dict[str, Kind], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _scenario(tmp_path, kinds[name])
    really_open = os.open

    def refuse(file: object, *arguments: int) -> int:
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied")
        return really_open(file, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", refuse)  # as root, who may read all, runs tests too
    outcome = call("check", path)
    check_refusal(outcome, str(path))
    assert f"{name}: this file cannot be read: Permission denied" in outcome.err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("costs.json", b"[" * 4_000_000, "nested too deeply"),
        ("config.json", b'{"a":' * 150_000, "nested too deeply"),
        ("g.json", b'{"nodes": [' + b"[" * 9_000_000, "nested too deeply"),
        ("costs.json", b"9" * 4_000_000, "must be one JSON object"),
        ("config.json", b"9" * 900_000, "this file holds not a finite number"),
        ("g.graphml", b"<a " + b"".join(b'a%d="" ' % i for i in range(50_000)) + b"/>", "holds no <graph>"),
        ("g.graphml", b"<a>" * 3_000_000, "within each other"),
        ("g.graphml", b"<!DOCTYPE a [<!ENTITY b 'b'>]><a>&b;</a>", "a document type is declared here"),
        ("flows.csv", b"source,destination,size_bytes\n" + b"0" * 30_000_000, "line 2: this line is longer"),
        ("loads.csv", b"expert,load," * 3_000_000, "line 1: this line is longer"),
        (
            "flows.csv",
            b'source,destination,size_bytes\n0,1,"' + b"5\n" * 5_000_000,
            "line 2: a quote in this line",
        ),
        ("table.txt", b"8 " * 3_000_000, "line 1: a row before the line"),
    ],
)
def test_files_without_end_are_refused(
    tmp_path: Path, kinds: dict[str, Kind], name: str, content: bytes, words: str
) -> None:
    path = _scenario(tmp_path, kinds[name])
    (tmp_path / name).write_bytes(content)
    outcome = call("check", path)
    check_refusal(outcome, str(path))
    check_file_is_named(outcome.err, name)
    assert words in outcome.err
