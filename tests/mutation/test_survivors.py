"""The list of mutants that may live is of the code as it is."""

from pathlib import Path

from mutation.survivors import Survivors

ROOT = Path(__file__).parents[2]
LISTED = Survivors.listed(Path(__file__).with_name("survivors.toml"))


def test_every_listed_line_stands_in_its_module():
    # Else the list would excuse mutants of code that is gone.
    texts = {path: " ".join((ROOT / path).read_text("utf-8").split()) for path, *_ in LISTED.reasons}
    gone = [
        key
        for key in LISTED.reasons
        if key[2] not in texts[key[0]] or (key[1] != "module" and key[1] not in texts[key[0]])
    ]
    assert gone == []


def test_every_listed_mutant_has_a_reason_and_changes_something():
    assert LISTED.reasons
    for (_, _, before, after), reason in LISTED.reasons.items():
        assert before != after
        assert len(reason.split()) > 5
