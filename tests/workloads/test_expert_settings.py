"""Fields of workloads with experts: copies, groups, shared experts and balancing, and every fault of theirs named."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from simulator.layout import RankLayout
from simulator.units import FieldError
from workloads.expert_settings import ExpertSettings, with_shared
from workloads.models import load_model
from workloads.moe import ExpertGroups, count_traffic
from workloads.placement import place_in_blocks
from workloads.tasks import Setting
from workloads.top_k import TopK

FOLDER = Path()
DEEPSEEK_V3 = load_model("deepseek-v3", FOLDER)
GPUS_PER_NODE = 8


def setting(num_ranks, gpus_per_node=GPUS_PER_NODE, model=DEEPSEEK_V3):
    return Setting(model, num_ranks, gpus_per_node, FOLDER)


def fields(degree=16, **more):
    return ExpertSettings(expert_parallel=degree, **more)


@dataclass
class KnownLoads:
    """A source of which only earlier traffic is asked: [num_experts] the share of tokens that each expert got."""

    share: np.ndarray

    def history(self, num_tokens):
        return np.rint(num_tokens * self.share).astype(np.int64)


_POPULARITY = np.random.default_rng(3).lognormal(0, 1, 256)
SKEWED = KnownLoads(8 * _POPULARITY / _POPULARITY.sum())
EQUAL = KnownLoads(np.full(256, 8 / 256))


def open_layer(settings, source=None):
    """The experts of a layer, where they lie, and the source of tokens' experts, on one group of ranks."""
    case = setting(settings.expert_parallel)
    settings.check_experts(case, 32)
    experts = settings.experts(case)
    source = source or settings.gate.open(experts.top_k, np.random.default_rng(1), FOLDER)
    return experts, settings.place(experts, source, settings.num_slots(case)), source


def count(settings, num_tokens):
    """The traffic of one group of ranks of so many tokens each, and how many tokens that are."""
    degree = settings.expert_parallel
    experts, placement, source = open_layer(settings)
    chosen = (
        with_shared(source.experts(num_tokens), experts.top_k.num_experts, experts.num_logical)
        for _ in range(degree)
    )
    layout = RankLayout.in_order(-(-degree // GPUS_PER_NODE), min(degree, GPUS_PER_NODE))
    (traffic,) = count_traffic(chosen, [placement], ExpertGroups.of_layout(layout, degree))
    return traffic, degree * num_tokens


def nodes_per_token(settings, num_tokens):
    """[num_tokens] on how many nodes the routed experts of a token lie, sought one by one."""
    _, placement, source = open_layer(settings)
    nodes = placement.place_of(source.experts(num_tokens), 0) // GPUS_PER_NODE
    return np.array([len(set(token)) for token in nodes.tolist()])


def test_the_model_s_own_experts():
    # DeepSeek-V3: 8 of 256 routed experts in 4 of 8 groups, and a shared one, which is local.
    experts = fields().experts(setting(16))
    assert experts.top_k == TopK(num_experts=256, top_k=8, num_groups=8, groups_kept=4)
    assert (experts.num_logical, experts.num_physical) == (256, 256)
    assert experts.experts_per_token == 8


@pytest.mark.parametrize(
    ("degree", "copies"),
    # 256 experts on 72 ranks: four each are 288. On 144: two each are 288. On 320: one each.
    [(1, 0), (8, 0), (64, 0), (256, 0), (72, 32), (144, 32), (320, 64), (48, 32), (24, 8)],
)
def test_auto_gives_the_fewest_copies(degree, copies):
    settings = fields(degree)
    settings.check_experts(setting(degree), 1)
    experts = settings.experts(setting(degree))
    assert experts.num_redundant == copies
    assert experts.num_physical % degree == 0
    assert (experts.num_physical - degree) < 256 <= experts.num_physical


@pytest.mark.parametrize(
    ("degree", "copies", "least"), [(72, 33, 32), (144, 31, 32), (320, 0, 64), (16, 1, 0)]
)
def test_copies_that_do_not_divide_are_named_with_what_does(degree, copies, least):
    message = (
        f"256 experts and {copies} copies do not divide over {degree} ranks; "
        f"write auto, or {least} or that and a multiple of {degree} more"
    )
    with pytest.raises(FieldError, match=message) as caught:
        fields(degree, redundant_experts=copies).check_experts(setting(degree), 1)
    assert caught.value.field == "redundant_experts"
    for remedy in (least, least + degree, least + 3 * degree):
        fields(degree, redundant_experts=remedy).check_experts(setting(degree), 1)
        assert fields(degree, redundant_experts=remedy).experts(setting(degree)).num_physical == 256 + remedy


def test_more_copies_than_places_are_refused():
    # On 2 ranks an expert has at most two copies: 256 redundant ones are all that make sense.
    fields(2, redundant_experts=256).check_experts(setting(2), 1)
    with pytest.raises(FieldError, match="258 copies are more than one of each expert on each of 2 ranks"):
        fields(2, redundant_experts=258).check_experts(setting(2), 1)


def test_shared_experts_follow_the_tokens_own():
    tokens = np.array([[3, 1], [0, 2]])
    assert with_shared(tokens, 4, 4).tolist() == [[3, 1], [0, 2]]
    assert with_shared(tokens, 4, 6).tolist() == [[3, 1, 4, 5], [0, 2, 4, 5]]


def test_every_token_goes_to_the_dispatched_shared_expert():
    # 257 experts on 64 ranks: 63 copies make five on each.
    settings = fields(64, shared_experts="dispatched")
    experts = settings.experts(setting(64))
    assert (experts.num_logical, experts.num_redundant, experts.experts_per_token) == (257, 63, 9)
    traffic, num_tokens = count(settings, 16)
    assert traffic.expert_load[0, 256] == num_tokens
    assert traffic.expert_load[0, :256].sum() == 8 * num_tokens
    assert traffic.place_load().sum() == traffic.pairs_to_rank.sum() == 9 * num_tokens
    # Forty slots on each node for 32 experts: each has a copy of the shared one, which take its tokens in turn.
    on_node = traffic.groups.slot_of_rank[settings.place_unbalanced(experts, 8).places[-8:]]
    assert on_node.tolist() == list(range(8))


@pytest.mark.parametrize("degree", [16, 64, 144, 320])
def test_nodes_are_the_groups_with_dispatched_shared_experts_too(degree):
    settings = fields(degree, shared_experts="dispatched", groups="nodes")
    experts, num_nodes = settings.experts(setting(degree)), degree // 8
    placement = settings.place_unbalanced(experts, num_nodes)
    group = np.repeat(np.arange(256) * num_nodes // 256, placement.copies[:256])
    node = placement.places[: placement.offsets[256]] // 8
    assert np.array_equal(node, group)


def test_the_shared_expert_of_a_file_of_decisions_has_the_load_of_its_rows(tmp_path):
    # Every token goes to experts 0 to 7 and to the shared one: all nine are equally loaded, and get copies alike.
    rows = [",".join(f"expert_{choice}" for choice in range(8))] + ["0,1,2,3,4,5,6,7"] * 1000
    (tmp_path / "gate.csv").write_text("\n".join(rows))
    settings = fields(
        16,
        shared_experts="dispatched",
        balance="eplb",
        redundant_experts=31,
        gate={"kind": "file", "path": "gate.csv"},
    )
    experts = settings.experts(setting(16))
    source = settings.gate.open(experts.top_k, np.random.default_rng(1), tmp_path)
    copies = settings.place(experts, source, 2).copies
    assert sorted(copies[[*range(8), 256]].tolist()) == [4] * 5 + [5] * 4


def test_local_shared_experts_move_nothing():
    traffic, num_tokens = count(fields(64), 16)
    assert traffic.expert_load.shape == (1, 256)
    assert traffic.pairs_to_rank.sum() == 8 * num_tokens


def test_balancing_gives_copies_to_the_shared_expert():
    # Every token goes to it, 1/32 of them to each other. With c copies a copy of it has 1/c of the tokens: it is the
    # hottest until c is 32, and takes 31 of the 63 redundant copies. Then all are alike, and the lowest come first.
    settings = fields(64, shared_experts="dispatched", balance="eplb")
    _, placement, _ = open_layer(settings, EQUAL)
    assert placement.copies.tolist() == [2] * 32 + [1] * 224 + [32]


@pytest.mark.parametrize(
    ("degree", "kept", "num_groups"), [(64, 4, 8), (64, 2, 8), (320, 4, 40), (144, 5, 18)]
)
def test_groups_nodes_makes_nodes_the_groups(degree, kept, num_groups):
    # At 320 ranks 40 nodes cannot hold equally many of 256 experts: groups are of 6 and 7.
    settings = fields(degree, groups="nodes", groups_kept=kept)
    experts, placement, _ = open_layer(settings)
    assert experts.top_k == TopK(256, 8, num_groups, kept)
    node_of_copy = placement.places // GPUS_PER_NODE
    group_of_expert = np.repeat(np.arange(num_groups), np.diff(experts.top_k.group_offsets()))
    assert np.array_equal(node_of_copy, np.repeat(group_of_expert, placement.copies))
    # So that no token crosses to more nodes than groups are kept. Most use all of them: eight experts in four groups
    # leave one out with probability at most 4 x (3/4) ** 8 = 0.4.
    nodes = nodes_per_token(settings, 2000)
    assert nodes.max() == kept
    assert (nodes == kept).mean() > 0.5


def test_without_a_limit_tokens_cross_to_more_nodes():
    # The model's 8 groups are 5 nodes each at 320 ranks: four groups do not hold a token to four nodes.
    assert nodes_per_token(fields(320), 200).max() > 4
    assert nodes_per_token(fields(64, groups=1), 200).max() > 4


@pytest.mark.parametrize(("degree", "num_groups"), [(8, 1), (4, 1), (16, 2), (32, 4), (24, 3)])
def test_groups_kept_above_the_number_of_nodes_is_all_of_them(degree, num_groups):
    for kept in (None, 4, 100):
        settings = fields(degree, groups="nodes", groups_kept=kept)
        settings.check_experts(setting(degree), 1)
        assert settings.experts(setting(degree)).top_k == TopK(256, 8, num_groups, min(num_groups, kept or 4))


def test_the_model_s_groups_kept_gives_way_to_fewer_groups():
    assert fields(groups=2).experts(setting(16)).top_k == TopK(256, 8, 2, 2)
    assert fields(groups=16).experts(setting(16)).top_k == TopK(256, 8, 16, 4)
    fields(groups=2).check_experts(setting(16), 1)


@pytest.mark.parametrize(
    ("more", "num_ranks", "field", "message"),
    [
        (
            {"degree": 64},
            32,
            "expert_parallel",
            r"needs 64 ranks, and the cluster has 32; .* 1, 2, 4, 8, 16, 32$",
        ),
        ({"degree": 64}, 96, "expert_parallel", r"does not divide the 96 ranks into groups; .* 48, 96$"),
        (
            {"groups": 7},
            32,
            "groups",
            "256 experts cannot form 7 groups of equal size; groups must divide 256",
        ),
        ({"groups": 512}, 32, "groups", "256 experts cannot form 512 groups of equal size"),
        ({"groups": "nodes", "degree": 2056}, 2056, "groups", "cannot form a group for each of 257 nodes"),
        ({"groups_kept": 9}, 32, "groups_kept", "cannot keep 9 of 8 groups; keep at most 8"),
        ({"groups": 2, "groups_kept": 3}, 32, "groups_kept", "cannot keep 3 of 2 groups"),
        ({"groups": 1, "groups_kept": 2}, 32, "groups_kept", "cannot keep 2 of 1 groups; keep at most 1"),
        ({"experts_per_token": 129}, 32, "experts_per_token", "needs 129 experts, .* hold 128"),
        ({"groups": 128, "groups_kept": 1}, 32, "groups_kept", "needs 8 experts, .* hold 2"),
        ({"groups": 256}, 32, "groups", "needs 8 experts, .* hold 4"),
        # The smallest of 40 unequal groups holds 6.
        (
            {"groups": "nodes", "groups_kept": 1, "degree": 320},
            320,
            "groups_kept",
            "needs 8 experts, .* hold 6",
        ),
        ({"gate": {"kind": "file", "path": "none.csv"}}, 32, "gate.path", "none.csv: there is no such file"),
    ],
)
def test_what_does_not_fit_is_named(more, num_ranks, field, message):
    with pytest.raises(FieldError, match=message) as caught:
        fields(**more).check_experts(setting(num_ranks), 1)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("num_ranks", "num_tokens", "num_draws", "message"),
    [
        # 512 ranks x 2**20 tokens x 256 experts are 2**37 affinities, and 2**36 the most; as many for two draws.
        (512, 2**20, 1, r"137,438,953,472 affinities, .*; use at most 524,288"),
        (256, 2**20, 2, r"137,438,953,472 affinities, .*; use at most 524,288"),
    ],
)
def test_more_than_can_be_drawn_is_refused(num_ranks, num_tokens, num_draws, message):
    with pytest.raises(FieldError, match=message) as caught:
        fields(16).check_experts(setting(num_ranks), num_tokens, num_draws)
    assert caught.value.field == "tokens_per_rank"
    fields(16).check_experts(setting(num_ranks), 2**19, num_draws)


def test_a_rank_s_tokens_must_fit_a_table():
    # 2**26 entries are the most: 1,032,444 tokens of 65 experts.
    settings = fields(16, experts_per_token=65, groups=1)
    with pytest.raises(FieldError, match="65 experts per token a rank can have at most 1,032,444 tokens"):
        settings.check_experts(setting(32), 1_032_445)
    settings.check_experts(setting(32), 1_032_444)


def test_a_degree_that_straddles_nodes_is_refused():
    # Groups of 8 are two nodes of 4 GPUs or half a node of 16, but a node of 12 would hold one and a half.
    fields(8).check_experts(setting(16, gpus_per_node=4), 1)
    fields(8).check_experts(setting(16, gpus_per_node=16), 1)
    with pytest.raises(
        FieldError, match="neither divides a node of 12 GPUs nor is a multiple of it"
    ) as caught:
        fields(8).check_experts(setting(48, gpus_per_node=12), 1)
    assert caught.value.field == "expert_parallel"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "needs a mixture-of-experts model and no model is named"),
        (load_model("llama-3.1-405b", FOLDER), "llama-3.1-405b has no experts"),
    ],
)
def test_a_model_without_experts_is_refused(model, message):
    with pytest.raises(FieldError, match=message) as caught:
        fields().check_experts(setting(16, model=model), 1)
    assert caught.value.field == "kind"


@pytest.mark.parametrize(
    ("degree", "policy"),
    # 8 groups divide over 4 and 8 nodes, but not over 40 or 9.
    [(32, "eplb-hierarchical"), (64, "eplb-hierarchical"), (320, "eplb-global"), (72, "eplb-global")],
)
def test_eplb_is_hierarchical_where_groups_divide_over_nodes(degree, policy):
    found, expected, other = (
        open_layer(fields(degree, balance=balance), SKEWED)[1].places.tolist()
        for balance in ("eplb", policy, "none")
    )
    assert found == expected
    assert found != other


@pytest.mark.parametrize(
    "more",
    # 8 groups over 9 nodes; 257 experts in 8 groups; 2 groups over 8 nodes; 40 unequal groups.
    [
        {"degree": 72},
        {"degree": 64, "shared_experts": "dispatched"},
        {"degree": 64, "groups": 2},
        {"degree": 320, "groups": "nodes"},
    ],
)
def test_hierarchical_balancing_is_refused_where_groups_do_not_divide(more):
    with pytest.raises(
        FieldError, match="do not divide; write eplb-global, or eplb to leave it open"
    ) as caught:
        fields(**more, balance="eplb-hierarchical").check_experts(setting(more["degree"]), 1)
    assert caught.value.field == "balance"
    for remedy in ("eplb-global", "eplb"):
        fields(**more, balance=remedy).check_experts(setting(more["degree"]), 1)


def test_hierarchical_balancing_keeps_groups_on_nodes():
    # 8 groups of 32 experts on 4 nodes: two each, all copies of their experts among them.
    _, placement, _ = open_layer(fields(32, balance="eplb", redundant_experts=32), SKEWED)
    node_of_copy = placement.places // GPUS_PER_NODE
    group_of_copy = np.repeat(np.arange(256) // 32, placement.copies)
    assert len(set(zip(group_of_copy.tolist(), node_of_copy.tolist(), strict=True))) == 8
    assert np.bincount(node_of_copy).tolist() == [72] * 4


def test_balancing_changes_no_token_s_experts():
    # A balancer looks at earlier traffic of the same gate, and leaves the tokens to come as they are.
    drawn = [
        open_layer(fields(32, gate={"kind": "zipf", "exponent": 1.0}, balance=balance))[2].experts(100)
        for balance in ("none", "eplb")
    ]
    assert np.array_equal(*drawn)


def test_unbalanced_experts_lie_in_blocks_with_copies_of_their_node_s():
    settings = fields(72)
    _, placement, _ = open_layer(settings)
    expected = place_in_blocks(256, 72, 9, 32)
    assert np.array_equal(placement.places, expected.places)
    assert np.array_equal(placement.offsets, expected.offsets)


def test_the_nodes_of_a_group():
    # Of 8 GPUs each; a part of a node is one.
    assert [fields(degree).num_slots(setting(64)) for degree in (1, 4, 8, 16, 64)] == [1, 1, 1, 2, 8]
    assert fields(8).num_slots(setting(64, gpus_per_node=4)) == 2
    assert fields(64).needed_ranks() == 64


def test_assumptions_tell_placement_and_copies():
    settings = fields(72, balance="eplb", shared_experts="dispatched", groups="nodes", groups_kept=3)
    told = " ".join(settings.assumptions_of_experts(settings.experts(setting(72))))
    # 257 experts on 72 ranks take four slots each: 288.
    assert "Each 72 consecutive ranks hold all 256 routed experts, and 1 shared dispatched like them" in told
    assert "placed by eplb, with 31 redundant copies" in told
    assert "3 of 9 groups" in told
    plain = " ".join(fields().assumptions_of_experts(fields().experts(setting(16))))
    assert "in blocks of consecutive ones, with 0 redundant copies" in plain
    assert "shared" not in plain


@pytest.mark.parametrize(
    "more",
    [
        {"expert_parallel": 0},
        {"expert_parallel": 65537},
        {"experts_per_token": 0},
        {"groups": 0},
        {"groups": -1},
        {"groups": "racks"},
        {"groups": 2.0},
        {"groups": True},
        {"groups_kept": 0},
        {"redundant_experts": -16},
        {"redundant_experts": "all"},
        {"redundant_experts": 32.0},
        {"shared_experts": "everywhere"},
        {"balance": "best"},
        {"gate": {"kind": "zipf"}},
        {"dispatch_format": "fp4"},
        {"combine_format": "logfmt1"},
        {"redundant_expert": 0},
    ],
)
def test_values_out_of_range_are_refused(more):
    with pytest.raises(ValueError, match=next(iter(more))):
        ExpertSettings(**({"expert_parallel": 16} | more))
