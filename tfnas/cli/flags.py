"""From arguments to a command's typed dataclass: flags, `--config FILE.yaml`, and one clear message for every mistake.

The fields of the dataclass are the flags, their docstrings the help text. Flags keep the field's spelling, and
`--target-lat` is read as `--target_lat`. A field that is true or false also works as a bare flag (`--print_lat`). A
command may take words without a flag besides (`predict IMAGE ...`); what follows a lone `--` is words only.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

import jsonargparse

from tfnas.cli.edge import version_text
from tfnas.cli.groups import FlagGroup
from tfnas.cli.help import PlainHelp
from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_yaml
from tfnas.utils.annotations import kinds_of

C = TypeVar("C")

_OWN_FLAGS = ("help", "version", "config", "print_config")
_BOOLEANS = ("true", "false", "yes", "no")


class FlagParser(Generic[C]):
    """Reads the arguments of one command.

    `given` holds, after reading, the names of what was said, by flag or in a file.
    `groups` must name every field of the dataclass once; `examples` end the help text, with {command} for the program.
    `words` is the field, a tuple of texts, that takes the arguments that belong to no flag; without, there may be none.
    `aliases` are other spellings of flags: on the command line only, and not both at once.
    `command_line_only` are fields that no file may give, such as a command to run: a file may come from anybody. They
    must be optional; `--print_config` leaves them empty.
    """

    def __init__(
        self,
        prog: str,
        config_class: type[C],
        description: str,
        groups: Sequence[FlagGroup],
        examples: str,
        words: str | None = None,
        aliases: Mapping[str, str] = MappingProxyType({}),
        command_line_only: Collection[str] = (),
    ) -> None:
        self._config_class = config_class
        self._command_line_only = command_line_only
        self._aliases = aliases
        self._words = words
        self.given: set[str] = set()
        self._kinds = {name: kind for name, kind in kinds_of(config_class).items() if name != words}
        grouped = [name for group in groups for name in group.fields]
        assert sorted(grouped) == sorted(self._kinds), set(grouped) ^ set(self._kinds)
        assert all(self._kinds[name].optional for name in command_line_only)
        described: Any = config_class  # a class with a type variable counts as no key of a cache
        self._parser = _parser_of(
            prog, described, description, tuple(groups), examples, words, tuple(command_line_only)
        )

    def read(self, arguments: Sequence[str]) -> C:
        """The dataclass that the arguments make. Raises InputError saying which flag or file is wrong, and why."""
        before, after = _split_at(arguments, "--") if self._words else (arguments, [])
        self._check_aliases(before)
        tidy = [self._tidy(argument) for argument in before]
        self.given = {argument[2:].partition("=")[0] for argument in tidy if argument.startswith("--")}
        tidy = [self._with_value(*pair) for pair in itertools.zip_longest(tidy, tidy[1:], fillvalue="--")]
        words: list[str] = []
        if self._words:
            tidy, words = self._without_words(tidy)
        for path in _values_of("--config", tidy):
            self.given |= set(self._check_file(path))
        try:
            values = self._parser.parse_args(tidy)
        except argparse.ArgumentError as error:
            self._explain(str(error), tidy)
        fields = {name: values[name] for name in self._kinds}
        return self._config_class(**fields, **({self._words: (*words, *after)} if self._words else {}))

    def _without_words(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """The flags with their values, and the words. Raises InputError for a word that begins with a dash."""
        flags: list[str] = []
        words: list[str] = []
        waiting = iter(arguments)
        for argument in waiting:
            if argument.startswith("--") or argument == "-h":
                flags.append(argument)
                if argument[2:] in (*self._kinds, "config"):  # without =, so that its value is what follows
                    flags.extend(itertools.islice(waiting, 1))
            elif argument.startswith("-"):
                raise InputError(f"unknown flag {argument}; a file of that name goes behind --, as the last arguments")
            else:
                words.append(argument)
        return flags, words

    def _tidy(self, argument: str) -> str:
        """The argument, a flag in underscores. Raises InputError for an unknown flag."""
        if not argument.startswith("--"):
            return argument
        flag, equals, value = argument.partition("=")
        name = flag[2:].replace("-", "_")
        name = self._aliases.get(name, name)
        if name not in self._kinds and name not in _OWN_FLAGS:
            raise InputError(f"unknown flag {flag}{self._suggestion(name, '--')}; --help lists all flags")
        return f"--{name}{equals}{value}"

    def _check_aliases(self, arguments: Sequence[str]) -> None:
        """Raise InputError where a flag is given under both of its names."""
        said = {argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument[:2] == "--"}
        for alias, name in self._aliases.items():
            if {alias, name} <= said:
                raise InputError(f"--{alias} and --{name} are the same flag: give one of them")

    def _with_value(self, argument: str, following: str) -> str:
        """A flag that may stand alone, with the value that this means."""
        kind = self._kinds.get(argument[2:])
        stands_alone = kind is not None and kind.type is bool and following.lower() not in _BOOLEANS
        return f"{argument}=true" if stands_alone else argument

    def _suggestion(self, name: str, prefix: str = "") -> str:
        close = difflib.get_close_matches(name, [*self._kinds, *self._aliases, *_OWN_FLAGS], 1)
        return f" (did you mean {prefix}{close[0]}?)" if close else ""

    def _check_file(self, path: str) -> dict[Any, Any]:
        """What the file says. Raises InputError unless it is a mapping of fields to values of their kinds."""
        document = _read_yaml(path)
        for name, value in document.items():
            kind = self._kinds.get(name)
            if kind is None:
                raise InputError(f"{path}: unknown field {name!r}{self._suggestion(str(name))}; --help lists all flags")
            if name in self._command_line_only and value is not None:
                raise InputError(f"{path}: {name} must not stand in a file: give it on the command line, as --{name}")
            if not kind.accepts(value):
                raise InputError(f"{path}: {name} must be {kind.words}, got {value!r}")
        return document

    def _explain(self, message: str, arguments: Sequence[str]) -> NoReturn:
        """Say in our words what the parser found wrong on the command line. Raises InputError."""
        wrong = re.match(r'Parser key "(\w+)":', message)
        if wrong is not None and wrong[1] in self._kinds:
            name = wrong[1]
            given = _values_of(f"--{name}", arguments)[-1]
            raise InputError(f"--{name} must be {self._kinds[name].words}, got {given!r}")
        missing = re.search(r"arguments are required: (.*)", message)
        if missing is not None:
            raise InputError(f"--{missing[1]} must be given; --help says more")
        lonely = re.match(r"argument (--\w+): expected", message)
        if lonely is not None:
            raise InputError(f"{lonely[1]} needs a value; --help says more")
        stray = re.match(r"unrecognized arguments: (.*)", message)
        if stray is not None:
            hint = " (did you mean --model_path?)" if "model_path" in self._kinds else ""
            raise InputError(f"unexpected argument {stray[1]!r}{hint}: write --flag value; --help lists all flags")
        raise InputError(f"{' '.join(message.split())}; --help says more")


@functools.cache
def _parser_of(
    prog: str,
    config_class: type,
    description: str,
    groups: tuple[FlagGroup, ...],
    examples: str,
    words: str | None,
    command_line_only: tuple[str, ...],
) -> _Parser:
    """The parser of a command, made once in a process: that takes far longer than reading arguments."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--flag value ...]" + (f" {words.upper()} ..." if words else ""),
        description=description,
        epilog="examples:\n" + examples.format(command=f"python {prog}" if prog.endswith(".py") else prog),
        formatter_class=PlainHelp,
        version=version_text(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of settings.")
    parser.empty_in_dumps = command_line_only
    but = "".join(f" but --{name}" for name in command_line_only)
    text = f"Print all settings{but}, as --config reads them, and exit."
    _action_of(parser, "--print_config").help = text
    kinds = kinds_of(config_class)
    for group in groups:
        section = parser.add_argument_group(group.title, group.description)
        if group.fields:
            others = kinds.keys() - set(group.fields)
            section.add_class_arguments(config_class, None, as_group=False, skip=others)
            for action in section._group_actions:
                action.metavar = kinds[action.dest].metavar(action.dest)
    return parser


class _Parser(jsonargparse.ArgumentParser):
    """One whose `--print_config` says nothing of some fields."""

    empty_in_dumps: Collection[str] = ()

    def dump(self, namespace: jsonargparse.Namespace, *arguments: Any, **options: Any) -> str:
        """The settings as YAML, those fields as null."""
        shown = namespace.clone()
        for name in self.empty_in_dumps:
            shown[name] = None
        text: str = super().dump(shown, *arguments, **options)
        return text


def _action_of(parser: argparse.ArgumentParser, flag: str) -> argparse.Action:
    return parser._option_string_actions[flag]


def _split_at(arguments: Sequence[str], mark: str) -> tuple[list[str], list[str]]:
    """What stands before the first such argument, and what behind it."""
    place = list(arguments).index(mark) if mark in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place + 1 :])


def _values_of(flag: str, arguments: Sequence[str]) -> list[str]:
    """The values given to a flag, as `--flag value` or `--flag=value`."""
    joined = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{flag}=")]
    return [following for argument, following in itertools.pairwise(arguments) if argument == flag] + joined


def _read_yaml(path: str) -> dict[Any, Any]:
    try:
        document = load_yaml(Path(path).read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"the --config file {path} is {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the --config file {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"the --config file {path} must hold lines like `target_lat: 15`, got {document!r:.60}")
    return document
