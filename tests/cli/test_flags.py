"""From arguments to a dataclass: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Literal

import pytest

from tfnas.cli import latency
from tfnas.cli.flags import FlagGroup, FlagParser
from tfnas.cli.running import running
from tfnas.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of a made-up command."""

    path: str
    """Where it is."""
    count: int | None = None
    """How many. Default: all."""
    rate: float = 0.5
    """How fast, 100 % at most."""
    kind: Literal["plain", "fancy"] = "plain"
    """Which kind."""
    print_lat: bool = False
    """Whether to time."""
    quick: bool | None = None
    """Whether to hurry."""
    seed: int = 0
    """Where randomness starts."""


def read(*arguments):
    groups = (
        FlagGroup("input", ("path", "kind", "count")),
        FlagGroup("how", ("rate", "print_lat", "quick", "seed"), "All of these can stay."),
    )
    return FlagParser("made_up.py", Settings, "What it does.", groups, "  {command} --path x").read(arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--count", "3", "--rate=1e-5"], {"count": 3, "rate": 1e-5}),
        (["--rate", "-5"], {"rate": -5.0}),
        (["--count", "3", "--count", "4"], {"count": 4}),
        (["--count", "null"], {"count": None}),
        (["--kind", "fancy"], {"kind": "fancy"}),
        (["--print_lat"], {"print_lat": True}),
        (["--print_lat", "--count", "3"], {"print_lat": True, "count": 3}),
        (["--print_lat", "false"], {"print_lat": False}),
        (["--print_lat=true", "--quick", "False"], {"print_lat": True, "quick": False}),
        (["--print-lat", "--quick"], {"print_lat": True, "quick": True}),
        (["--print-lat=false", "--quick", "--count", "2"], {"quick": True, "count": 2}),
    ],
)
def test_accepted(arguments, expected):
    assert read("--path", "p", *arguments) == Settings(path="p", **expected)


@pytest.mark.parametrize("text", ["123", "1e5", "null", "true", "{a: 1}", "[x", "a=b", "2020-01-01"])
def test_text_stays_text(text):
    assert read("--path", text).path == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--counts", "3"], r"unknown flag --counts \(did you mean --count\?\); --help"),
        (["--print-lats"], r"unknown flag --print-lats \(did you mean --print_lat\?\)"),
        (["--wholly_else=3"], "unknown flag --wholly_else; --help"),
        (["--coun", "3"], "unknown flag --coun"),
        (["--count", "three"], "--count must be a whole number, got 'three'"),
        (["--count=3.5"], "--count must be a whole number, got '3.5'"),
        (["--count", "3", "--count", "x"], "--count must be a whole number, got 'x'"),
        (["--rate", "fast"], "--rate must be a number, got 'fast'"),
        (["--kind", "fany"], "--kind must be one of plain, fancy, got 'fany'"),
        (["--print_lat=maybe"], "--print_lat must be true or false, got 'maybe'"),
        (["--count"], "--count needs a value"),
        (["stray"], "unexpected argument 'stray': write --flag value"),
        (["--print_lat", "maybe"], "unexpected argument 'maybe'"),
        (["--", "--count", "3"], "unexpected argument '--count 3'"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        read("--path", "p", *arguments)
    assert "\n" not in str(refusal.value)


def test_a_required_flag():
    with pytest.raises(InputError, match=r"^--path must be given; --help says more$"):
        read("--count", "3")


@dataclass(frozen=True, kw_only=True)
class MoreSettings(Settings):
    """Of a made-up command that takes more."""

    where: str
    """In which place."""


def test_all_required_flags_are_named_and_no_inherited_default_is():
    groups = (FlagGroup("all", ("path", "kind", "count", "rate", "print_lat", "quick", "seed", "where")),)
    parser = FlagParser("made_up.py", MoreSettings, "", groups, "")
    with pytest.raises(InputError, match=r"^--path, --where must be given; --help says more$"):
        parser.read([])
    assert parser.read(["--path", "p", "--where", "w"]) == MoreSettings(path="p", where="w")


BASE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal

@dataclass(frozen=True, kw_only=True)
class Base:
    kind: Literal["a", "b"] = "a"
    top: int = 1
"""
DERIVED = """
from __future__ import annotations
from dataclasses import dataclass
from base_of_settings import Base

@dataclass(frozen=True, kw_only=True)
class Other:
    count: int | None = None

@dataclass(frozen=True, kw_only=True)
class Derived(Other, Base):
    quick: bool = False
"""


def test_inherited_flags_are_checked_where_the_types_are_named_in_another_module(tmp_path, monkeypatch):
    (tmp_path / "base_of_settings.py").write_text(BASE)
    (tmp_path / "derived_settings.py").write_text(DERIVED)
    monkeypatch.syspath_prepend(tmp_path)
    derived = importlib.import_module("derived_settings").Derived
    parser = FlagParser("made_up.py", derived, "", (FlagGroup("all", ("kind", "top", "count", "quick")),), "")
    assert parser.read(["--kind", "b", "--top", "3"]) == derived(kind="b", top=3)
    for arguments, message in ((["--kind", "c"], "--kind must be one of a, b"), (["--count", "x"], "--count must be")):
        with pytest.raises(InputError, match=message):
            parser.read(arguments)


def test_config_files_and_flags(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("path: there\nrate: 1e-3\nprint_lat: true\nquick: no\ncount: null\n")
    assert read("--config", str(file)) == Settings(path="there", rate=1e-3, print_lat=True, quick=False)
    assert read("--config", str(file), "--rate", "2", "--path=here").path == "here"
    assert read("--config", str(file), "--rate", "2").rate == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count: three", r"settings\.yaml: count must be a whole number, got 'three'"),
        ("count: 3.5", "count must be a whole number, got 3.5"),
        ("count: true", "count must be a whole number, got True"),
        ("count: '3'", "count must be a whole number, got '3'"),
        ("path: 3", "path must be text, got 3"),
        ("path: [a]", r"path must be text, got \['a'\]"),
        ("rate: fast", "rate must be a number, got 'fast'"),
        ("rate: null", "rate must be a number, got None"),
        ("kind: fany", "kind must be one of plain, fancy, got 'fany'"),
        ("print_lat: 1", "print_lat must be true or false, got 1"),
        ("counts: 3", r"settings\.yaml: unknown field 'counts' \(did you mean count\?\)"),
        ("config: other.yaml", "unknown field 'config'"),
        ("3: 4", "unknown field 3"),
        ("path: a\ncount: 3\npath: b", r"settings\.yaml is not YAML: duplicate key 'path' in .*line 3"),
        ('{"path": "a", "path": "b"}', r"settings\.yaml is not YAML: duplicate key 'path'"),
        ("? [path, count]\n: 3", "settings.yaml is not YAML: .*unhashable key"),
        ("path: [", r"settings\.yaml is not YAML"),
        ("- path", "must contain lines like"),
        ("", "must contain lines like"),
        ("!!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
    ],
)
def test_config_files_refused(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    for arguments in (["--config", str(file)], [f"--config={file}"]):
        with pytest.raises(InputError, match=message) as refusal:
            read("--path", "p", *arguments)
        assert "\n" not in str(refusal.value)


def test_a_missing_config_file(tmp_path):
    with pytest.raises(InputError, match=r"the --config file .*none\.yaml cannot be read"):
        read("--path", "p", "--config", str(tmp_path / "none.yaml"))


def test_print_config_can_be_read_back(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        read("--path", "p", "--rate", "0.25", "--print_lat", "--print_config")
    file = tmp_path / "settings.yaml"
    file.write_text(capsys.readouterr().out)
    assert read("--config", str(file)) == Settings(path="p", rate=0.25, print_lat=True)


def test_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    text = capsys.readouterr().out
    assert "usage: made_up.py [--flag value ...]" in text
    assert text.index("input:") < text.index("--path") < text.index("how:") < text.index("--rate X")
    assert "How fast, 100 % at most. (default: 0.5)" in text
    assert "How many. Default: all.\n" in text
    assert "Where randomness starts. (default: 0)" in text
    assert "--kind {plain,fancy}" in text
    assert "examples:\n  python made_up.py --path x" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_groups_must_name_every_field():
    with pytest.raises(AssertionError, match="seed"):
        FlagParser("made_up.py", Settings, "", (FlagGroup("all", ("path", "kind", "count")),), "")


def renamed_parser():
    """As if --count had been called --number and the kind fancy had been called ornate."""
    groups = (FlagGroup("all", ("path", "kind", "count", "rate", "print_lat", "quick", "seed")),)
    deprecated = {"number": "count", "show_lat": "print_lat", "kind=ornate": "kind=fancy"}
    return FlagParser("made_up.py", Settings, "What it does.", groups, "  {command}", deprecated=deprecated)


@pytest.mark.parametrize(
    ("arguments", "given", "warning"),
    [
        (["--number", "3"], {"count": 3}, "^--number is deprecated: use --count$"),
        (["--number=null"], {"count": None}, "^--number is deprecated"),
        (["--show-lat", "--quick"], {"print_lat": True, "quick": True}, "^--show_lat is deprecated: use --print_lat$"),
        (["--show_lat", "no"], {"print_lat": False}, "^--show_lat is deprecated"),
        (["--kind", "ornate"], {"kind": "fancy"}, "^--kind=ornate is deprecated: use --kind=fancy$"),
        (["--kind=ornate"], {"kind": "fancy"}, "^--kind=ornate is deprecated"),
    ],
)
def test_former_names_are_accepted_with_a_warning(arguments, given, warning):
    with pytest.warns(DeprecationWarning, match=warning) as warned:
        assert renamed_parser().given(["--path", "p", *arguments]) == {"path": "p", **given}
    assert len(warned) == 1


def test_former_names_in_a_file(tmp_path):
    """One that --print_config wrote before they changed."""
    file = tmp_path / "settings.yaml"
    file.write_text("path: p\nnumber: 3\nkind: ornate\n")
    with pytest.warns(DeprecationWarning) as warned:
        assert renamed_parser().read(["--config", str(file)]) == Settings(path="p", count=3, kind="fancy")
    assert len(warned) == 2
    file.write_text("path: p\nnumber: 3\ncount: 3\n")
    with (
        pytest.warns(DeprecationWarning),
        pytest.raises(InputError, match=r"settings\.yaml gives count twice"),
    ):
        renamed_parser().read(["--config", str(file)])


def test_former_names_are_checked_like_todays(capsys):
    for arguments, message in (
        (["--number", "three"], "--count must be a whole number, got 'three'"),
        (["--number", "3", "--count", "3"], "--number and --count are the same flag: give one of them"),
        (["--numbr", "3"], "unknown flag --numbr"),
    ):
        with warnings.catch_warnings(), pytest.raises(InputError, match=message):
            warnings.simplefilter("ignore")
            renamed_parser().read(["--path", "p", *arguments])
    with pytest.raises(SystemExit, match="0"):
        renamed_parser().read(["--help"])
    shown = capsys.readouterr().out
    assert "--number" not in shown and "ornate" not in shown and "--show_lat" not in shown


@pytest.mark.parametrize("rank", [0, 1])
def test_a_command_says_a_deprecation_on_one_line(capsys, monkeypatch, rank):
    """Of several processes the first says it."""
    monkeypatch.setenv("RANK", str(rank))
    with running("made_up.py", ["--path", "p", "--number", "3"]) as command:
        renamed_parser().read(command.arguments)
    line = "made_up.py: warning: --number is deprecated: use --count\n"
    assert (command.status, capsys.readouterr().err) == (0, "" if rank else line)


def test_a_printed_configuration_is_not_asked_for_twice(capsys):
    """By a reading that failed before it, of the same parser."""
    parser = renamed_parser()
    with pytest.raises(InputError, match="unknown flag --pth"):
        parser.read(["--print_config", "--pth", "p"])
    assert parser.read(["--path", "p"]) == Settings(path="p") and capsys.readouterr().out == ""


@dataclass(frozen=True, kw_only=True)
class Calling:
    """Of a made-up command that runs another."""

    call: str | None = None
    """What to run."""
    count: int = 1
    """How often."""


def read_calling(*arguments):
    groups = (FlagGroup("all", ("call", "count")),)
    return FlagParser("made_up.py", Calling, "", groups, "", command_line_only=("call",)).read(arguments)


def test_a_field_of_the_command_line_comes_from_no_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("count: 2\ncall: touch /tmp/here\n")
    words = r"settings\.yaml: call must not be in a file: give it on the command line, as --call"
    for arguments in (["--config", str(file)], [f"--config={file}"], ["--config", str(file), "--call", "true"]):
        with pytest.raises(InputError, match=words):
            read_calling(*arguments)
    file.write_text("count: 2\ncall: null\n")  # as --print_config says it
    assert read_calling("--config", str(file)) == Calling(count=2)
    assert read_calling("--config", str(file), "--call", "true") == Calling(count=2, call="true")


def test_print_config_leaves_out_what_a_file_must_not_give(tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        read_calling("--call", "touch here", "--count", "3", "--print_config")
    printed = capsys.readouterr().out
    assert "touch" not in printed
    (tmp_path / "settings.yaml").write_text(printed)
    assert read_calling("--config", str(tmp_path / "settings.yaml")) == Calling(count=3)
    with pytest.raises(SystemExit, match="0"):
        read_calling("--help")
    assert "Print all settings but --call, as --config" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", ["build", "check", "close"])
def test_the_worker_comes_from_the_command_line_only(tmp_path, command, capsys):
    file, made = tmp_path / "settings.yaml", tmp_path / "made"
    file.write_text(f"worker: touch {made}\n")
    assert latency.main([command, "--config", str(file)]) == 2
    assert "worker must not be in a file" in capsys.readouterr().err
    assert not made.exists()


@dataclass(frozen=True, kw_only=True)
class Sorting:
    """Of a made-up command that takes words."""

    images: tuple[str, ...] = ()
    """What to sort."""
    path: str = "here"
    """Where it is."""
    top: int = 1
    """How many."""
    quick: bool = False
    """Whether to hurry."""


def read_words(*arguments):
    groups = (FlagGroup("IMAGES", (), "What to sort."), FlagGroup("how", ("path", "top", "quick")))
    return FlagParser("made_up.py", Sorting, "Sorts.", groups, "", positional="images").read(arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["a", "b"], {"images": ("a", "b")}),
        (["a", "--top", "3", "b", "--path=c", "d"], {"images": ("a", "b", "d"), "top": 3, "path": "c"}),
        (["--quick", "a", "--top", "-3"], {"images": ("a",), "quick": True, "top": -3}),
        (["--quick", "no", "a"], {"images": ("a",), "quick": False}),
        (["--quick", "a", "b", "--quick"], {"images": ("a", "b"), "quick": True}),
        (["--", "a", "--quick", "no"], {"images": ("a", "--quick", "no")}),
        (["a", "--path=-x", "--", "--top", "-y", "--"], {"images": ("a", "--top", "-y", "--"), "path": "-x"}),
        (["1", "null", "[x", "a=b", ""], {"images": ("1", "null", "[x", "a=b", "")}),
        (["--path", "a", "a"], {"images": ("a",), "path": "a"}),
    ],
)
def test_words(arguments, expected):
    assert read_words(*arguments) == Sorting(**expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-x"], "unknown flag -x; a file of that name goes behind --"),
        (["a", "--images", "b"], "unknown flag --images"),
        (["a", "--top"], "--top needs a value"),
        (["a", "--top", "--quick"], "--top needs a value"),
        (["--top", "b", "a"], "--top must be a whole number, got 'b'"),
    ],
)
def test_words_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        read_words(*arguments)


def test_words_in_the_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        read_words("--help")
    text = capsys.readouterr().out
    assert "usage: made_up.py [--flag value ...] IMAGES ..." in text
    assert "IMAGES:\n  What to sort." in text
    assert "--images" not in text


def test_a_config_file_beside_words(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("top: 4\n")
    assert read_words("a", "--config", str(file), "b") == Sorting(images=("a", "b"), top=4)
