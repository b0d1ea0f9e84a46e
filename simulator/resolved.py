"""A scenario as it is resolved: as the text that a result carries, and as a digest."""

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from simulator.input_files import NamedFile
from simulator.scenario import LoadedScenario, TooLargeError
from simulator.yaml_nodes import parse_scalar


def resolved_text(loaded: LoadedScenario) -> str:
    """Return the scenario as YAML, defaults written out, as a result carries it.

    It names the copies of its files that a saved result holds: from there it loads to an equal scenario.
    """
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(_resolved_data(loaded, lambda file: file.carried_name), stream)
    return stream.getvalue()


def scenario_sha256(loaded: LoadedScenario | TooLargeError) -> str:
    """Return a digest of the resolved scenario and of what the files that it names held when it was loaded.

    It is the same however the scenario's file is laid out, and wherever it and the others lie.
    """
    data = _resolved_data(loaded, lambda file: f"sha256:{loaded.files[file]}")
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _resolved_data(
    loaded: LoadedScenario | TooLargeError, name_of: Callable[[NamedFile], str]
) -> dict[str, Any]:
    """Return the scenario as plain data, its files named by `name_of`."""
    data = loaded.scenario.model_dump(mode="json")
    for file in loaded.files:
        *way, last = file.field
        holder: Any = data
        for key in way:
            holder = holder[key]
        holder[last] = name_of(file)
    return data


class _Representer(SafeRepresenter):
    """Writes text in quotes wherever `simulator.yaml_nodes` would read something else without them."""

    def represent_text(self, text: str) -> ScalarNode:
        """Return the node of a text."""
        try:
            is_plain = isinstance(parse_scalar(text), str)
        except ValueError:
            is_plain = False
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    def represent_nothing(self, _nothing: None) -> ScalarNode:
        """Return the node of None, which is easier to see as a word."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(str, _Representer.represent_text)
_Representer.add_representer(type(None), _Representer.represent_nothing)
