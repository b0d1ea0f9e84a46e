"""What fields come to on a cluster, and how they may not fit: the field, its line and what would do."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulator import load_scenario
from simulator.input_error import InputError
from support.command_line import railplane
from support.inference_steps import build, dense_model, plan
from support.training_steps import model

DECODE = """name: decode
seed: 1
cluster:
  node: h800
  nodes: 4
  topology: {kind: multi-plane-fat-tree, planes: 8}
model: deepseek-v3
workload:
  kind: decode-step
  expert_parallel: 32
  tensor_parallel: 1
  batch_per_gpu: 64
  cached_tokens: 4096
costs: roofline
"""
PREFILL = (
    DECODE.replace("decode-step", "prefill-step")
    .replace("batch_per_gpu: 64", "prompt_tokens: 4096")
    .replace("cached_tokens: 4096", "tokens_per_gpu: 16384")
)
NVL72 = (
    DECODE.replace("node: h800", "node: gb200-nvl72")
    .replace("nodes: 4", "nodes: 1")
    .replace("multi-plane-fat-tree, planes: 8", "none")
    .replace("expert_parallel: 32", "expert_parallel: 72")
)
EXPERTS, TENSOR, BATCH, CACHED = (
    "expert_parallel: 32",
    "tensor_parallel: 1",
    "batch_per_gpu: 64",
    "cached_tokens: 4096",
)
PROMPT, TOKENS = "prompt_tokens: 4096", "tokens_per_gpu: 16384"

# name -> (what a file has, {old: new}, the line and the field below workload, what the message says, a pattern)
WRONG = {
    # what does not fit into memory: amounts, and how many would
    "a batch that cannot fit": (DECODE, {BATCH: "batch_per_gpu: 1024"}, 12, "batch_per_gpu",
        r"needs 351\.9 GB and has 84\.94 GB: expert weights 20\.44 GB, .*kv cache 294\.8 GB.*; at most 146 requests"),
    "weights that cannot fit": (DECODE, {EXPERTS: "expert_parallel: 8"}, 12, "batch_per_gpu",
        r"expert weights 81\.76 GB.*not one request .* fits: divide the model over more ranks"),
    "the largest of none": (DECODE, {EXPERTS: "expert_parallel: 8", BATCH: "batch_per_gpu: largest"}, 12,
        "batch_per_gpu", "not one request .* fits"),
    "prompts that cannot fit": (PREFILL, {TOKENS: "tokens_per_gpu: 1048576"}, 13, "tokens_per_gpu",
        r"needs .* GB and has 84\.94 GB: .*kv cache.*; use fewer tokens"),
    # the model's context
    "beyond the context": (DECODE, {CACHED: "cached_tokens: 163840"}, 13, "cached_tokens", "use at most 163,839"),
    "beyond it with a draft": (DECODE, {CACHED: "cached_tokens: 163839\n  mtp_acceptance: 0.8"}, 13, "cached_tokens",
        "use at most 163,838"),
    "some beyond the context": (DECODE, {CACHED: "cached_tokens: {kind: uniform, least: 0, most: 163840}"}, 13,
        "cached_tokens.most", "use at most 163,839"),
    "a mean beyond the context": (DECODE, {CACHED: "cached_tokens: {kind: lognormal, mean: 200000, sigma: 1}"}, 13,
        "cached_tokens.mean", "use at most 163,839"),
    "a prompt beyond the context": (PREFILL, {PROMPT: "prompt_tokens: 163841"}, 12, "prompt_tokens",
        "use at most 163,840"),
    # distributions
    "fewer than the fewest": (DECODE, {CACHED: "cached_tokens: {kind: uniform, least: 9, most: 8}"}, 13,
        "cached_tokens.most", "at least the fewest, 9, not 8"),
    "a negative deviation": (DECODE, {CACHED: "cached_tokens: {kind: lognormal, mean: 9, sigma: -1}"}, 13,
        "cached_tokens.sigma", "must be at least 0, not -1"),
    "half a distribution": (DECODE, {CACHED: "cached_tokens: {kind: uniform, least: 9}"}, 13, "cached_tokens.most",
        "this field is missing"),
    "an unknown distribution": (DECODE, {CACHED: "cached_tokens: {kind: normal, mean: 9}"}, 13, "cached_tokens.kind",
        "known are uniform, lognormal"),
    "a distribution of no kind": (DECODE, {CACHED: "cached_tokens: {mean: 9}"}, 13, "cached_tokens.kind",
        "add it: one of uniform, lognormal"),
    "negative cached tokens": (DECODE, {CACHED: "cached_tokens: -1"}, 13, "cached_tokens", "at least 0, not -1"),
    "cached tokens in words": (DECODE, {CACHED: "cached_tokens: many"}, 13, "cached_tokens",
        "a whole number or a mapping of fields, not the text 'many'"),
    # drafts
    "accepted more than all": (DECODE, {CACHED: CACHED + "\n  mtp_acceptance: 1.2"}, 14, "mtp_acceptance",
        "must be at most 1, not 1.2"),
    "accepted less than none": (DECODE, {CACHED: CACHED + "\n  mtp_acceptance: -0.1"}, 14, "mtp_acceptance",
        "must be at least 0, not -0.1"),
    "accepted in per cent": (DECODE, {CACHED: CACHED + "\n  mtp_acceptance: 80%"}, 14, "mtp_acceptance",
        "expected a number, not the text '80%'"),
    "a draft without a module": (DECODE, {CACHED: CACHED + "\n  mtp_acceptance: 0.8", "deepseek-v3": "deepseek-v2"},
        14, "mtp_acceptance", "deepseek-v2 has no MTP module .* leave mtp_acceptance out"),
    # tensor parallelism
    "degrees that do not divide heads": (NVL72, {TENSOR: "tensor_parallel: 9"}, 11, "tensor_parallel",
        "128 query heads do not divide over 9 .* use a divisor"),
    "heads of a dense model": (NVL72, {TENSOR: "tensor_parallel: 24", "expert_parallel: 72": "expert_parallel: 1",
        "deepseek-v3": "qwen-2.5-72b"}, 11, "tensor_parallel", "64 query heads do not divide over 24"),
    "heads in the limit's mode": (NVL72, {TENSOR: "tensor_parallel: 9\n  limit: true"}, 11, "tensor_parallel",
        "128 query heads"),
    "degrees that do not divide a node": (DECODE, {TENSOR: "tensor_parallel: 16"}, 11, "tensor_parallel",
        "does not divide the 8 GPUs of a node; 1, 2, 4, 8 would do"),
    "degrees that do not divide each other": (NVL72, {TENSOR: "tensor_parallel: 8",
        "expert_parallel: 72": "expert_parallel: 12"}, 11, "tensor_parallel", "use a divisor or a multiple of 12"),
    # expert parallelism
    "experts of a dense model": (DECODE, {"deepseek-v3": "qwen-2.5-72b"}, 10, "expert_parallel",
        "qwen-2.5-72b has no experts .* leave expert_parallel out"),
    "more ranks than there are": (DECODE, {EXPERTS: "expert_parallel: 64"}, 10, "expert_parallel",
        "needs 64 ranks, and the cluster has 32; on 32 ranks these work: 1, 2, 4, 8, 16, 32"),
    "ranks that do not divide": (DECODE, {EXPERTS: "expert_parallel: 24"}, 10, "expert_parallel",
        "does not divide the 32 ranks .* these work: 1, 2, 4, 8, 16, 32"),
    "parts of nodes": (DECODE, {EXPERTS: "expert_parallel: 12", "nodes: 4": "nodes: 3"}, 10, "expert_parallel",
        "neither divides a node of 8 GPUs nor .* on 24 ranks these work: 1, 2, 4, 8, 24"),
    "copies that do not divide": (DECODE, {EXPERTS: EXPERTS + "\n  redundant_experts: 5"}, 11, "redundant_experts",
        "256 experts and 5 copies do not divide over 32 ranks; write auto, or 0"),
    "more experts than groups hold": (DECODE, {EXPERTS: EXPERTS + "\n  experts_per_token: 300"}, 11,
        "experts_per_token", "hold 128; keep more groups or use fewer"),
    "a gate's file that is missing": (DECODE, {EXPERTS: EXPERTS + "\n  gate: {kind: file, path: x.csv}"}, 11,
        "gate.path", "there is no such file"),
    "copies in the limit's mode": (DECODE, {EXPERTS: EXPERTS + "\n  redundant_experts: 5\n  limit: true"}, 11,
        "redundant_experts", "write auto"),
    # batches
    "an odd batch": (DECODE, {BATCH: "batch_per_gpu: 63"}, 12, "batch_per_gpu",
        "63 requests .* 2 micro-batches; use 62 or 64, or micro_batches: 1"),
    "one request in two": (DECODE, {BATCH: "batch_per_gpu: 1"}, 12, "batch_per_gpu", "use 2, or micro_batches: 1"),
    "an odd batch that cannot fit either": (DECODE, {BATCH: "batch_per_gpu: 9999"}, 12, "batch_per_gpu",
        "use 9998 or 10000"),
    "no request": (DECODE, {BATCH: "batch_per_gpu: 0"}, 12, "batch_per_gpu", "at least 1, not 0"),
    "a batch in words": (DECODE, {BATCH: "batch_per_gpu: most"}, 12, "batch_per_gpu",
        "a whole number or 'largest', not the text 'most'"),
    "three micro-batches": (DECODE, {BATCH: "micro_batches: 3\n  " + BATCH}, 12, "micro_batches",
        "expected 1 or 2, not 3"),
    "prompts that do not divide": (PREFILL, {TOKENS: "tokens_per_gpu: 10000"}, 13, "tokens_per_gpu",
        "10,000 tokens a GPU.* prompts of 4,096 tokens .* 8,192 or 16,384 would do"),
    "prompts of a group that do not divide": (PREFILL, {TOKENS: "tokens_per_gpu: 16000",
        TENSOR: "tensor_parallel: 4"}, 13, "tokens_per_gpu", "groups of 4, .*; 14,336 or 16,384 would do"),
    "less than a prompt": (PREFILL, {TOKENS: "tokens_per_gpu: 4096"}, 13, "tokens_per_gpu", "; 8,192 would do"),
    # the rest
    "communication on most SMs": (PREFILL, {TOKENS: TOKENS + "\n  communication_sms: 67"}, 14, "communication_sms",
        "67 of the 132 SMs"),
    "NICs that do not meet": (DECODE, {CACHED: CACHED + "\n  intra_node: rdma"}, 14, "intra_node", "write nvlink"),
    "overhead without a unit": (DECODE, {CACHED: CACHED + "\n  framework_overhead: 1"}, 14, "framework_overhead",
        "1 has no unit"),
    "the limit of a dense model": (DECODE, {CACHED: CACHED + "\n  limit: true", "deepseek-v3": "qwen-2.5-72b",
        EXPERTS: "expert_parallel: 1"}, 14, "limit", "qwen-2.5-72b has no experts"),
    "the limit of one rank": (DECODE, {CACHED: CACHED + "\n  limit: true", EXPERTS: "expert_parallel: 1"}, 10,
        "expert_parallel", "write over how many ranks"),
    "the limit of what fits": (DECODE, {CACHED: CACHED + "\n  limit: true", BATCH: "batch_per_gpu: largest"}, 12,
        "batch_per_gpu", "write how many requests"),
    "the limit of prefill": (PREFILL, {TOKENS: TOKENS + "\n  limit: true"}, 14, "limit", "unknown field 'limit'"),
}  # fmt: skip


def written(folder: Path, text: str, changes: dict[str, str]) -> Path:
    for old, new in changes.items():
        assert text.count(old) == 1, "the test would change something else"
        text = text.replace(old, new)
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named_with_its_line(tmp_path, case):
    text, changes, line, field, message = WRONG[case]
    path = written(tmp_path, text, changes)
    with pytest.raises(InputError) as caught:
        load_scenario(path)
    error = caught.value
    assert (error.file, error.line, error.field) == (str(path), line, f"workload.{field}")
    assert re.search(message, error.message), error.message
    assert "more:" not in error.message


@pytest.mark.parametrize("text", [DECODE, PREFILL, NVL72])
def test_the_files_that_the_faults_are_made_from_are_good(tmp_path, text):
    assert load_scenario(written(tmp_path, text, {})).num_nodes in {1, 4}


@pytest.mark.parametrize("case", ["a batch that cannot fit", "beyond the context", "accepted more than all"])
@pytest.mark.parametrize("command", ["run", "check"])
def test_the_command_line_says_so_and_exits_with_2(tmp_path, monkeypatch, capsys, case, command):
    text, changes, line, field, message = WRONG[case]
    path = written(tmp_path, text, changes)
    assert railplane(monkeypatch, command, path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(rf":{line}: workload\.{field}: .*{message}", said), said


def test_what_the_message_says_fits_does(tmp_path):
    # 146 requests of the first case, and no two more; `largest` is as many
    good = load_scenario(written(tmp_path, DECODE, {BATCH: "batch_per_gpu: 146"}))
    assert good.scenario.workload.batch_per_gpu == 146
    with pytest.raises(InputError, match="at most 146 requests fit"):
        load_scenario(written(tmp_path, DECODE, {BATCH: "batch_per_gpu: 148"}))
    largest = load_scenario(written(tmp_path, DECODE, {BATCH: "batch_per_gpu: largest"}))
    assert largest.scenario.workload.batch_per_gpu == "largest"


def test_memory_may_be_put_aside(tmp_path):
    changes = {BATCH: "batch_per_gpu: 1024\n  ignore_memory: true"}
    assert load_scenario(written(tmp_path, DECODE, changes)).num_nodes == 4


@pytest.mark.parametrize(
    ("text", "changes", "near"),
    [
        (DECODE, {BATCH: "batch_per_gpu: 63"}, ("62", "64")),
        (PREFILL, {TOKENS: "tokens_per_gpu: 10000"}, ("8192", "16384")),
        (PREFILL, {TOKENS: "tokens_per_gpu: 16000", TENSOR: "tensor_parallel: 4"}, ("14336", "16384")),
    ],
)
def test_what_messages_say_would_do_does(tmp_path, text, changes, near):
    wrong = next(new for new in changes.values() if not new.startswith("tensor"))
    field, _, _ = wrong.partition(":")
    for value in near:
        fixed = {old: f"{field}: {value}" if new == wrong else new for old, new in changes.items()}
        assert load_scenario(written(tmp_path, text, fixed)).num_nodes == 4


def test_micro_batches_by_hand():
    # 8 requests of a GPU: 4 a micro-batch; a tensor-parallel pair works on both ranks' requests, each having its own
    # tokens elsewhere; a draft doubles tokens
    found = plan().batch
    assert (found.requests, found.query_tokens, found.own_tokens) == (4, 1, 4)
    pair = plan(tensor_parallel=2, mtp_acceptance=0.8).batch
    assert (pair.requests, pair.query_tokens, pair.own_tokens) == (8, 2, 8)
    whole = plan(micro_batches=1).batch
    assert (whole.requests, whole.own_tokens) == (8, 8)


def test_micro_batches_of_prefill_by_hand():
    # 32 tokens of a GPU are 4 prompts of 8: 2 a micro-batch. A pair with 8 tokens a GPU has two prompts, one a
    # micro-batch, and each rank 4 tokens of it; prompts of 3 do not divide, so that one rank has two of them.
    found = plan(kind="prefill-step").batch
    assert (found.requests, found.query_tokens, found.own_tokens) == (2, 8, 16)
    pair = plan(kind="prefill-step", tensor_parallel=2, tokens_per_gpu=8).batch
    assert (pair.requests, pair.query_tokens, pair.own_tokens) == (1, 8, 4)
    odd = plan(kind="prefill-step", tensor_parallel=2, prompt_tokens=3, tokens_per_gpu=3).batch
    assert (odd.requests, odd.query_tokens, odd.own_tokens) == (1, 3, 2)


def test_mtp_adds_its_module_to_layers_and_memory():
    alone, drafted = plan(), plan(mtp_acceptance=0.5)
    assert alone.layers == (0, 1, 2, 3)
    assert drafted.layers == (0, 1, 2, 3, 4)
    for part in ("expert_weights", "layer_weights", "kv_cache"):
        assert getattr(drafted.memory, part) > getattr(alone.memory, part)
    # of several modules one drafts the one token
    assert plan(of=model(num_mtp_layers=3), mtp_acceptance=0.5).layers == drafted.layers
    # the limit looks at neither
    assert plan(limit=True, mtp_acceptance=0.5).layers == alone.layers
    assert plan(limit=True).memory is None


def test_cached_tokens_are_those_of_the_ranks_that_have_most():
    rng = np.random.default_rng(3)
    assert plan().cached_tokens(rng) == 21.0
    assert plan(mtp_acceptance=0.5).cached_tokens(rng) == 22.0
    # 4 ranks and two micro-batches of 4 requests each: the largest of 8 means, the same draws written out
    drawn = plan(cached_tokens={"kind": "uniform", "least": 0, "most": 100})
    expected = np.random.default_rng(3).integers(0, 101, 32).reshape(8, 4).mean(axis=1).max() + 1
    assert drawn.cached_tokens(np.random.default_rng(3)) == expected
    assert 51 < expected <= 101


def test_experts_per_token_are_asked_for_of_kernels_and_memory_alike():
    usual, doubled = plan(kind="prefill-step"), plan(kind="prefill-step", experts_per_token=4)
    assert doubled.model.moe.experts_per_token == 2 * usual.model.moe.experts_per_token == 4
    assert replace(doubled.model, moe=usual.model.moe) == usual.model
    assert doubled.memory.working > usual.memory.working
    gates = [
        next(call for call in found.nominal_kernels(4).attention(1) if call.kind == "gate")
        for found in (usual, doubled)
    ]
    assert [gate.chosen for gate in gates] == [2, 4]


def test_rows_are_packed_by_dispatch_or_by_hand():
    # low-latency kernels deliver rows by expert; of one rank, which dispatches nothing, and of normal kernels, which
    # deliver each token once, they are packed before the products
    def kinds(found):
        return {call.kind for call in found.nominal_kernels(8).experts()}

    assert "pack" not in kinds(plan())
    assert {"pack", "reduce"} <= kinds(plan(expert_parallel=1))
    assert {"pack", "reduce"} <= kinds(plan(kind="prefill-step"))


def test_a_dense_model_has_no_experts_to_hold():
    found = plan(of=dense_model(), expert_parallel=1)
    assert found.memory.expert_weights == found.memory.communication_buffers == 0
    assert found.nominal_kernels(8).work.experts == 0


def test_a_check_is_all_that_a_build_needs():
    assert build().plan == plan()
    assert build(kind="prefill-step").plan == plan(kind="prefill-step")
