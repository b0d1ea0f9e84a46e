"""Damage to a scenario's parsed tree, which is written back as YAML."""

import random
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from fuzz.mutations_schema import FIELD_NAMES, WORDS, field_of_schema
from fuzz.mutations_values import ODD_NAMES, ODD_VALUES
from fuzz.mutations_yaml import Fields, Tree, Verbatim, as_tree, written
from simulator.units import UNITS

Place = tuple[Any, int]  # a mapping or a list, and the position in it

_UNITS: Final = sorted({unit for units in UNITS.values() for unit in units})


_DEEP: Final = 70  # levels: more than any file may have


def structural(data: dict[str, Any], rng: random.Random) -> str:
    """Return the YAML of a scenario to which up to three kinds of damage were done, or that was changed a little."""
    tree = as_tree(data)
    changes = _GENTLE if rng.random() < 0.4 else _DAMAGES
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(changes)(tree, rng)
    text = written(tree)
    if rng.random() < 0.04:
        text = rng.choice(_DOCUMENTS)(text)
    return text


def _places(tree: Tree) -> Iterator[Place]:
    """Yield the place of every value below the top."""
    if isinstance(tree, Fields):
        for position, (_, value) in enumerate(tree.pairs):
            yield tree, position
            yield from _places(value)
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield tree, position
            yield from _places(value)


def _mappings(tree: Tree) -> list[Fields]:
    found = [tree] if isinstance(tree, Fields) else []
    return found + [value for place in _places(tree) if isinstance(value := _get(place), Fields)]


def _get(place: Place) -> Tree:
    holder, position = place
    return holder.pairs[position][1] if isinstance(holder, Fields) else holder[position]


def _set(place: Place, value: Tree) -> None:
    holder, position = place
    if isinstance(holder, Fields):
        holder.pairs[position] = (holder.pairs[position][0], value)
    else:
        holder[position] = value


def _place(tree: Tree, rng: random.Random, *, named: bool = False) -> Place | None:
    """Return some place; named: a field's, not a list's item."""
    found = [place for place in _places(tree) if not named or isinstance(place[0], Fields)]
    return rng.choice(found) if found else None


def _odd_value(tree: Tree, rng: random.Random) -> None:
    place = _place(tree, rng)
    if place:
        _set(place, Verbatim(rng.choice(ODD_VALUES)))


def _known_word(tree: Tree, rng: random.Random) -> None:
    """Put one of the schema's own words in a scalar's place, so that other branches of it are tried."""
    places = [place for place in _places(tree) if isinstance(_get(place), Verbatim)]
    if places:
        _set(rng.choice(places), Verbatim(rng.choice(WORDS)))


def _number(tree: Tree, rng: random.Random) -> None:
    """Change a number, or the number or unit of a quantity."""
    places = [
        place
        for place in _places(tree)
        if isinstance(value := _get(place), Verbatim) and value.text.strip("'\"")[:1].isdigit()
    ]
    if not places:
        return
    place = rng.choice(places)
    value = _get(place)
    assert isinstance(value, Verbatim)
    number, _, unit = value.text.strip("'\"").partition(" ")
    kind = rng.randrange(8)
    if kind == 0:
        unit = "" if unit else rng.choice(_UNITS)
    elif kind == 1:
        unit = rng.choice(_UNITS)
    elif kind == 2:
        unit = unit.swapcase() or "x"
    elif kind == 3:
        number = f"-{number}"
    elif kind == 4:
        number = rng.choice(
            ("0", "1", "2", "3", "5", "1e400", "1e30", "0.1", "1e-30", "1e6", "1000000", "65536")
        )
    elif kind == 5:
        number += rng.choice(("0", "000", ".5", "e3", "e30", "x", "_0", "!", "'"))
    elif kind == 6:
        number = number[:-1] or "0"
    else:
        unit += rng.choice(("s", "/s", " ", "\u200b", "²"))
    _set(place, Verbatim(f"{number} {unit}".strip()))


def _nearby_number(tree: Tree, rng: random.Random) -> None:
    """Put another whole number in the place of one, near it or by a small factor, or with the unit it has."""
    places = [
        (place, value.text)
        for place in _places(tree)
        if isinstance(value := _get(place), Verbatim) and re.match(r"[0-9]{1,9}(?: |$)", value.text)
    ]
    if places:
        place, text = rng.choice(places)
        number, space, unit = text.partition(" ")
        changed = rng.choice(
            (int(number) + 1, max(int(number) - 1, 0), int(number) * 2, int(number) // 2, 1, 0, 3)
        )
        _set(place, Verbatim(f"{changed}{space}{unit}"))


def _reorder(tree: Tree, rng: random.Random) -> None:
    """Write the fields of a mapping in another order."""
    rng.shuffle(rng.choice(_mappings(tree) or [Fields()]).pairs)


def _leave_out(tree: Tree, rng: random.Random) -> None:
    place = _place(tree, rng)
    if place:
        holder, position = place
        del (holder.pairs if isinstance(holder, Fields) else holder)[position]


def _write_twice(tree: Tree, rng: random.Random) -> None:
    place = _place(tree, rng)
    if place:
        holder, position = place
        entries = holder.pairs if isinstance(holder, Fields) else holder
        entries.insert(rng.randint(0, len(entries)), entries[position])


def _misspell(tree: Tree, rng: random.Random) -> None:
    place = _place(tree, rng, named=True)
    if place:
        holder, position = place
        name, value = holder.pairs[position]
        holder.pairs[position] = (misspelt(name, rng), value)


def misspelt(name: str, rng: random.Random) -> str:
    """Return a name with a slip of the keyboard, or another altogether."""
    at = rng.randrange(len(name)) if name else 0
    return rng.choice(
        (
            name[:at] + name[at + 1 :],
            name[:at] + name[at : at + 1] * 2 + name[at + 1 :],
            name[:at] + rng.choice("abcdefgh_-.é") + name[at + 1 :],
            name.upper(),
            name.replace("_", "-"),
            name.replace("_", ""),
            name + "s",
            rng.choice(FIELD_NAMES),
            rng.choice(ODD_NAMES),
        )
    )


def _add_odd_field(tree: Tree, rng: random.Random) -> None:
    pairs = rng.choice(_mappings(tree) or [Fields()]).pairs
    name = rng.choice((rng.choice(ODD_NAMES), rng.choice(FIELD_NAMES)))
    pairs.insert(rng.randint(0, len(pairs)), (name, Verbatim(rng.choice(ODD_VALUES))))


def _add_known_field(tree: Tree, rng: random.Random) -> None:
    """Add a field that the schema has where it is put, with a value of its type, or give it such a value."""
    mapping = rng.choice(_mappings(tree) or [Fields()])
    kind = next(
        (value.text for name, value in mapping.pairs if name == "kind" and isinstance(value, Verbatim)), None
    )
    names = frozenset(name for name, _ in mapping.pairs)
    found = field_of_schema(kind, names, rng)
    if found is not None:
        name, value = found
        mapping.pairs = [pair for pair in mapping.pairs if pair[0] != name]
        mapping.pairs.append((name, as_tree(value)))


def _swap(tree: Tree, rng: random.Random) -> None:
    """Exchange the values of two places, of which neither holds the other."""
    one, other = _place(tree, rng), _place(tree, rng)
    if one is None or other is None:
        return
    here, there = _get(one), _get(other)
    if not (_holds(here, other[0]) or _holds(there, one[0])):
        _set(one, there)
        _set(other, here)


def _move_field(tree: Tree, rng: random.Random) -> None:
    """Move a field to another mapping."""
    place = _place(tree, rng, named=True)
    if place is None:
        return
    holder, position = place
    target = rng.choice(_mappings(tree))
    if not _holds(holder.pairs[position][1], target):
        target.pairs.append(holder.pairs.pop(position))


def _holds(tree: Tree, holder: object) -> bool:
    return tree is holder or any(_get(place) is holder for place in _places(tree))


def _wrap(tree: Tree, rng: random.Random) -> None:
    place = _place(tree, rng)
    if place:
        inner = _get(place)
        _set(
            place,
            rng.choice(([inner], [inner, inner], Fields([("value", inner)]), Fields([("kind", inner)]))),
        )


def _nest(tree: Tree, rng: random.Random) -> None:
    """Bury a value deep in lists, or in mappings on as many lines."""
    place = _place(tree, rng)
    if not place:
        return
    inner = _get(place)
    if isinstance(inner, Verbatim) and rng.random() < 0.3:
        _set(place, Verbatim(f"{'[' * 200}{inner.text}{']' * 200}"))
    elif _depth(tree) < _DEEP:  # what writes the tree goes down in it, too
        for _ in range(rng.choice((5, _DEEP))):
            inner = Fields([("a", inner)]) if rng.random() < 0.5 else [inner]
        _set(place, inner)


def _depth(tree: Tree) -> int:
    """Return how many levels a tree has."""
    below = [value for _, value in tree.pairs] if isinstance(tree, Fields) else tree
    return 0 if isinstance(below, Verbatim) else 1 + max(map(_depth, below), default=0)


def _anchor(tree: Tree, rng: random.Random) -> None:
    """Name a value and use it again elsewhere, maybe within itself or before it stands."""
    one, other = _place(tree, rng), _place(tree, rng)
    if one and other:
        if isinstance(value := _get(one), Verbatim):
            _set(one, Verbatim(f"&a {value.text}"))
        _set(other, Verbatim("*a"))


def _bomb(tree: Tree, rng: random.Random) -> None:
    """Add aliases of aliases: a few lines that come to a million values."""
    if isinstance(tree, Fields):
        levels = rng.choice((3, 9, 30))
        bomb = [("l0", Verbatim("&l0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"))]
        bomb += [
            (f"l{level}", Verbatim(f"&l{level} [{', '.join([f'*l{level - 1}'] * 9)}]"))
            for level in range(1, levels)
        ]
        at = rng.choice((0, len(tree.pairs)))
        tree.pairs[at:at] = bomb


_DAMAGES: Final[tuple[Callable[[Tree, random.Random], None], ...]] = (
    *(_odd_value, _odd_value, _odd_value, _known_word, _known_word, _number, _number, _number, _leave_out),
    *(
        _write_twice,
        _misspell,
        _misspell,
        _add_odd_field,
        _add_known_field,
        _add_known_field,
        _add_known_field,
    ),
    *(_swap, _move_field, _wrap, _nest, _anchor, _bomb),
)
# Most scenarios changed so can run still.
_GENTLE: Final = (_nearby_number, _nearby_number, _nearby_number, _reorder, _add_known_field, _leave_out)
_DOCUMENTS: Final[tuple[Callable[[str], str], ...]] = (
    lambda text: f"%YAML 1.1\n---\n{text}",
    lambda text: f"%YAML 1.2\n---\n{text}",
    lambda text: f"%TAG ! tag:x,2000:\n---\n{text}",
    lambda text: f"---\n{text}",
    lambda text: f"{text}---\n{text}",
    lambda text: f"{text}...\nmore\n",
    lambda text: f"--- !!map\n{text}",
    lambda text: f"- {text}",
    lambda text: f"# a comment \u202e\n\n{text}\n# the end",
    lambda text: "{" + text.replace("\n", ",\n") + "}",
    lambda text: "".join(f"  {line}\n" for line in text.splitlines()),
)
