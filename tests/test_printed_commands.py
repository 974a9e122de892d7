"""Every command that is printed for the user to type next: the command that it names takes it, and it runs."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from small_search import middle_ms, write_inputs
from tiny import tiny_contents, tiny_space

import tfnas
from tfnas.bench.benches import table_conditions
from tfnas.cli import flags, latency, main, train_eval, train_search
from tfnas.core.errors import InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import open_table, search_remarks
from tfnas.latency.meet_target import meet_target
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.run_directory import RunDirectory
from tfnas.searching.differentiable.inherited_evaluation import uniform_choice
from tfnas.searching.differentiable.search_conclusion import _close_command
from tfnas.searching.refitting import refit_plan as plan
from tfnas.searching.refitting.certificate import Certificate
from tfnas.searching.refitting.refit_loop import RefitResult, TimedNetwork
from tfnas.searching.refitting.refit_run import next_steps
from tfnas.searching.reranking.finished_search import open_search
from tfnas.spaces.mbconv.space_file import space_arguments
from tfnas.utils.text import SCRIPTS, command_line, say

PROJECT = Path(tfnas.__file__).resolve().parents[1]
PROGRAM = r"(?:[\w./-]*/)?(?:python[0-9.]* (?:-m tfnas|[\w./-]+\.py)|tfnas(?= [a-z]+ ))"
WORD = r"""(?:'[^']*'|"[^"]*"|[^\s()'";])+"""
PRINTED = re.compile(rf"(?:^|(?<=[ (]))({PROGRAM}(?: {WORD})+)", re.MULTILINE)
PLACEHOLDERS = {"FILE": "new.json", "NAME": "digits", "FOLDER": "photos", "COMMAND": "ssh pi@raspberrypi python3 -"}
"""What the user alone knows."""

PATHS = ("model_path", "lookup_path", "inherit", "snapshot", "resume")


class _Read(Exception):
    """In place of running a command: the configuration that its arguments make."""


def printed_commands(text):
    return [found.rstrip(".,") for found in PRINTED.findall(text)]


def arguments_of(line):
    """The words behind the program, the name of the command first."""
    words = shlex.split(line)
    if words[1:3] == ["-m", "tfnas"]:
        return words[3:]
    if words[1].endswith(".py"):
        return [next(name for name, scripts in SCRIPTS.items() if Path(words[1]).name in scripts), *words[2:]]
    return words[1:]


@pytest.fixture
def meaning(monkeypatch):
    """What reads a printed command as its own parser does, and sees that the files are there."""

    def read_only(parser, arguments, given=flags.FlagParser.given):
        raise _Read(parser.config_class(**given(parser, arguments)))

    def meant(line):
        words = [PLACEHOLDERS.get(word, word) for word in arguments_of(line)]
        with monkeypatch.context() as patched:
            patched.setattr(flags.FlagParser, "given", read_only)
            with pytest.raises(_Read) as found:  # wrong flags would be told, with an exit status
                main.main(words)
        (config,) = found.value.args
        for name in PATHS:
            value = getattr(config, name, None)
            assert value is None or value in PLACEHOLDERS.values() or Path(value).exists(), line
        return config

    return meant


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of files whose names a shell would take apart: where everything is made."""
    made = tmp_path_factory.mktemp("what") / "it's here"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def searched(folder):
    """What a search of a space of one's own prints, with its run directory."""
    inputs = write_inputs(folder)
    given = ["--space", inputs["space"], "--lookup_path", inputs["lookup_path"], "--run_dir", str(folder / "a run")]
    return run_in(folder, train_search.main, *given, "--target_lat", f"{middle_ms(inputs):.6g}", "--device", "cpu")


def run_in(folder, command, *arguments, status=0):
    """What a command prints, in this process, to both of its outputs."""
    out, err = sys.stdout, sys.stderr
    with (folder / "said").open("w") as said:
        sys.stdout = sys.stderr = said
        try:
            ended = command(list(arguments))
        finally:
            sys.stdout, sys.stderr = out, err
    text = (folder / "said").read_text()
    assert ended == status, text
    return text


def test_a_search_names_what_comes_next(searched, folder, meaning):
    parse, close, train = (meaning(line) for line in printed_commands(searched[searched.index("next  ") :]))
    assert parse.model_path == close.model_path == train.inherit == str(folder / "a run")
    assert type(parse).__name__ == "ParseAndRerankConfig" and type(close).__name__ == "CloseConfig"


def test_where_closing_the_loop_takes_more(tmp_path, meaning, monkeypatch):
    """A table of another device needs a command; one of a GPU, a GPU; one that counts, nothing at all."""
    run = RunDirectory(tmp_path, Console(quiet=True))
    contents = tiny_contents(tiny_space(), random.Random(1))

    def of(**changes):
        measured = dataclasses.replace(contents.measurement, **changes)
        return list(_close_command(run, LatencyTable(dataclasses.replace(contents, measurement=measured))))

    (line,) = of(worker=True)
    assert meaning(line).worker == PLACEHOLDERS["COMMAND"]
    for there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        assert len(of(device_kind="cuda")) == there
    assert list(_close_command(run, LatencyTable(dataclasses.replace(contents, cost="macs")))) == []


def test_training_names_what_comes_next(searched, folder, meaning):
    few = ["--epochs", "1", "--batch_size", "96", "--device", "cpu", "--threads", "1"]
    said = run_in(folder, train_eval.main, "--inherit", str(folder / "a run"), "--run_dir", str(folder / "b"), *few)
    lines = printed_commands(said[said.index("next  ") :])
    test, export = (meaning(line) for line in lines[:2])
    assert test.model_path == export.model_path == str(folder / "b")
    (folder / "b" / "model.onnx").touch()  # as the export before it makes it
    certify = meaning(lines[2])
    assert certify.file == (str(folder / "b" / "model.onnx"),) and certify.batch == 32 and certify.target_lat > 0
    (folder / "b" / "model.onnx").unlink()


@pytest.mark.parametrize("command", [train_search.main, train_eval.main])
def test_how_to_resume(folder, searched, meaning, command):
    """Told by an error in the middle: the loss leaves the range of numbers."""
    where = str(folder / f"broken {command.__module__}")
    inputs = write_inputs(folder)
    given = ["--space", inputs["space"], "--lookup_path", inputs["lookup_path"], "--w_lr", "1e30", "--target_lat"]
    given += [f"{middle_ms(inputs):.6g}"]
    if command is train_eval.main:
        given = ["--model_path", str(folder / "a run"), "--lr", "1e30", "--batch_size", "96"]
    said = run_in(folder, command, *given, "--device", "cpu", "--run_dir", where, status=1)
    (line,) = printed_commands(said[said.index("Resume with") :])
    config = meaning(line)
    assert (getattr(config, "resume", None) or config.snapshot) == where
    if command is train_eval.main:
        with pytest.raises(InputError) as refused:
            TrainedModel.load(where)
    else:
        with pytest.raises(InputError) as refused:
            open_search(where, None)
    (again,) = printed_commands(str(refused.value))
    assert meaning(again) == config


def test_what_makes_a_trained_model(folder, searched, meaning):
    with pytest.raises(InputError) as refused:
        TrainedModel.load(folder / "a run")
    (line,) = printed_commands(str(refused.value))
    assert meaning(line).model_path == str(folder / "a run")
    with pytest.raises(InputError) as refused:
        plan._refuse_training(folder / "a run", {"train_root": None})
    (line,) = printed_commands(str(refused.value))
    assert meaning(line).file == (str(folder / "a run"),)


@pytest.mark.parametrize("cost", ["ms", "macs"])
@pytest.mark.parametrize(
    ("given", "image_size", "multiple"), [([], 8, 1), (["--image_size", "12", "--width_multiple", "2"], 12, 2)]
)
def test_building_names_what_comes_next(folder, meaning, monkeypatch, cost, given, image_size, multiple):
    """For a space of one's own the check wants its file; the space and the table fit together as they are named."""
    inputs, out = write_inputs(folder), folder / "my table.json"

    def built(config, **_):
        contents = tiny_contents(config.opened_space(), random.Random(2))
        measured = dataclasses.replace(contents.measurement, width_multiple=multiple)
        LatencyTable(dataclasses.replace(contents, measurement=measured)).save(out)
        return LatencyTable.load(out)

    monkeypatch.setattr("tfnas.bench.build_table.build_table", built)
    worker = ["--worker", "ssh 'my pi' python3 -", "--worker_timeout", "90"]
    built_with = ["--space", inputs["space"], "--out", str(out), "--cost", cost, *given, *worker]
    said = run_in(folder, latency.main, "build", *built_with)
    *check, search = (meaning(line) for line in printed_commands(said[said.rindex("reachable") :]))
    assert len(check) == (cost == "ms")
    for config in check:
        assert (config.space, config.lookup_path) == (inputs["space"], str(out))
        assert (config.worker, config.worker_timeout) == ("ssh 'my pi' python3 -", 90)
    assert (search.space, search.lookup_path) == (inputs["space"], str(out))
    space = tfnas.space(search.space).at(search.image_size or 8).in_multiples_of(search.width_multiple or 1)
    assert (space.image_size, space.width_multiple) == (image_size, multiple)
    table = LatencyTable.load(out)
    found = meet_target(uniform_choice(space, 10), table, search.target_lat)  # for the digits: no gap of a coarse space
    assert 0.995 * search.target_lat <= table.architecture_ms(found) <= search.target_lat


def test_a_table_of_photographs_is_searched_with_photographs(folder, meaning):
    for name, data in (("imagenet", "folder"), ("cifar", "cifar10"), ("digits", None)):
        out = folder / f"{name}.json"
        said = run_in(folder, latency.main, "build", "--space", name, "--cost", "params", "--out", str(out))
        config = meaning(printed_commands(said)[-1])
        assert (config.data, config.space, config.img_root is None) == (data, name, data is None)


def test_a_target_out_of_reach_names_the_range(folder, meaning):
    inputs = write_inputs(folder)
    given = ["--space", inputs["space"], "--lookup_path", inputs["lookup_path"], "--target_lat", "1e6"]
    (line,) = printed_commands(run_in(folder, train_search.main, *given, "--image_size", "8", status=3))
    config = meaning(line)
    assert (config.space, config.lookup_path, config.num_classes) == (inputs["space"], inputs["lookup_path"], None)
    assert "reachable" in run_in(folder, latency.main, *arguments_of(line)[1:])


def test_how_to_measure_a_table(folder, meaning):
    space, named = tiny_space(name="mine"), write_inputs(folder)["space"]
    with pytest.raises(InputError) as refused:
        open_table(None, space, space_arguments(space, named))
    measured = dataclasses.replace(tiny_contents(space, random.Random(1)).measurement, device="Another")
    table = LatencyTable(dataclasses.replace(tiny_contents(space, random.Random(1)), measurement=measured))
    digits = tfnas.space("digits").at(24).in_multiples_of(2)
    (warning, *_) = search_remarks(table, shipped=True, space_flags=space_arguments(digits, None))
    unknown = LatencyTable(dataclasses.replace(table.contents, measurement=None, classifier=None))
    with pytest.raises(InputError) as unmeasured:
        table_conditions(unknown)
    with pytest.raises(InputError) as unsaid:
        unknown.save("x.json")
    with pytest.raises(InputError) as few:
        table.base_ms(2000)
    first, second = (printed_commands(text) for text in (str(refused.value), warning))
    assert (meaning(first[0]).space, meaning(first[0]).out) == (named, "mine_latency.json")
    config = meaning(second[0])
    assert (config.space, config.image_size, config.width_multiple) == ("digits", 24, 2)
    for error in (unmeasured, unsaid, few):
        assert meaning(printed_commands(str(error.value))[0]).out == PLACEHOLDERS["FILE"]
    assert meaning(printed_commands(str(few.value))[0]).num_classes == 2000


def test_a_closed_loop_names_its_training(searched, folder, meaning):
    """With the weights of its search, where that is still there."""
    architecture = tfnas.Architecture.load(folder / "a run")
    found = Certificate.of([10.0] * 64, 1.0)
    point = TimedNetwork(architecture, 10.0, found, "certify")
    closed = RefitResult(point, "inside", (point,), (5.0, 15.0), "certified")
    for searched_in, inherit in ((None, False), (str(folder / "a run"), True), (str(folder / "gone"), False)):
        config = type("Config", (), {"searched_in": searched_in})()
        made = type("RefitPlan", (), {"config": config})()
        (folder / "closed").mkdir(exist_ok=True)
        (line,) = printed_commands("\n".join(next_steps(made, closed, folder / "closed")))
        named = meaning(line)
        assert (named.inherit or named.model_path) == str(folder / "closed") and (named.inherit is None) == (
            not inherit
        )


# ---- the program, as it was typed ---------------------------------------------------------------------------------

STARTS = [
    (["python", "train_search.py"], ["python", "train_eval_amp.py"], ["python", "-m", "tfnas"]),
    (["python3", "train_eval.py"], ["python3", "train_eval.py"], ["python3", "-m", "tfnas"]),
    (
        ["my env/python", "./of it/test.py"],
        ["my env/python", "./of it/train_eval_amp.py"],
        ["my env/python", "-m", "tfnas"],
    ),
    (["python", "-m", "tfnas"], ["python", "-m", "tfnas", "train"], ["python", "-m", "tfnas"]),
    (["/there/python", "/there/tfnas"], ["/there/tfnas", "train"], ["/there/tfnas"]),
    (["/found/python", "/found/tfnas"], ["tfnas", "train"], ["tfnas"]),
    (["/found/python", "my_own.py"], ["python", "-m", "tfnas", "train"], ["python", "-m", "tfnas"]),
    (["/found/python", "gone/train_search.py"], ["python", "-m", "tfnas", "train"], ["python", "-m", "tfnas"]),
    ([], ["python", "-m", "tfnas", "train"], ["python", "-m", "tfnas"]),
]


@pytest.mark.parametrize(("typed", "training", "package"), STARTS)
def test_the_program_is_named_as_it_was_typed(tmp_path, monkeypatch, typed, training, package):
    monkeypatch.chdir(tmp_path)
    for place in (Path(), Path("of it")):
        place.mkdir(exist_ok=True)
        for name in (name for scripts in SCRIPTS.values() for name in scripts):
            (place / name).touch()
    monkeypatch.setattr(shutil, "which", lambda name: f"/found/{name}")
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(sys, "argv", ["/site/tfnas/__main__.py"] if "-m" in typed else typed[1:] or [""])
    assert shlex.split(command_line("train", "--inherit", "a b")) == [*training, "--inherit", "a b"]
    assert shlex.split(command_line("latency check", Path("t"))) == [*package, "latency", "check", "t"]
    together = shlex.split(command_line("train", launcher="torchrun --nproc_per_node=2"))
    script = training[1:] if training[-1].endswith(".py") else ["-m", "tfnas", "train"]
    assert together == ["torchrun", "--nproc_per_node=2", *script]


def test_in_the_checkout_the_scripts_are_named(monkeypatch):
    """To a program of the user's own too, as the tests of this package are one."""
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(sys, "argv", ["my_own.py"])
    assert command_line("search").endswith(" train_search.py") and command_line("export").endswith("-m tfnas export")


def test_a_command_is_shown_in_one_piece(capsys):
    """Prose is wrapped at a terminal's width; a command would not survive being copied from there."""
    line = command_line("latency certify", "a/long/path/" * 9, "--batch", "32")
    console = Console(width=60, force_terminal=True, color_system=None)
    for heading in ("next", ""):
        say(console, f"{heading:<10}{line}")
    say(console, "words     " + "prose " * 20)
    first, second, *prose = capsys.readouterr().out.splitlines()
    assert first == f"next      {line}" and second == f"          {line}" and len(prose) > 1


# ---- to the end -----------------------------------------------------------------------------------------------------

SHORTER = {
    "train": " --epochs 1 --batch_size 96 --device cpu",
    "search": " --device cpu",
    "check": " --time_budget 5s --num_networks 6",
    "close": " --time_budget 5s --epsilon 20%",
    "certify": " --time_budget 5s --epsilon 20%",
}
"""Flags that make a command end soon; whatever is printed stands before them as it was printed."""

UNDECIDED = 3  # the exit status where noise forbids what was to be certified


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "search"),
    [("python -m tfnas", "python train_search.py"), ("python -m tfnas",) * 2, ("tfnas", "tfnas search")],
)
def test_every_printed_command_runs(tmp_path, package, search):
    """From a first table and a first search on, all that is printed is typed into a shell, until nothing new is."""
    inputs = write_inputs(tmp_path)
    for name in (name for scripts in SCRIPTS.values() for name in scripts):
        shutil.copy(PROJECT / name, tmp_path)
    console_script = tmp_path / "bin" / "tfnas"
    console_script.parent.mkdir()
    console_script.write_text(
        f"#!{sys.executable}\nfrom tfnas.cli.main import main\nif __name__ == '__main__':\n    exit(main())\n"
    )
    console_script.chmod(0o755)
    found_first = f"{console_script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": found_first, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    search = search if search.endswith(("py", "search")) else f"{search} search"
    waiting = [
        f"{package} latency build --space tiny.yaml --out 'my table.json' --time_budget 5s",
        f"{search} --space tiny.yaml --lookup_path table.json --target_lat {middle_ms(inputs):.6g} --run_dir 'a run'",
    ]
    ran = []
    while waiting:
        line = waiting.pop(0)
        command = next(word for word in reversed(arguments_of(line)[:2]) if not word.startswith("-"))
        ended = subprocess.run(
            ["bash", "-c", line + SHORTER.get(command, "")],
            *(),
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        allowed = {0, UNDECIDED} if command in ("close", "certify") else {0}
        assert ended.returncode in allowed, f"{line}\n{ended.stdout}{ended.stderr}"
        ran.append(line)
        printed = printed_commands(ended.stdout + ended.stderr)
        waiting += [
            new for new in printed if new not in (*ran, *waiting) and not PLACEHOLDERS.keys() & set(new.split())
        ]
    assert all(line.startswith((package, search.split()[0])) for line in ran)
    kinds = {next(word for word in reversed(arguments_of(line)[:2]) if not word.startswith("-")) for line in ran}
    assert kinds == {"build", "check", "search", "parse", "close", "train", "test", "export", "certify"}
