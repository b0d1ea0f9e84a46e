"""Which experts a token takes: those with the highest affinities in its best groups, or all of them in turn.

DeepSeek-V3 (technical report, section 2.1.2, "Node-Limited Routing") scores each group of experts by the sum of
its two highest affinities, keeps the best groups, and takes the top-k experts of those.
"""

from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from workloads.tasks import FloatArray, IntArray


class TopK(NamedTuple):
    """How many experts there are, and how a token's are chosen.

    Groups are blocks of consecutive experts: expert e is in group e * num_groups // num_experts, so that sizes
    differ by one at most. There are no more groups than experts, and groups kept hold at least `top_k` experts.
    """

    num_experts: int
    top_k: int
    num_groups: int
    groups_kept: int

    def group_offsets(self) -> IntArray:
        """Return [num_groups + 1] the first expert of each group, and the number of experts."""
        return -(-np.arange(self.num_groups + 1) * self.num_experts // self.num_groups)


def fewest_experts_kept(top_k: TopK) -> int:
    """Return the fewest experts that the groups which the gate keeps can hold: those of the smallest groups."""
    return int(np.sort(np.diff(top_k.group_offsets()))[: top_k.groups_kept].sum())


@njit(cache=True)
def select_experts(
    scores: NDArray[np.float32], top_k: int, num_groups: int, groups_kept: int, in_logs: bool = False
) -> IntArray:
    """Return [num_tokens, top_k] the experts with the highest affinities in each token's best groups, best first.

    scores: [num_tokens, num_experts] float32, affinities, or with `in_logs` their natural logarithms, of which
    those of -inf are never chosen; the groups kept hold at least top_k others. A group's score is the sum of its
    two highest affinities. Where scores are equal the lower index wins, of groups and of experts.
    """
    num_tokens, num_experts = scores.shape
    experts = np.full((num_tokens, top_k), -1, np.int64)
    expert_scores = np.empty(top_k, np.float32)
    kept_groups = np.zeros(groups_kept, np.int64)
    kept_scores = np.empty(groups_kept, np.float32)
    offsets = -(-np.arange(num_groups + 1) * num_experts // num_groups)
    kept = np.empty(num_groups, np.bool_)
    for token in range(num_tokens):
        own = scores[token]
        kept_scores[:] = -np.inf
        for group in range(num_groups):
            score = _two_best(own[offsets[group] : offsets[group + 1]], in_logs)
            if score > kept_scores[-1]:
                _insert(kept_scores, kept_groups, score, group)
        kept[:] = False
        # where fewer groups have an expert to choose, some are of earlier tokens and none of theirs is chosen
        kept[kept_groups] = True
        expert_scores[:] = -np.inf
        # in ascending order, so that of equal affinities the lower expert is met first
        for group in range(num_groups):
            if kept[group]:
                for expert in range(offsets[group], offsets[group + 1]):
                    if own[expert] > expert_scores[-1]:
                        _insert(expert_scores, experts[token], own[expert], expert)
    return experts


@njit(cache=True)
def _two_best(scores: NDArray[np.float32], in_logs: bool) -> np.float32:
    """Return the sum of the two highest of `scores`, in logarithms its logarithm; the one score of a group of one."""
    best: np.float32 = scores[0]
    if len(scores) == 1:
        return best
    second = np.float32(-np.inf)
    for score in scores[1:]:
        if score > best:
            best, second = score, best
        elif score > second:
            second = score
    if not in_logs:
        return best + second
    return best + np.log1p(np.exp(second - best)) if second > -np.inf else best


@njit(cache=True)
def _insert(best_scores: NDArray[np.float32], best: IntArray, score: np.float32, index: int) -> None:
    """Put `index` into its place in `best`, sorted by falling score, behind equals; the last one drops out."""
    place = len(best) - 1
    while place > 0 and score > best_scores[place - 1]:
        best_scores[place], best[place] = best_scores[place - 1], best[place - 1]
        place -= 1
    best_scores[place], best[place] = score, index


class Deal(NamedTuple):
    """How far dealing experts has come; `deal_experts` carries it on in place.

    The visits of tokens to groups are numbered: slots, of which each token has `groups_used`.

    num_tokens: [1] tokens that have their experts
    group_offsets: [num_groups + 1] the first place of each group in `deck`
    deck: [num_experts] the experts of each group in the order in which it deals them
    dealt: [num_groups] experts that each group has dealt
    order: [num_groups] groups of equal size in the order of their turns, drawn anew every `slots_per_order` slots
    extra: [groups_used] 1 for a visit with one expert more than others; visits take these parts in turn, shifted by
        one every `slots_per_shift` slots
    phase: [num_groups] when groups of unequal size take their turns, as a part of the time between two of them
    """

    num_tokens: IntArray
    group_offsets: IntArray
    deck: IntArray
    dealt: IntArray
    order: IntArray
    slots_per_order: int
    extra: IntArray
    slots_per_shift: int
    phase: FloatArray


def new_deal(top_k: TopK, rng: np.random.Generator) -> Deal:
    """Return a deal that begins, for `deal_experts`.

    How groups of equal size come to deal equally many experts: they take one slot each in turn. After
    `slots_per_shift`, the least common multiple of num_groups and groups_used, each group's slots have been, among a
    token's, those that leave the same rest by `common`, their greatest common divisor, equally often. Extras are
    spread evenly over these classes of slots, and a shift by one takes each group through all classes.
    """
    offsets = top_k.group_offsets()
    limited = top_k.groups_kept < min(top_k.num_groups, top_k.top_k)
    if top_k.num_experts % top_k.num_groups and not limited:
        offsets = offsets[[0, -1]]  # groups of unequal size would only stand in the way of equal loads
    num_groups = len(offsets) - 1
    groups_used = min(top_k.groups_kept, num_groups, top_k.top_k)
    common = gcd(num_groups, groups_used)
    num_extra = top_k.top_k % groups_used
    extras = [spread(count, groups_used // common) for count in spread(num_extra, common).tolist()]
    slots_per_shift = lcm(num_groups, groups_used)
    return Deal(
        num_tokens=np.zeros(1, np.int64),
        group_offsets=offsets,
        deck=np.arange(top_k.num_experts),
        dealt=np.zeros(num_groups, np.int64),
        order=np.arange(num_groups),
        slots_per_order=slots_per_shift * common // gcd(num_extra, common),
        extra=np.stack(extras, axis=1).ravel(),
        slots_per_shift=slots_per_shift,
        phase=rng.random(num_groups),
    )


def spread(total: int, num_parts: int) -> IntArray:
    """Return [num_parts] counts that add up to `total`, each first few of them as evenly as whole numbers can."""
    return np.diff(np.arange(num_parts + 1) * total // num_parts)


@njit(cache=True)
def deal_experts(deal: Deal, top_k: int, chances: NDArray[np.float32]) -> IntArray:
    """Return [num_tokens, top_k] experts of the next tokens, dealt so that all experts get equally many.

    chances: [num_tokens, groups_used + top_k] random numbers from 0 to less than 1: of each token one for each group
    that it visits and one for each expert. A token visits `groups_used` groups, whose turns come in random order,
    and takes as many experts in each, or one more. A group deals its experts in random order, all of them before
    any a second time.
    """
    groups_used = len(deal.extra)
    num_tokens = len(chances)
    experts = np.empty((num_tokens, top_k), np.int64)
    groups = np.empty(groups_used, np.int64)
    counts = np.empty(groups_used, np.int64)
    are_equal = len(deal.deck) % len(deal.order) == 0
    for token in range(num_tokens):
        if are_equal:
            _visit_in_turn(deal, top_k, chances[token], groups, counts)
        else:
            _visit_by_size(deal, top_k, chances[token], groups, counts)
        column = 0
        for visit in range(groups_used):
            hand = experts[token, column : column + counts[visit]]
            _deal_hand(deal, groups[visit], hand, chances[token, groups_used + column :])
            column += counts[visit]
        deal.num_tokens[0] += 1
    return experts


@njit(cache=True)
def _visit_in_turn(
    deal: Deal, top_k: int, chances: NDArray[np.float32], groups: IntArray, counts: IntArray
) -> None:
    """Write which groups of equal size the next token visits, and how many experts it takes in each."""
    num_groups, groups_used = len(deal.order), len(groups)
    for visit in range(groups_used):
        slot = deal.num_tokens[0] * groups_used + visit
        place = slot % num_groups
        if slot % deal.slots_per_order < num_groups:
            _draw(deal.order, place, num_groups, chances[visit])
        groups[visit] = deal.order[place]
        shifted = slot + slot // deal.slots_per_shift
        counts[visit] = top_k // groups_used + deal.extra[shifted % groups_used]


@njit(cache=True)
def _visit_by_size(
    deal: Deal, top_k: int, chances: NDArray[np.float32], groups: IntArray, counts: IntArray
) -> None:
    """Write which groups of unequal size the next token visits, and how many experts it takes in each.

    A group's turns are as far apart as it is small: a group of n experts that has dealt those of v mean visits is
    due at (v + phase) / n. What does not divide goes to the groups that are furthest behind their share.
    """
    groups_used = len(groups)
    per_visit = top_k / groups_used
    due = np.full(groups_used, -np.inf)
    for group in range(len(deal.order)):
        size = deal.group_offsets[group + 1] - deal.group_offsets[group]
        when = (deal.dealt[group] / per_visit + deal.phase[group]) / size
        if -when > due[-1]:
            _insert(due, groups, -when, group)
    # where nearly all groups are kept, even parts would leave the largest short of their share in every token
    largest = -(-len(deal.deck) // len(deal.order))
    can_be_even = groups_used * largest <= len(deal.deck)
    counts[:] = top_k // groups_used if can_be_even else 0
    most = top_k // groups_used + 1 if can_be_even else largest
    for _ in range(top_k - counts.sum()):
        counts[_furthest_behind(deal, top_k, groups, counts, most)] += 1
    for visit in range(groups_used):
        group = groups[visit]
        round_size = per_visit * (deal.group_offsets[group + 1] - deal.group_offsets[group])
        if (deal.dealt[group] + counts[visit]) // round_size > deal.dealt[group] // round_size:
            deal.phase[group] = chances[visit]


@njit(cache=True)
def _furthest_behind(deal: Deal, top_k: int, groups: IntArray, counts: IntArray, most: int) -> int:
    """Return the visit whose group is furthest behind its share with what it deals so far, and has more to deal."""
    furthest, most_behind = 0, -np.inf
    for visit in range(len(groups)):
        group = groups[visit]
        size = deal.group_offsets[group + 1] - deal.group_offsets[group]
        share = (deal.num_tokens[0] + 1) * top_k * size / len(deal.deck)
        behind = share - deal.dealt[group] - counts[visit]
        if counts[visit] < min(size, most) and behind > most_behind:
            furthest, most_behind = visit, behind
    return furthest


@njit(cache=True)
def _deal_hand(deal: Deal, group: int, hand: IntArray, chances: NDArray[np.float32]) -> None:
    """Fill `hand` with the next experts of a group, all different, by a shuffle that goes on from hand to hand."""
    first = deal.group_offsets[group]
    deck = deal.deck[first : deal.group_offsets[group + 1]]
    end = len(deck)
    for card in range(len(hand)):
        place = deal.dealt[group] % len(deck)
        if place == 0:
            # the deck begins anew, and the cards of this hand are its last
            end = len(deck) - card
        _draw(deck, place, end, chances[card])
        hand[card] = deck[place]
        deal.dealt[group] += 1


@njit(cache=True)
def _draw(cards: IntArray, place: int, end: int, chance: float) -> None:
    """Put a card drawn from those at `place` to before `end` at `place`: a step of a Fisher-Yates shuffle."""
    other = place + int(chance * (end - place))
    cards[place], cards[other] = cards[other], cards[place]
