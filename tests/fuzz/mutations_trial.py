"""One damaged scenario, tried at the command line."""

from pathlib import Path

from fuzz.mutations_outcome import call, check_figures, check_file_is_named, check_refusal, check_result
from fuzz.mutations_small import is_quick
from simulator import load_scenario


def try_scenario(path: Path) -> str:
    """Check a scenario, and run it where that is quick; return what became of it: refused, ran or only loaded."""
    checked = call("check", path)
    if checked.status:
        check_refusal(checked, str(path))
        return "refused"
    assert checked.err == ""
    assert len(checked.out.splitlines()) == 1
    if not is_quick(load_scenario(path)):
        return "only loaded"
    ran = call("run", path, "--json")
    if ran.status:
        check_refusal(ran, str(path))
        return "refused by the run"
    check_result(ran)
    return "ran"


def try_network(path: Path) -> str:
    """Count what a network of a spec has; return what became of it: refused or ran."""
    counted = call("topology", path, "--json")
    if counted.status:
        check_refusal(counted, str(path))
        return "refused"
    assert counted.err == ""
    check_figures(counted.out)
    return "ran"


def try_file(path: Path, name: str) -> str:
    """Run a scenario that names a damaged file; return what became of it: refused or ran."""
    ran = call("run", path, "--json")
    if ran.status:
        check_refusal(ran, str(path))
        check_file_is_named(ran.err, name)
        return "refused"
    check_result(ran)
    return "ran"
