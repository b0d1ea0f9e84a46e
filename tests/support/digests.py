"""Digests of everything that scenarios give, made in one of several ways: `python -m support.digests WAY FILE...`.

alone: one after the other in this process; workers: by two processes of joblib; dask: by two workers of a Dask
cluster of this machine.
"""

import hashlib
import io
import json
import sys
from collections.abc import Callable

from joblib import Parallel, delayed, parallel_config

from simulator import load_scenario, simulate


def result_digest(scenario: str) -> str:
    """Return the digest of the summary, the scenario's text and every table of a run."""
    result = simulate(load_scenario(scenario))
    digest = hashlib.sha256(result.to_json().encode() + result.scenario_text.encode())
    for table in (result.tasks, result.phases, result.flows, result.links, result.link_timeline):
        stream = io.BytesIO()
        table.to_parquet(stream, index=False)
        digest.update(stream.getvalue())
    return digest.hexdigest()


def alone(scenarios: list[str]) -> list[str]:
    return [result_digest(scenario) for scenario in scenarios]


def workers(scenarios: list[str]) -> list[str]:
    # the function is named as workers can import it, also where this file is the program
    from support.digests import result_digest

    with parallel_config(backend="loky", n_jobs=2):
        return list(Parallel()(delayed(result_digest)(scenario) for scenario in scenarios))


def dask(scenarios: list[str]) -> list[str]:
    import distributed

    from support.digests import result_digest

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        return list(
            client.gather([client.submit(result_digest, scenario, pure=False) for scenario in scenarios])
        )


WAYS: dict[str, Callable[[list[str]], list[str]]] = {"alone": alone, "workers": workers, "dask": dask}

if __name__ == "__main__":
    way, *named = sys.argv[1:]
    print(json.dumps(dict(zip(named, WAYS[way](named), strict=True))))
