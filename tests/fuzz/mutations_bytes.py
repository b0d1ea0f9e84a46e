"""Damage to the bytes of a file."""

import random
from typing import Final

from fuzz.mutations_values import ODD_BYTES


def raw(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a file to which up to four kinds of damage were done."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(_RAW)(content, rng)
    return content


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randint(0, len(content))]


def _flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content or b"x")
    for _ in range(rng.choice((1, 1, 3, 30))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + rng.choice(ODD_BYTES) + content[at + rng.choice((0, 0, 1, 5)) :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Write a line twice, leave it out, move it, or shift it."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at = rng.randrange(len(lines))
    line = lines[at]
    lines[at : at + 1] = rng.choice(
        ([line, line], [], [b" " + line], [b"\t" + line], [line.strip() + b" "], [line.strip()])
    )
    if rng.random() < 0.3:
        lines.insert(rng.randint(0, len(lines)), line)
    return b"".join(lines)


def _cut_out(content: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + content[at + rng.choice((1, 2, 8, 60)) :]


def _encode(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", errors="replace")
    return rng.choice(
        (
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-16-le"),
            lambda: text.encode("utf-32"),
            lambda: text.encode("utf-8-sig"),
            lambda: ("# Gr\u00f6\u00dfe\n" + text).encode("latin-1", errors="replace"),
            lambda: text.replace("\n", "\r\n").encode(),
            lambda: text.replace("\n", "\r").encode(),
            lambda: text.replace("  ", "\t").encode(),
            lambda: text.replace("\n", "\u2028").encode(),
            lambda: text.encode().swapcase(),
            lambda: bytes(reversed(text.encode())),
        )
    )()


def _noise(content: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + rng.randbytes(rng.choice((1, 4, 64))) + content[at:]


_RAW: Final = (_cut, _flip, _flip, _insert, _insert, _insert, _lines, _lines, _cut_out, _encode, _noise)
