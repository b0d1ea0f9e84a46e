"""How many inputs a fuzz test draws: a few in CI, as many as `--fuzz-inputs` says in the long mode."""

from typing import Final

from hypothesis import HealthCheck, Phase, settings

_QUICK: Final = 0
_asked_for = _QUICK


def ask_for(inputs: int) -> None:
    """Have each kind of input drawn so often from now on; 0: as often as each test says for the quick mode."""
    global _asked_for  # noqa: PLW0603 - the one place where the option is kept; decorators read it on import
    _asked_for = inputs


def examples(quick: int, share: float = 1.0) -> int:
    """Return how many inputs a test draws.

    quick: in the quick mode; share: in the long mode, of the inputs of its kind, at least one
    """
    return max(1, round(_asked_for * share)) if _asked_for else quick


def drawn(quick: int, share: float = 1.0) -> settings:
    """Return the settings of a test by hypothesis that draws so many: see `examples`.

    A failing input is made smaller in the long mode too; no example database is kept, so that a run leaves no files.
    """
    return settings(
        max_examples=examples(quick, share),
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
