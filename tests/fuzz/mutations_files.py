"""Damage to the files that scenarios name: tables, graphs, JSON, and what nccl-tests printed."""

import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.mutations import misspelt
from fuzz.mutations_bytes import raw
from simulator import costs
from support.tiny_scenarios import nccl_text

_ODD: Final = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "1e3",
        "0.5",
        "-0.0",
        "1e400",
        "1e-400",
        "9" * 30,
        "9" * 700,
        "9" * 5000,
        "NaN",
        "Infinity",
    ),
    *(
        "-Infinity",
        "nan",
        "inf",
        "true",
        "null",
        '""',
        '"x"',
        '"8"',
        '"0"',
        "[]",
        "{}",
        "[1]",
        '{"a": 1}',
        "01",
        "1.",
        "+1",
    ),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"café"',
        '"\u202e"',
        '"' + "x" * 5000 + '"',
        "[" * 2000 + "]" * 2000,
        "'x'",
        "x",
        '"x',
        "1 2",
    ),
    *(
        '"1 us"',
        '"-1 us"',
        '"5 parsecs"',
        '"1e400 s"',
        "\uff11",
        "0x10",
        "1_000",
        str(2**31),
        str(2**63),
        str(2**64),
        "18",
    ),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file that scenarios name.

    name: what it is called; content: a good one; scenario: the fields that name it, and those that it needs;
    damage: done to its structure
    """

    name: str
    content: bytes
    scenario: str
    damage: Callable[[bytes, random.Random], bytes]


def damaged(kind: Kind, rng: random.Random) -> bytes:
    """Return the content of a file, damaged in its structure or its bytes."""
    content = kind.content
    for _ in range(rng.choice((1, 1, 2))):
        content = raw(content, rng) if rng.random() < 0.4 else kind.damage(content, rng)
    return content


def _json(content: bytes, rng: random.Random) -> bytes:
    """Change a value, leave one out, write a key twice or misspell it."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):  # damaged before
        return raw(content, rng)
    holder, key = rng.choice(_json_places(data) or [([data], 0)])
    texts: dict[str, str] = {}
    match rng.randrange(6):
        case 0 | 1 | 2:
            holder[key] = "@odd@"
            texts['"@odd@"'] = rng.choice(_ODD)
        case 3:
            del holder[key]
        case 4 if isinstance(key, str):
            texts[json.dumps(key) + ":"] = f"{json.dumps(key)}: 5, {json.dumps(key)}:"
        case 5 if isinstance(key, str):
            name = misspelt(key, rng)
            holder[name] = holder.pop(key)
        case _:
            holder[key] = [holder[key]]
    text = json.dumps(data, indent=1)
    for old, new in texts.items():
        text = text.replace(old, new, 1)
    return text.encode("utf-8", "surrogatepass")


def _json_places(data: Any) -> list[tuple[Any, Any]]:
    keys = data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    here = [(data, key) for key in keys]
    return here + [place for _, key in here for place in _json_places(data[key])]


def _cells(content: bytes, rng: random.Random) -> bytes:
    """Change, leave out or add a cell of a CSV, a row, or a column's name."""
    rows = [line.split(",") for line in content.decode(errors="replace").splitlines()] or [[""]]
    row = rng.choice((rows[0], rng.choice(rows)))
    at = rng.randrange(len(row)) if row else 0
    cells = (
        *_ODD,
        "node0/gpu1",
        "node9/gpu9",
        "-0",
        '"1"',
        '"1',
        'a"b',
        " ",
        "",
        "\t1",
        "1\r2",
        "=1+1",
        ";",
        "|",
        "x" * 200_000,
    )
    match rng.randrange(6):
        case 0 | 1 | 2 if row:
            row[at] = rng.choice(cells)
        case 3:
            row.insert(at, rng.choice(cells))
        case 4:
            del row[at : at + 1]
        case _:
            rows.insert(rng.randint(0, len(rows)), list(rng.choice(rows)))
    return ("\n".join(map(",".join, rows)) + "\n").encode("utf-8", "surrogatepass")


def _columns(content: bytes, rng: random.Random) -> bytes:
    """Change the type of a Parquet file's column, its name, or what it holds; leave it out, or write it twice."""
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError):  # damaged before
        return raw(content, rng)
    names, columns = list(table.column_names), list(table.columns)
    at, num_rows = rng.randrange(len(names)), len(table)
    match rng.randrange(5):
        case 0 | 1:
            columns[at] = rng.choice(_COLUMNS)(num_rows)
        case 2:
            names[at] = misspelt(names[at], rng)
        case 3:
            del names[at], columns[at]
        case _:
            names.append(names[at])
            columns.append(columns[at])
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, names=names), stream, compression=rng.choice(("none", "snappy", "zstd")))
    return stream.getvalue()


_COLUMNS: Final[tuple[Callable[[int], Any], ...]] = (
    pa.nulls,
    lambda n: pa.array([None, *range(n - 1)], pa.int64()),
    lambda n: pa.array([[1]] * n),
    lambda n: pa.array([{"a": 1}] * n),
    lambda n: pa.array([True] * n),
    lambda n: pa.array([b"1"] * n),
    lambda n: pa.array(["1"] * n).dictionary_encode(),
    lambda n: pa.array(["x" * 1000] * n),
    lambda n: pa.array([""] * n),
    lambda n: pa.array([float("nan")] * n),
    lambda n: pa.array([1e300] * n),
    lambda n: pa.array(range(n), pa.uint64()),
    lambda n: pa.array([2**64 - 1] * n, pa.uint64()),
    lambda n: pa.array([-(2**63)] * n, pa.int64()),
    lambda n: pa.array(range(n), pa.timestamp("us")),
    lambda n: pa.array(range(n), pa.decimal128(9)),
    lambda n: pa.array(np.arange(n, dtype=np.float16)),
    lambda n: pa.array(range(n), pa.date32()),
    lambda n: pa.array([0.5] * n),
)


def _tags(content: bytes, rng: random.Random) -> bytes:
    """Change, move, repeat or leave out an element of XML, a value in it or an attribute's."""
    text = content.decode(errors="replace")
    odd = rng.choice(
        (*_ODD, "nic", "gpu", "switch", "node9/gpu9", "&lt;", "&x;", "<!--", "]]>", "<data/>", "<graph/>")
    )
    pieces = rng.choice(
        (r">[^<>]+<", r'"[^"<>]*"', r"<[^<>]+>", r"<(node|edge|data|key)[ >].*?</\1>", r"[a-z.]+=")
    )
    found = list(re.finditer(pieces, text, re.DOTALL))
    if not found:
        return raw(content, rng)
    piece = rng.choice(found)
    new = piece.group() * 2 if rng.random() < 0.3 else ""
    if pieces.startswith((">", '"')):
        new = piece.group()[0] + odd + piece.group()[-1]
    return (text[: piece.start()] + new + text[piece.end() :]).encode("utf-8", "surrogatepass")


def _words(content: bytes, rng: random.Random) -> bytes:
    """Change, repeat or leave out a word of a table that nccl-tests printed."""
    text = content.decode(errors="replace")
    found = list(re.finditer(r"\S+", text))
    if not found:
        return raw(content, rng)
    word = rng.choice(found)
    new = rng.choice(("", word.group() + " " + word.group(), rng.choice(_ODD), "#", "-1", "0", "1.5"))
    return (text[: word.start()] + new + text[word.end() :]).encode("utf-8", "surrogatepass")


def _parquet(**columns: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


_TREE: Final = "cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}\n"
_EXCHANGE: Final = (
    _TREE + "model: small.json\n"
    "workload:\n  kind: expert-parallel\n  expert_parallel: 16\n  tokens_per_rank: 4\n"
)
_GATHER: Final = "workload: {{kind: collective, operation: all-gather, size: 1 MB}}\n"
_GATE: Final = f"{_EXCHANGE}  gate:\n    kind: file\n    path: "


def file_kinds(graphs: Path, model: dict[str, Any]) -> dict[str, Kind]:
    """Return every kind of file; graphs: a folder that holds a graph as `g.graphml` and `g.json`; model: a config."""
    table = json.loads((Path(costs.__file__).parent / "kernel_costs" / "ideal.json").read_text())
    as_json = {"config": model, "costs": table}
    config, cost_table = (json.dumps(data, indent=1).encode() for data in as_json.values())
    graph = "cluster:\n  node: h800\n  topology:\n    kind: custom\n    path: {}\n" + _GATHER
    loads = [(number * 7) % 13 + 1 for number in range(64)]
    decisions = {f"expert_{choice}": [(row * 5 + choice) % 64 for row in range(40)] for choice in range(8)}
    lines = ["source,destination,size_bytes,start_s", "0,9,1e6,0", "node0/gpu3,node1/gpu2,5,0.001", "4,5,0,1"]
    listed = "\n".join(["expert,load", *(f"{number},{load}" for number, load in enumerate(loads))])
    flows = f"{_TREE}workload:\n  kind: flows\n  path: "
    return {
        "flows.csv": Kind("flows.csv", "\n".join([*lines, ""]).encode(), f"{flows}flows.csv\n", _cells),
        "flows.parquet": Kind(
            "flows.parquet",
            _parquet(
                source=["0", "node0/gpu3", "4"],
                destination=[9, 10, 5],
                size_bytes=[1e6, 5.0, 0.0],
                start_s=[0, 1, 2],
            ),
            f"{flows}flows.parquet\n",
            _columns,
        ),
        "loads.csv": Kind("loads.csv", f"{listed}\n".encode(), f"{_GATE}loads.csv\n", _cells),
        "loads.parquet": Kind(
            "loads.parquet", _parquet(expert=range(64), load=loads), f"{_GATE}loads.parquet\n", _columns
        ),
        "decisions.parquet": Kind(
            "decisions.parquet", _parquet(**decisions), f"{_GATE}decisions.parquet\n", _columns
        ),
        "config.json": Kind("config.json", config, _EXCHANGE.replace("small.json", "config.json"), _json),
        "costs.json": Kind("costs.json", cost_table, f"{_EXCHANGE}costs: costs.json\n", _json),
        "g.json": Kind("g.json", (graphs / "g.json").read_bytes(), graph.format("g.json"), _json),
        "g.graphml": Kind("g.graphml", (graphs / "g.graphml").read_bytes(), graph.format("g.graphml"), _tags),
        "table.txt": Kind(
            "table.txt",
            nccl_text(16).encode(),
            f"{_TREE}workload:\n  kind: nccl-tests\n  path: table.txt\n",
            _words,
        ),
    }
