"""Which links are whose: each belongs to nobody, to an episode, or to the network that many share."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from simulator.compiled import compiled

IntArray = NDArray[np.int64]

# In place of the number, 1 or more, of the episode that a link belongs to.
NOBODY: Final = -1
SHARED: Final = 0


class LinkOwners:
    """The owner of each link, the link's number there, and how many batches that have yet to end cross it."""

    def __init__(self, num_links: int) -> None:
        self._owner = np.full(num_links, NOBODY)
        self._number = np.zeros(num_links, np.int64)
        self._batches = np.zeros(num_links, np.int64)

    def of(self, links: IntArray) -> tuple[IntArray, IntArray]:
        """Return the owners of some links: of each, [num_used], and those that there are, rising, without nobody."""
        if not _are_taken(links, self._owner):
            return np.full(len(links), NOBODY), np.zeros(0, np.int64)
        owners = self._owner[links]
        return owners, np.unique(owners[owners != NOBODY])

    def numbers_of(self, links: IntArray, owners: IntArray) -> IntArray:
        """Return the number of each link with its owner, -1 for those of nobody: [num_used]."""
        return np.where(owners == NOBODY, -1, self._number[links])

    def claim(self, links: IntArray, episode: int, numbers: IntArray) -> None:
        """Let a batch of an episode cross links, which are the episode's from then on, with these numbers."""
        _claim(links, episode, numbers, self._owner, self._number, self._batches)

    def share(self, links: IntArray) -> None:
        """Let a batch in the shared network cross links, which are its from then on."""
        self._owner[links] = SHARED
        self._batches[links] += 1

    def hand_over(self, episode: int, to_episode: int, number_offset: int) -> None:
        """Give the links of an episode to another, with numbers so much higher."""
        links = np.flatnonzero(self._owner == episode)
        self._owner[links] = to_episode
        self._number[links] += number_offset

    def leave(self, links: IntArray) -> None:
        """Let a batch go; links without any are nobody's from then on."""
        _leave(links, self._owner, self._batches)


@compiled
def _are_taken(links: IntArray, owner: IntArray) -> bool:
    """Return whether any of some links belongs to an episode, or to the shared network."""
    latest = NOBODY
    for place in range(len(links)):
        latest = max(latest, owner[links[place]])
    return latest != NOBODY


@compiled
def _claim(
    links: IntArray, episode: int, numbers: IntArray, owner: IntArray, number: IntArray, batches: IntArray
) -> None:
    """Let links be those of an episode with these numbers, and count a batch more on each."""
    for place in range(len(links)):
        link = links[place]
        owner[link] = episode
        number[link] = numbers[place]
        batches[link] += 1


@compiled
def _leave(links: IntArray, owner: IntArray, batches: IntArray) -> None:
    """Count a batch less on each of some links, and leave those without any to nobody."""
    for place in range(len(links)):
        link = links[place]
        batches[link] -= 1
        if batches[link] == 0:
            owner[link] = NOBODY
