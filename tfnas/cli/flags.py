"""From a command line to a command's typed dataclass: flags, `--config FILE.yaml`, and one clear message per mistake.

jsonargparse makes the flags from the fields of the dataclass, reads their values by the fields' types and prints
`--print_config`. Done here, because neither it nor argparse does:

* flags in two spellings (`--target-lat` is `--target_lat`), and flags that have been renamed
* a flag of true or false that may stand alone, before a positional argument too: `predict --json photo.jpg`
* positional arguments between flags, which jsonargparse refuses
* files read once, without running anything; messages in a user's words, where theirs speak of Python's types
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import jsonargparse

from tfnas.cli.running import show_version, version_text
from tfnas.core.errors import InputError, did_you_mean
from tfnas.core.json_yaml import FieldType, field_types, load_yaml

C = TypeVar("C")

_BOOLEANS = ("true", "false", "yes", "no")


@dataclass(frozen=True)
class FlagGroup:
    """A heading of the help text, the fields of the command's dataclass under it, and a line on all of them."""

    title: str
    fields: tuple[str, ...]
    description: str | None = None


@dataclass(frozen=True)
class FlagParser(Generic[C]):
    """Reads the arguments of one command into its dataclass, whose fields' docstrings are the help text."""

    prog: str
    """The program as the user typed it."""
    config_class: type[C]
    """The dataclass."""
    description: str
    """The first lines of the help text."""
    groups: tuple[FlagGroup, ...]
    """Its headings, which name every field once."""
    examples: str
    """Its end, with {command} for the program."""
    positional: str | None = None
    """The field, a tuple of texts, that takes the positional arguments. None: there may be none."""
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other names of flags, to their own: on the command line only, and not both at once."""
    deprecated: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Former names of flags, or of their choices as `flag=choice`, to those of today; files may hold them too."""
    command_line_only: tuple[str, ...] = ()
    """Fields that no file may give, such as a command to run: files come from anybody. `--print_config` omits them."""

    def __post_init__(self) -> None:
        grouped = [name for group in self.groups for name in group.fields]
        assert sorted(grouped) == sorted(self.types), set(grouped) ^ set(self.types)
        assert all(self.types[name].optional for name in self.command_line_only)

    @functools.cached_property
    def types(self) -> dict[str, FieldType]:
        """What every flag takes."""
        return {name: one for name, one in field_types(self.config_class).items() if name != self.positional}

    def read(self, arguments: Sequence[str]) -> C:
        """The dataclass that the arguments make. Raises InputError saying which flag or file is wrong, and why."""
        return self.config_class(**self.given(arguments))

    def given(self, arguments: Sequence[str]) -> dict[str, Any]:
        """What the arguments say, by flag or in a file; what they leave out keeps its default. Raises as `read`."""
        if "--version" in arguments:
            show_version()
        parser = _parser(self)
        values: dict[str, Any] = parser.parse_args(arguments, defaults=False).as_dict()
        return {**values, self.positional: parser.positionals} if self.positional else values

    def settings(self, path: str) -> dict[str, Any]:
        """What a YAML file says. Raises InputError unless it is a mapping of fields to values of their types."""
        settings: dict[str, Any] = {}
        for said, value in _read_yaml(path).items():
            name = self.current(said)
            if name not in self.types:
                hint = did_you_mean(str(name), self.types)
                raise InputError(f"{path}: unknown field {name!r}{hint}; --help lists all flags")
            if name in self.command_line_only and value is not None:
                raise InputError(f"{path}: {name} must not be in a file: give it on the command line, as --{name}")
            if name in settings:
                raise InputError(f"{path} gives {name} twice, once under its former name")
            checked = self.types[name].checked(self.current_choice(name, value), f"{path}: {name}")
            settings[name] = float(checked) if self.types[name].type is float and checked is not None else checked
        return settings

    def current(self, name: str) -> str:
        """The name that a flag, or a `flag=choice`, has today. Warns where this one is deprecated."""
        if name not in self.deprecated:
            return name
        new = self.deprecated[name]
        warnings.warn(f"--{name} is deprecated: use --{new}", DeprecationWarning, stacklevel=2)
        return new

    def current_choice(self, name: str, value: Any) -> Any:
        """The value of a field, a choice under the name that it has today. Warns where this one is deprecated."""
        former = f"{name}={value}"
        return self.current(former).partition("=")[2] if former in self.deprecated else value


class _Parser(jsonargparse.ArgumentParser):
    """The parser of a command. `positionals` are, after reading, the arguments that belong to no flag."""

    command: FlagParser[Any]
    positionals: tuple[str, ...] = ()

    def _parse_known_args(self, arg_strings: list[str], namespace: Any, **options: Any) -> Any:
        """As argparse's, which leaves over what belongs to no flag: unknown flags and positional arguments."""
        vars(self).pop("print_config", None)  # asked for in an earlier reading, which failed
        self._said: set[str] = set()
        self._following = iter(arg_strings[1:])
        try:
            namespace, left = super()._parse_known_args(arg_strings, namespace, **options)
        except TypeError as error:
            action, texts = self._reading
            description = self.command.types[action.dest].description
            raise InputError(f"--{action.dest} must be {description}, got {texts[-1]!r}") from error
        for other, name in {**self.command.aliases, **self.command.deprecated}.items():
            if {other, name} <= self._said:
                raise InputError(f"--{other} and --{name} are the same flag: give one of them")
        self._take_positionals(left)
        left_out = [name for name in self.command.types if name not in namespace]
        # a field without a default is no attribute of its class
        missing = [f"--{name}" for name in left_out if not hasattr(self.command.config_class, name)]
        if missing and not hasattr(self, "print_config"):
            raise InputError(f"{', '.join(missing)} must be given; --help says more")
        return namespace, []

    def _parse_optional(self, arg_string: str) -> Any:
        """As argparse's, which asks about each argument in turn, of a flag under its own name and with its value."""
        following = next(self._following, "")
        said = _name(arg_string)
        if said is not None:
            self._said.add(said)
            name = self.command.current(self.command.aliases.get(said, said))
            _, equals, value = arg_string.partition("=")
            type_ = self.command.types.get(name)
            if type_ and type_.type is bool and not equals and following.lower() not in _BOOLEANS:
                equals, value = "=", "true"
            arg_string = f"--{name}{equals}{value}"
        return super()._parse_optional(arg_string)  # type: ignore[no-untyped-call]

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        texts = [self.command.current_choice(action.dest, text) for text in arg_strings]
        self._reading = action, tuple(texts)
        return super()._get_values(action, texts)

    def _take_positionals(self, left: Sequence[str]) -> None:
        """Take what belongs to no flag. Raises InputError for unknown flags, and where there may be no others."""
        end = left.index("--") if "--" in left else len(left)
        self.positionals = (*left[:end], *left[end + 1 :])
        for argument in left[:end]:
            name = _name(argument)
            if name is not None:
                known = *self._option_string_actions, *(f"--{alias}" for alias in self.command.aliases)
                flag, hint = argument.partition("=")[0], did_you_mean(f"--{name}", known)
                raise InputError(f"unknown flag {flag}{hint}; --help lists all flags")
            if self.command.positional and argument.startswith("-"):
                raise InputError(f"unknown flag {argument}; a file of that name goes behind --, as the last arguments")
        if self.positionals and not self.command.positional:
            hint = " (did you mean --model_path?)" if "model_path" in self.command.types else ""
            stray = " ".join(self.positionals)
            raise InputError(f"unexpected argument {stray!r}{hint}: write --flag value; --help lists all flags")

    def dump(self, namespace: jsonargparse.Namespace, *arguments: Any, **options: Any) -> str:
        """All settings as YAML, those of the command line only as null."""
        shown = self.get_defaults()
        shown.update(namespace)
        for name in self.command.command_line_only:
            shown[name] = None
        text: str = super().dump(shown, *arguments, **options)
        return text

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise InputError."""
        if isinstance(ex, argparse.ArgumentError) and ex.argument_name:
            what = "needs a value" if ex.message == "expected one argument" else ex.message
            message = f"{ex.argument_name} {what}"
        raise InputError(f"{message}; --help says more") from ex


class _ConfigFile(jsonargparse.ActionConfigFile):  # type: ignore[name-defined, misc]
    """`--config FILE`: what stands in the file, as if it were said here."""

    def __call__(self, parser: Any, cfg: Any, values: Any, *_: Any) -> None:
        for name, value in parser.command.settings(values).items():
            cfg[name] = value


class _PlainHelp(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Without types and without defaults that say nothing; the examples at the end keep their lines."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        says_nothing = action.default is None or action.default is False or action.default in ("", argparse.SUPPRESS)
        return text if says_nothing or "Default:" in text else f"{text} (default: %(default)s)"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = ", ".join(action.option_strings)
        return f"{names} {action.metavar}" if action.metavar else names


@functools.cache
def _parser(command: FlagParser[Any]) -> _Parser:
    """The parser of a command, made once in a process: that takes far longer than reading arguments."""
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    prog = command.prog
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [--flag value ...]" + (f" {command.positional.upper()} ..." if command.positional else ""),
        description=command.description,
        epilog="examples:\n" + command.examples.format(command=f"python {prog}" if prog.endswith(".py") else prog),
        formatter_class=_PlainHelp,
        version=version_text(),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.command = command
    # jsonargparse seeks what inherited annotations name in the subclass's module alone, and else accepts anything
    command.config_class.__init__.__annotations__.update(typing.get_type_hints(command.config_class))
    parser.add_argument("--config", action=_ConfigFile, metavar="FILE", help="YAML file of settings.")
    flags = parser._option_string_actions
    but = "".join(f" but --{name}" for name in command.command_line_only)
    flags["--print_config"].help = f"Print all settings{but}, as --config reads them, and exit."
    for group in command.groups:
        section = parser.add_argument_group(group.title, group.description)
        if group.fields:
            others = {item.name for item in dataclasses.fields(command.config_class)} - set(group.fields)
            section.add_class_arguments(command.config_class, None, as_group=False, skip=others)
        for name in group.fields:
            flags[f"--{name}"].metavar = command.types[name].metavar(name)
    return parser


def _name(argument: str) -> str | None:
    """The name of the flag that an argument is, in the spelling of fields; None for other arguments."""
    return argument[2:].partition("=")[0].replace("-", "_") if argument.startswith("--") else None


def _read_yaml(path: str) -> dict[Any, Any]:
    try:
        document = load_yaml(Path(path).read_text(encoding="utf-8"))
    except InputError as error:
        raise InputError(f"the --config file {path} is {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the --config file {path} cannot be read: {reason}. Give a YAML file; --print_config writes one"
        ) from error
    if not isinstance(document, dict):
        raise InputError(f"the --config file {path} must contain lines like `target_lat: 15`, got {document!r:.60}")
    return document
