import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.result import Result
from support.command_line import railplane

SMALL = """\
name: small
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
model: deepseek-v3
workload: {kind: expert-parallel, tokens_per_rank: 64, expert_parallel: 16}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a result, and the scenario beside it."""
    work = tmp_path_factory.mktemp("written")
    (work / "small.yaml").write_text(SMALL)
    with pytest.MonkeyPatch.context() as patch:
        assert railplane(patch, "run", work / "small.yaml", "--out", work / "deep" / "results") == 0
    return work / "deep" / "results"


def test_json_keeps_the_contract(monkeypatch, capsys, small):
    assert railplane(monkeypatch, "run", small, "--json") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1  # one object, nothing else
    summary = json.loads(captured.out)
    assert summary["scenario"] == "small"
    assert set(summary["breakdown_s"]) == {"dispatch", "combine"}
    assert sum(summary["breakdown_s"].values()) == pytest.approx(summary["step_time_s"], abs=1e-9)
    assert {
        "dispatch_s", "combine_s", "dispatch_logical_bytes_per_s", "combine_logical_bytes_per_s",
        "dispatch_wire_bytes_per_s", "combine_wire_bytes_per_s",
    } <= set(summary["metrics"])  # fmt: skip
    assert set(summary["links"]) == {"nvlink", "pcie", "pcie_nic", "pcie_host", "nic", "leaf_spine"}
    for kind in summary["links"].values():
        assert set(kind) == {"mean_utilisation", "peak_utilisation", "saturated_fraction", "bytes", "count"}
        assert 0 <= kind["mean_utilisation"] <= kind["peak_utilisation"] <= 1
        assert 0 <= kind["saturated_fraction"] <= 1
    provenance = summary["provenance"]
    assert set(provenance) == {"version", "seed", "scenario_sha256", "files", "cost_sources", "assumptions"}
    assert provenance["cost_sources"]["link_efficiency.nvlink"].startswith("published: ")
    assert provenance["assumptions"]


def test_the_report_names_step_parts_and_busiest_links(monkeypatch, capsys, small):
    assert railplane(monkeypatch, "run", small) == 0
    text = capsys.readouterr().out
    for part in (
        "Step time",
        "dispatch",
        "combine",
        "Utilisation by link kind",
        "Busiest links",
        "plane",
        "Assumptions",
    ):
        assert part in text


def test_out_holds_what_it_promises_and_loads_again(monkeypatch, capsys, small, written):
    assert railplane(monkeypatch, "run", small, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    out = written
    tables = {"tasks.parquet", "phases.parquet", "flows.parquet", "links.parquet", "link_timeline.parquet"}
    pictures = {"overview", "network_load", "gpu_links", "utilisation_map", "utilisation_lines"}
    assert {path.name for path in out.iterdir()} == tables | {
        f"{picture}.{kind}" for picture in pictures for kind in ("png", "svg")
    } | {"summary.json", "scenario.yaml", "trace.json", "report.html", "files.json", ".railplane"}  # fmt: skip
    result = Result.load(out)
    assert result.summary == summary
    # 16 ranks send to their own node (the 7 others there) and to the other node, in dispatch and in combine.
    assert len(result.flows) == 2 * 16 * 2
    assert set(result.tasks["name"]) == {"dispatch", "combine"}
    assert result.tasks["end_s"].max() == pytest.approx(result.step_time_s)
    # The timeline holds every byte of every link.
    by_link = result.link_timeline.groupby("link")["bytes"].sum()
    used = result.links.set_index("link")["bytes"]
    assert by_link.to_dict() == pytest.approx(used[used > 0].to_dict(), rel=1e-9)
    # The scenario as resolved runs again to the same result.
    assert railplane(monkeypatch, "run", out / "scenario.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out) == summary


TRAINING = """\
name: training
cluster: {node: h800, nodes: 2, topology: {kind: multi-plane-fat-tree}}
model: deepseek-v3
workload:
  {kind: training-step, pipeline_parallel: 2, expert_parallel: 8, schedule: zb1p, sequences_per_step: 16,
   sequence_length: 64, ignore_memory: true}
"""


def test_a_training_step_is_drawn_and_told_by_pipeline_rank(monkeypatch, capsys, tmp_path):
    path, out = tmp_path / "training.yaml", tmp_path / "out"
    path.write_text(TRAINING)
    assert railplane(monkeypatch, "run", path, "--out", out) == 0
    text = capsys.readouterr().out
    assert "Pipeline ranks, mean over their groups" in text
    assert "Memory of a GPU" in text
    assert (out / "schedule.png").read_bytes().startswith(b"\x89PNG")
    result = Result.load(out)
    # each rank runs forward, backward for inputs and weight part of two micro-batches, on one fold of eight
    counts = result.phases["kind"].value_counts()
    assert counts[["forward", "backward-input", "weight"]].tolist() == [2 * 2, 2 * 2, 2 * 2]
    assert set(result.phases["ranks"]) == {8}
    events = json.loads((out / "trace.json").read_text())["traceEvents"]
    rows = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert {"ranks 0-7 phases", "ranks 0-7 compute", "ranks 8-15 communication", "ranks 0-7 sends"} <= rows
    # the tables of the summary say of each pipeline rank what the breakdown says of their mean
    ranks, breakdown_s = result.summary["pipeline_ranks"], result.summary["breakdown_s"]
    for part, seconds in breakdown_s.items():
        assert sum(row[f"{part}_s"] for row in ranks) / 2 == pytest.approx(seconds)
    assert max(row["total_bytes"] for row in result.summary["memory"]) == pytest.approx(
        result.summary["metrics"]["memory_bytes_per_gpu"]
    )


def test_set_overrides_a_field(monkeypatch, capsys, small):
    assert (
        railplane(
            monkeypatch, "run", small, "--set", "workload.tokens_per_rank=8", "--set", "seed=3", "--json"
        )
        == 0
    )
    provenance = json.loads(capsys.readouterr().out)["provenance"]
    assert provenance["seed"] == 3


def test_check_says_which_are_good(monkeypatch, capsys, small, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(SMALL.replace("nodes: 2", "nodez: 2"))
    assert railplane(monkeypatch, "check", small, bad) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{small}: small: good; 2 nodes, 16 GPUs\n"
    assert captured.err.startswith(f"{bad}:2: cluster.nodez: unknown field 'nodez'; did you mean 'nodes'?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "{small}", "--set", "cluster.nodes=0"], "--set cluster.nodes=0"),
        (["run", "{small}", "--set", "workload.expert_parallel=512"], "--set workload.expert_parallel=512"),
        (["run", "{small}", "--set", "costs=nonsense"], "--set costs=nonsense"),
        (
            ["run", "{small}", "--set", "cluster.node=gb200-nvl72", "--set", "cluster.topology.planes=8"],
            "the cost table 'h800-published' is for hopper GPUs, the cluster's are blackwell",
        ),
        (["run", "{small}", "--out", "{small}"], "--out names a file"),
        (["model", "gpt-5"], "gpt-5"),
        (["model", "."], "."),
    ],
)
def test_bad_input_gives_one_message_and_status_2(monkeypatch, capsys, small, arguments, message):
    arguments = [argument.format(small=small) for argument in arguments]
    assert railplane(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert message in captured.err


def test_a_folder_that_cannot_be_made_is_told_before_the_run(monkeypatch, capsys, small):
    monkeypatch.setattr("simulator.run.simulate", lambda *_: pytest.fail("it ran"))
    assert railplane(monkeypatch, "run", small, "--out", small / "deep") == 2
    assert capsys.readouterr().err == f"{small}/deep: cannot write there: Not a directory\n"


def test_a_scenario_is_not_written_over(monkeypatch, capsys, tmp_path):
    path = tmp_path / "scenario.yaml"
    path.write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    assert railplane(monkeypatch, "run", path, "--out", ".") == 2
    assert "over the scenario's own file" in capsys.readouterr().err
    assert path.read_text() == SMALL


def test_a_file_that_cannot_be_written_is_named(monkeypatch, capsys, small, tmp_path):
    (tmp_path / "out" / "overview.svg").mkdir(parents=True)
    assert railplane(monkeypatch, "run", small, "--out", tmp_path / "out") == 2
    message = f"{tmp_path}/out/overview.svg: cannot write there: Is a directory; nothing was written\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("arguments", [["run"], ["walk"], ["run", "x.yaml", "--json=1"]])
def test_bad_usage_is_status_2(monkeypatch, capsys, arguments):
    assert railplane(monkeypatch, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_model_prints_its_metrics(monkeypatch, capsys):
    assert railplane(monkeypatch, "model", "deepseek-v3", "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["kv_cache_bytes_per_token"] == 70272
    assert railplane(monkeypatch, "model", "deepseek-v3") == 0
    assert "routed experts" in capsys.readouterr().out


def test_schema_is_json(monkeypatch, capsys):
    assert railplane(monkeypatch, "schema") == 0
    assert json.loads(capsys.readouterr().out)["title"] == "railplane scenario"


def test_version(monkeypatch, capsys):
    assert railplane(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("railplane 0.")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_process_with_another_hash_seed_writes_the_same_bytes(written, small, tmp_path):
    there = tmp_path / "there"
    command = [sys.executable, "-m", "simulator.cli", "run", str(small), "--out", str(there)]
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": other_seed})
    assert digests(written) == digests(there)
    assert {"summary.json", "trace.json", "report.html", "overview.svg"} <= set(digests(there))


def test_the_order_of_keys_changes_nothing_but_the_resolved_text(monkeypatch, capsys, small, tmp_path):
    turned = tmp_path / "turned.yaml"
    lines = SMALL.splitlines()
    turned.write_text(
        "\n".join(reversed(lines)).replace(
            "tokens_per_rank: 64, expert_parallel: 16", "expert_parallel: 16, tokens_per_rank: 64"
        )
    )
    summaries = []
    for path in (small, turned):
        assert railplane(monkeypatch, "run", path, "--json") == 0
        summaries.append(json.loads(capsys.readouterr().out))
    assert summaries[0] == summaries[1]
