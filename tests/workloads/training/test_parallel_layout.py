"""Which rank is where: small layouts written out, and what holds for all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.units import FieldError
from support.properties import tried_on
from support.training_steps import setting
from workloads.training.parallel_layout import ParallelLayout, check_nodes, members_of


def test_pipeline_outermost_puts_all_of_a_pipeline_rank_together():
    # 16 ranks, 2 pipeline ranks, groups of 4
    layout = ParallelLayout.of(setting(16, 4), 2, 4, "pipeline-outermost", None)
    assert layout.ranks.tolist() == [list(range(8)), list(range(8, 16))]
    assert (layout.num_members, layout.num_groups) == (8, 2)
    assert layout.group(1, 0).tolist() == [8, 9, 10, 11]
    assert layout.group(0, 1).tolist() == [4, 5, 6, 7]


def test_data_outermost_puts_a_group_of_each_pipeline_rank_together():
    # ranks 0-3: first group of pipeline rank 0, 4-7: of 1, 8-11: second group of 0, 12-15: of 1
    layout = ParallelLayout.of(setting(16, 4), 2, 4, "data-outermost", None)
    assert layout.ranks.tolist() == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert layout.group(1, 1).tolist() == [12, 13, 14, 15]


def test_nodes_change_places_whole():
    # the first ranks' places, 0 and 1, are on node 2, so on GPUs that hold ranks 4 and 5; and so on
    layout = ParallelLayout.of(setting(6, 2), 3, 2, "pipeline-outermost", (2, 0, 1))
    assert layout.ranks.tolist() == [[4, 5], [0, 1], [2, 3]]
    # half a node each: both halves of the first node lie on node 1
    layout = ParallelLayout.of(setting(4, 2), 2, 1, "data-outermost", (1, 0))
    assert layout.ranks.tolist() == [[2, 0], [3, 1]]


@st.composite
def clusters(draw):
    gpus_per_node = draw(st.sampled_from([1, 2, 4, 8]))
    size = draw(st.sampled_from([1, 2, 4, 8, 16]))
    pipeline, groups = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    num_ranks = size * pipeline * groups
    while num_ranks % gpus_per_node:
        groups, num_ranks = 2 * groups, 2 * num_ranks
    num_nodes = num_ranks // gpus_per_node
    order = draw(st.one_of(st.none(), st.permutations(range(num_nodes)).map(tuple)))
    return num_ranks, gpus_per_node, pipeline, size, order


@tried_on(100)
@given(clusters(), st.sampled_from(["pipeline-outermost", "data-outermost"]))
def test_every_rank_has_one_place_and_groups_share_nodes(cluster, rank_order):
    num_ranks, gpus_per_node, pipeline, size, order = cluster
    layout = ParallelLayout.of(setting(num_ranks, gpus_per_node), pipeline, size, rank_order, order)
    assert sorted(layout.ranks.ravel().tolist()) == list(range(num_ranks))
    assert layout.num_groups * size * pipeline == num_ranks
    for pipeline_rank in range(pipeline):
        for number in range(layout.num_groups):
            group = layout.group(pipeline_rank, number)
            # members are neighbours: at consecutive GPUs of a node, or on whole nodes
            blocks = group.reshape(-1, min(size, gpus_per_node))
            assert (np.diff(blocks, axis=1) == 1).all()
            assert (blocks // gpus_per_node == blocks[:, :1] // gpus_per_node).all()


def test_ranks_that_do_not_divide_are_told_what_would():
    assert members_of(48, 6) == 8
    with pytest.raises(
        FieldError, match=r"48 ranks do not divide into 5 pipeline ranks; 3, 4, 6 would"
    ) as caught:
        members_of(48, 5)
    assert caught.value.field == "pipeline_parallel"


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ((0, 1, 3), "there is no node 3"),
        ((0, 1), "node 2 is not named"),
        ((0, 1, 1), "node 2 is not named"),
        ((0, 1, 2, 2), "a node is named twice"),
        ((), "node 0 is not named"),
    ],
)
def test_an_order_names_each_node_once(order, fault):
    check_nodes((2, 0, 1), 3)
    with pytest.raises(FieldError, match=f"nodes, 0 to 2, once, and {fault}") as caught:
        check_nodes(order, 3)
    assert caught.value.field == "node_order"
