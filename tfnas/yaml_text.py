"""YAML that is not to be trusted: read whole, in one way only."""

from __future__ import annotations

from typing import Any

import yaml

from tfnas.errors import InputError
from tfnas.json_text import short


class StandsTwice(InputError):
    """A mapping names a field twice; readers take different ones, so neither is to be believed."""


def load_yaml(text: str) -> Any:
    """The document in the text of a YAML file.

    Raises InputError, on one line, where it is not YAML, asks for anything but text, numbers, dates and containers, or
    is nested too deeply; StandsTwice, an InputError, where it names a field twice.
    """
    try:
        return yaml.load(text, _OnceLoader)
    except StandsTwice:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Of values that its tags do not fit (`!!int x`, `2020-13-45`), the library's own code raises the latter.
        raise InputError(f"not YAML: {' '.join(str(error).split())}") from error


class _OnceLoader(yaml.SafeLoader):
    """The safe loader, but for mappings that name a field twice, of which that takes the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it is written, without what `<<` brings in. Raises StandsTwice, placing the second."""
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    raise StandsTwice(
                        f"not YAML: {short(key.value)} stands twice in one mapping, at line {line}, column {column}"
                    )
                names.add(key.value)
        return node
