"""From arguments to a command's typed dataclass: flags, `--config FILE.yaml`, and one clear message for every mistake.

The fields of the dataclass are the flags, their docstrings the help text. Flags keep the field's spelling; `--target-lat` is read as
`--target_lat`. A field that is true or false also works as a bare flag (`--print_lat`).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse
import yaml

from tfnas.cli.edge import version_text
from tfnas.cli.help import FlagGroup, PlainHelp
from tfnas.cli.kinds import Kind, kinds_of
from tfnas.errors import InputError

C = TypeVar("C")

_OWN_FLAGS = ("help", "version", "config", "print_config")
_BOOLEANS = ("true", "false", "yes", "no")


class FlagParser:
    """Reads the arguments of one command.

    `groups` must name every field of the dataclass once; `examples` end the help text.
    """

    def __init__(
        self, prog: str, config_class: type[Any], description: str, groups: Sequence[FlagGroup], examples: str
    ) -> None:
        self._config_class = config_class
        self._kinds = kinds_of(config_class)
        assert sorted(name for group in groups for name in group.fields) == sorted(self._kinds), "groups name all fields"
        jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
        self._parser = jsonargparse.ArgumentParser(
            prog=prog,
            usage=f"{prog} [--flag value ...]",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=PlainHelp,
            version=version_text(),
            exit_on_error=False,
            allow_abbrev=False,
        )
        self._parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of flags and values.")
        for group in groups:
            self._add(group)

    def _add(self, group: FlagGroup) -> None:
        section = self._parser.add_argument_group(group.title, group.description)
        others = set(self._kinds) - set(group.fields)
        section.add_class_arguments(self._config_class, None, as_group=False, skip=others)
        for action in section._group_actions:
            action.metavar = self._kinds[action.dest].metavar(action.dest)

    def read(self, arguments: Sequence[str], config_class: type[C]) -> C:
        """The dataclass that the arguments make. Raises InputError saying which flag or file is wrong, and why."""
        tidy = [self._tidy(argument) for argument in arguments]
        tidy = [_with_value(argument, following, self._kinds) for argument, following in _pairs(tidy)]
        files = self._check_files(tidy)
        try:
            values = self._parser.parse_args(tidy)
        except argparse.ArgumentError as error:
            self._explain(str(error), tidy, files)
        names = [item.name for item in dataclasses.fields(self._config_class)]
        return config_class(**{name: values[name] for name in names})

    def _tidy(self, argument: str) -> str:
        """The argument with its flag in underscores. Raises InputError for an unknown flag."""
        if not argument.startswith("--"):
            return argument
        flag, equals, value = argument.partition("=")
        name = flag[2:].replace("-", "_")
        if name not in self._kinds and name not in _OWN_FLAGS:
            raise InputError(f"unknown flag {flag}{self._suggestion(name, '--')}; --help lists all")
        return f"--{name}{equals}{value}"

    def _suggestion(self, name: str, prefix: str = "") -> str:
        close = difflib.get_close_matches(name, [*self._kinds, *_OWN_FLAGS], 1, cutoff=0.5)
        return f" (did you mean {prefix}{close[0]}?)" if close else ""

    def _check_files(self, arguments: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """The contents of the --config files by path. Raises InputError for what is no mapping of known fields."""
        files = {path: _read_yaml(path) for path in _values_of("--config", arguments)}
        for path, document in files.items():
            for name in document:
                if name not in self._kinds:
                    raise InputError(f"{path}: unknown field {name!r}{self._suggestion(str(name))}; --help lists all")
        return files

    def _explain(self, message: str, arguments: Sequence[str], files: Mapping[str, Mapping[str, Any]]) -> NoReturn:
        """Say in our words what the parser found wrong. Raises InputError."""
        field = re.match(r'Parser key "(\w+)":', message)
        if field is not None and field[1] in self._kinds:
            name, kind = field[1], self._kinds[field[1]]
            given = _values_of(f"--{name}", arguments)
            path = next((path for path, document in files.items() if name in document), None)
            if path is not None and not _is(kind, files[path][name]):
                raise InputError(f"{path}: {name} must be {kind.words}, got {files[path][name]!r}")
            raise InputError(f"--{name} must be {kind.words}, got {given[-1] if given else 'nothing'!r}")
        missing = re.search(r'"(\w+)"', message) if "required" in message else None
        if missing is not None:
            raise InputError(f"--{missing[1]} must be given; --help says more")
        lonely = re.match(r"argument (--\w+): expected", message)
        if lonely is not None:
            raise InputError(f"{lonely[1]} needs a value; --help says more")
        stray = re.match(r"unrecognized arguments: (.*)", message)
        if stray is not None:
            raise InputError(f"unexpected argument {stray[1]!r}: write --flag value; --help lists all flags")
        raise InputError(f"{' '.join(message.split())}; --help says more")
