"""What a group exchanges: loads that can be counted, and which member counts as the fullest."""

from itertools import islice

import numpy as np
import pytest

from support.training_steps import model, setting, spec
from workloads.group_traffic import GroupLayout, GroupLoad, draw_loads, fullest
from workloads.moe import ExpertGroups, ExpertTraffic

TOKENS = 10
THERE, BACK = 80, 112


def draws(
    count: int, degree: int, seed: int = 1, gpus_per_node: int = 2, tokens: int = TOKENS, **fields
) -> list[GroupLoad]:
    settings = spec(expert_parallel=degree, **fields)
    cluster = setting(degree, gpus_per_node, model())
    drawn = draw_loads(settings, cluster, tokens, (THERE, BACK), np.random.default_rng(seed))
    return list(islice(drawn, count))


def test_tokens_of_all_experts_go_everywhere():
    # 8 experts on 4 ranks of 2 nodes, and each token goes to all 8: each rank gets the 4 x 10 tokens of its group
    # once each, and 2 x 40 pairs.
    (load,) = draws(1, 4, experts_per_token=8)
    assert (load.received, load.rows) == (40, 80)
    assert load.of_members == ((40, 80),) * 4
    for transfers, size, reduce in ((load.scatter, THERE, False), (load.gather, BACK, True)):
        # from each rank one to its own node and one to the other, by way of the GPU there at its own place
        assert transfers.source_rank.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert transfers.size_bytes.tolist() == [TOKENS * size] * 8
        assert transfers.relay_ranks.tolist() == [2, 3, 0, 1]
        assert np.diff(transfers.relay_offsets).tolist() == [0, 1, 0, 1, 1, 0, 1, 0]
        # on its own node the other rank gets a copy; on another both
        assert transfers.destination_ranks.tolist() == [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]
        assert transfers.fractions.tolist() == [1.0] * 12
        assert transfers.reduce.tolist() == [reduce] * 8


def test_a_group_within_a_node_needs_no_relays():
    (load,) = draws(1, 2, experts_per_token=8, gpus_per_node=8)
    assert (load.received, load.rows) == (20, 80)
    assert load.scatter.source_rank.tolist() == [0, 1]
    assert load.scatter.destination_ranks.tolist() == [1, 0]
    assert not load.scatter.relay_ranks.size


def test_a_group_of_one_keeps_its_tokens():
    (load,) = draws(1, 1)
    # 10 tokens of 2 experts each
    assert (load.received, load.rows) == (10, 20)
    assert len(load.scatter) == len(load.gather) == 0


def test_there_and_back_are_the_same_tokens():
    for load in draws(3, 4, gate={"kind": "lognormal", "sigma": 1.0}):
        assert load.gather.source_rank.tolist() == load.scatter.source_rank.tolist()
        assert load.gather.destination_ranks.tolist() == load.scatter.destination_ranks.tolist()
        assert (load.gather.size_bytes / BACK).tolist() == pytest.approx(load.scatter.size_bytes / THERE)


def test_draws_differ_and_a_seed_repeats_them():
    gate = {"kind": "lognormal", "sigma": 1.0}
    first, second = draws(2, 4, gate=gate)
    # popularities are drawn anew: the sizes of all transfers would hardly agree by chance
    assert first.scatter.size_bytes.tolist() != second.scatter.size_bytes.tolist()
    again = draws(2, 4, gate=gate)
    assert [load.rows for load in again] == [first.rows, second.rows]
    assert again[1].scatter.size_bytes.tolist() == second.scatter.size_bytes.tolist()
    assert draws(1, 4, seed=2, gate=gate)[0].scatter.size_bytes.tolist() != first.scatter.size_bytes.tolist()


def test_each_draw_has_popularities_of_its_own():
    # Of 4 x 4,096 tokens, each to 2 of 8 experts, a rank gets some 7,000 from others: chance alone would move that by
    # some 100 from draw to draw. Popularities with a deviation of a factor e move it by thousands.
    first, second = (
        np.bincount(
            load.scatter.destination_ranks,
            load.scatter.fractions
            * np.repeat(load.scatter.size_bytes, np.diff(load.scatter.destination_offsets)),
        )
        / THERE
        for load in draws(2, 4, tokens=4096, gate={"kind": "lognormal", "sigma": 1.0})
    )
    assert abs(first - second).max() > 1000


def test_a_file_goes_on_from_draw_to_draw(tmp_path):
    # Tokens of the file go to the experts 0, 1 first and to 6, 7 after 20 of them: a draw takes 2 x 10 tokens, so the
    # first loads rank 0 alone, the second rank 1 alone, and the third starts over.
    (tmp_path / "experts.csv").write_text("expert_0,expert_1\n" + "0,1\n" * 20 + "6,7\n" * 20)
    gate = {"kind": "file", "path": str(tmp_path / "experts.csv")}
    loads = draws(3, 2, gate=gate)
    for load, source in zip(loads, (1, 0, 1), strict=True):
        assert (load.received, load.rows) == (20, 40)
        assert load.scatter.source_rank.tolist() == [source]
        assert load.scatter.size_bytes.tolist() == [TOKENS * THERE]


def traffic(tokens, pairs) -> ExpertTraffic:
    groups = ExpertGroups.of_layout(GroupLayout(2, 2), 2)
    tokens, pairs = np.array(tokens), np.array(pairs)
    return ExpertTraffic(groups, tokens, tokens.sum(axis=1, keepdims=True), pairs, pairs.sum(axis=0)[None])


def test_the_fullest_has_most_pairs_not_most_tokens():
    # member 0 receives 3 + 4 tokens and 3 + 5 pairs, member 1 receives 2 + 1 tokens and 6 + 3 pairs
    assert fullest(traffic([[3, 2], [4, 1]], [[3, 6], [5, 3]])) == (3, 9)


def test_of_members_with_as_many_pairs_the_one_with_more_tokens_is_fullest():
    # 8 pairs each, of 7 and of 5 tokens
    assert fullest(traffic([[3, 2], [4, 3]], [[4, 2], [4, 6]])) == (7, 8)


def test_a_group_fills_its_nodes():
    layout = GroupLayout(6, 2)
    assert layout.node_of_rank.tolist() == [0, 0, 1, 1, 2, 2]
    assert layout.gpu_of_rank.tolist() == [0, 1, 0, 1, 0, 1]
    assert layout.rank_at.tolist() == [[0, 1], [2, 3], [4, 5]]
