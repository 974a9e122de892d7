"""Commands as a user meets them: what is accepted, and every kind of bad input as one message and an exit status."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from commands import outcome
from rich.console import Console
from small_search import middle_ms, write_inputs

import tfnas
from tfnas.bench.bench_config import BuildConfig
from tfnas.bench.table_build import BuildStep
from tfnas.cli import export, latency, latency_build, main, parsing_model, predict, test, train_eval, train_search
from tfnas.cli.running import running
from tfnas.core.errors import Infeasible, InputError, Interrupted, RunFailed
from tfnas.latency.default_table import default_table_path
from tfnas.searching.differentiable.search_config import SearchConfig

PROJECT = Path(__file__).resolve().parents[2]
SEARCH = "tfnas.searching.differentiable.differentiable_search.search"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run_command(prog, body, argv):
    """The exit status of a command whose body is this function of the arguments."""
    with running(prog, argv) as command:
        body(command.arguments)
    return command.status


@pytest.fixture
def searched(monkeypatch):
    """The configurations that the search command hands over, in place of searching."""
    configs = []
    monkeypatch.setattr(
        "tfnas.searching.differentiable.differentiable_search.search", lambda config, given: configs.append(config)
    )
    return configs


# ---- search ---------------------------------------------------------------------------------------------------------


def test_the_authors_command_line(searched, capsys):
    line = (
        "--img_root DIR --train_list train.txt --val_list val.txt --lookup_path ./latency_pkl/latency_gpu.pkl "
        "--target_lat 15.0 --save ./checkpoints --note TF-NAS-A --print_freq 100 --workers 4 --epochs 90 "
        "--batch_size 32 --w_lr 0.025 --w_mom 0.9 --w_wd 1e-5 --a_lr 0.01 --a_wd 5e-4 --a_beta1 0.5 --a_beta2 0.999 "
        "--grad_clip 5.0 --T 5.0 --T_decay 0.96 --num_classes 100 --lambda_lat 0.1 --seed 2"
    )
    assert outcome(capsys, train_search.main, *line.split()) == (0, "")
    (config,) = searched
    assert config == SearchConfig(
        img_root="DIR",
        train_list="train.txt",
        val_list="val.txt",
        lookup_path="./latency_pkl/latency_gpu.pkl",
        target_lat=15.0,
        save="./checkpoints",
        note="TF-NAS-A",
        print_freq=100,
        workers=4,
        epochs=90,
        batch_size=32,
        w_lr=0.025,
        w_mom=0.9,
        w_wd=1e-5,
        a_lr=0.01,
        a_wd=5e-4,
        a_beta1=0.5,
        a_beta2=0.999,
        grad_clip=5.0,
        T=5.0,
        T_decay=0.96,
        num_classes=100,
        lambda_lat=0.1,
        seed=2,
    )


def test_nothing_given_is_the_default_search(searched, capsys):
    assert outcome(capsys, train_search.main) == (0, "")
    assert searched == [SearchConfig()]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--target_latt", "15"], ["unknown flag --target_latt", "did you mean --target_lat?"]),
        (["--target_lat", "fast"], ["--target_lat must be a number, got 'fast'"]),
        (["--target_lat", "0"], ["target_lat must be a positive number of milliseconds, got 0"]),
        (["--target_lat", "-15"], ["target_lat must be a positive number", "-15"]),
        (["--target_lat", ".nan"], ["target_lat must be a positive number", "nan"]),
        (
            ["--data", "digit"],
            ["--data must be one of digits, digit_pairs, list, folder, cifar10, cifar100, got 'digit'"],
        ),
        (["--epochs", "0"], ["epochs must be above 0, got 0"]),
        (["--epochs", "many"], ["--epochs must be a whole number, got 'many'"]),
        (["--space", "digit"], ["no space 'digit'", "did you mean digits?"]),
        (["--space", "none.yaml"], ["no space 'none.yaml'"]),
        (["--space", "bad.yaml"], ["bad.yaml", "unknown field stagess", "did you mean stages?"]),
        (["--config", "none.yaml"], ["none.yaml cannot be read: No such file or directory. Give a YAML file"]),
        (["--threads", "100000"], ["--threads must be at most 1024, got 100000"]),
        (["--config", "settings.yaml"], ["settings.yaml: epochs must be a whole number, got 'ten'"]),
        (["--lookup_path", "none.json"], ["latency table none.json cannot be read"]),
        (["--lookup_path", "trap.pkl"], ["latency table trap.pkl", "refused"]),
        (["--space", "cifar", "--lookup_path", "DIGITS_TABLE"], ["was measured for images of 16 px", "32 px"]),
        (["--img_root", "none", "--train_list", "a", "--val_list", "b", "--lookup_path", "x"], ["x cannot be read"]),
        (["--data", "digits", "--img_root", "here"], ["--data digits", "--img_root"]),
        (["--num_classes", "7"], ["7", "10"]),
        (["--device", "gpu"], ["device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
        (["--run_dir", "full"], ["the run directory full is not empty", "--resume"]),
        (["--resume", "full"], ["full is not a run directory"]),
        (["--resume", "none"], ["none is not a run directory", "Give the directory"]),
        (["--resume", "full", "--run_dir", "full"], ["--resume", "not both"]),
    ],
)
def test_search_refuses_bad_input(capsys, tmp_path, arguments, fragments):
    (tmp_path / "bad.yaml").write_text("extends: digits\nstagess: []\n")
    (tmp_path / "settings.yaml").write_text("epochs: ten\n")
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(os.getcwd))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    arguments = [str(default_table_path("digits")) if word == "DIGITS_TABLE" else word for word in arguments]
    status, message = outcome(capsys, train_search.main, *arguments)
    assert status == 2, message
    assert message.startswith("train_search.py: ") and message.count("\n") == 1
    for fragment in fragments:
        assert fragment in message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("target", ["1", "1000"])
def test_a_target_out_of_reach_ends_at_once(capsys, tmp_path, target):
    status, message = outcome(capsys, train_search.main, "--target_lat", target)
    assert status == 3
    assert "stem and head alone take" in message
    assert f"latency range --space digits --num_classes 10 --lookup_path {default_table_path('digits')}\n" in message
    assert not list(tmp_path.iterdir())


# ---- parse ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def architecture_file(tmp_path):
    space = tfnas.space("digits")
    widths = [space.initial_width(place, space.operations[0]) for place in space.blocks]
    path = tmp_path / "found" / "architecture.json"
    path.parent.mkdir()
    path.write_text(json.dumps(space.architecture([0] * len(widths), [1, 1, 1], widths, 10).to_json()))
    return path


def test_parse_shows_and_writes(capsys, tmp_path, architecture_file):
    assert parsing_model.main(["--model_path", str(architecture_file), "--num_classes", "4"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "MBConv k3" in captured.out and "written    model.config" in captured.out
    assert json.loads((tmp_path / "model.config").read_text())["classifier"]["out_features"] == 4
    assert tfnas.Architecture.load(tmp_path / "architecture.json").num_classes == 4


def test_parse_times_the_network(capsys, architecture_file):
    arguments = ["--model_path", str(architecture_file), "--save_path", "a.config", "--print_lat", "--device", "cpu"]
    assert parsing_model.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:9].strip() for line in lines[-2:]] == ["batch 1", "batch 32"]  # 32 is the table's own too
    assert all("CPU, 1 thread" in line for line in lines[-2:])


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["which network? Give --model_path RUN"]),
        (["--model_path", "none"], ["none cannot be read", "give a run directory, a checkpoint"]),
        (["--model_path", "."], [". is not a run directory"]),
        (["--model_path", "FILE", "--space", "cifar"], ["is not a network of space cifar", "image_size is 16"]),
        (["--model_path", "FILE", "--space", "cifa"], ["no space 'cifa'", "did you mean cifar?"]),
        (["--model_path", "FILE", "--lookup_path", "none"], ["latency table none cannot be read"]),
        (["--model_path", "FILE", "--image_size", "17", "--lookup_path", "TABLE"], ["is for other networks"]),
        (["--model_path", "FILE", "--image_size", "0"], ["image_size must be 1 or more, got 0"]),
        (["--model_path", "FILE", "--num_classes", "x"], ["--num_classes must be a whole number, got 'x'"]),
        (["--model_path", "FILE", "--save_path", "a.json"], ["a.json", "give model.config"]),
        (["--model_path", "FILE", "--save_path", "no/a"], ["there is no folder no"]),
        (["--model_path", "FILE", "--print_lat", "--device", "gpu"], ["device must be", "'gpu'"]),
        (["--modelpath", "FILE"], ["unknown flag --modelpath", "did you mean --model_path?"]),
    ],
)
def test_parse_refuses_bad_input(capsys, tmp_path, architecture_file, arguments, fragments):
    names = {"FILE": str(architecture_file), "TABLE": str(default_table_path("digits"))}
    status, message = outcome(capsys, parsing_model.main, *(names.get(word, word) for word in arguments))
    assert status == 2, message
    assert message.startswith("parsing_model.py: ") and message.count("\n") == 1
    for fragment in fragments:
        assert fragment in message


# ---- latency --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        ([], ["give a command: build, check, range, close, certify"]),
        (["bild"], ["unknown command 'bild' (did you mean build?)"]),
        (["build"], ["--out must be given"]),
        (["build", "--out", "t.json", "--batch", "0"], ["batch must be 1 or more, got 0"]),
        (["build", "--out", "t.json", "--space", "digit"], ["no space 'digit'"]),
        (["build", "--out", "t.json", "--wdith", "3"], ["unknown flag --wdith"]),
    ],
)
def test_latency_refuses_bad_input(capsys, arguments, fragments):
    status, message = outcome(capsys, latency.main, *arguments)
    assert status == 2
    for fragment in fragments:
        assert fragment in message


def test_latency_build_hands_its_flags_over(capsys, monkeypatch):
    configs = []

    def build_table(config, on_step, on_measurement):
        on_step(BuildStep("measuring", points=1, measurements=1))
        on_measurement()
        configs.append(config)
        return tfnas.LatencyTable.load(default_table_path("digits"))

    monkeypatch.setattr("tfnas.bench.build_table.build_table", build_table)
    assert latency.main(["build", "--out", "t.json", "--batch", "8", "--held-out", "3"]) == 0
    assert [(config.out, config.batch, config.held_out) for config in configs] == [("t.json", 8, 3)]
    out = capsys.readouterr().out
    assert out.startswith("table     ") and "\nreachable " in out
    assert "latency check --lookup_path t.json" in out and "--space digits --lookup_path t.json --target_lat " in out


def test_latency_build_says_what_is_there_already(capsys, monkeypatch, tmp_path):
    def build_table(config, on_step, on_measurement):
        on_step(BuildStep("measuring", points=1, measurements=1))
        on_measurement()
        return tfnas.LatencyTable.load(default_table_path("digits"))

    monkeypatch.setattr("tfnas.bench.build_table.build_table", build_table)
    told = []
    for name in ("", "t.json", "t.json.partial"):
        (tmp_path / name).touch() if name else None
        assert latency.main(["build", "--out", "t.json"]) == 0
        told.append(capsys.readouterr().err.splitlines())
    step = "measuring: 1 points, 1 measurements"
    stays = "it is left in place until the new table is complete"
    assert told == [  # and no bars where nobody watches
        [step],
        [f"t.json exists: measuring again; {stays}", step],
        [f"t.json exists: {stays}", "resuming an earlier build from t.json.partial", step],
    ]


def test_latency_build_says_which_of_its_times_is_left():
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    with latency_build._shown(console, BuildConfig(out="t.json")) as (on_step, on_visit):
        on_step(BuildStep("measuring", points=2, measurements=9))
        for _ in range(3):
            on_visit()
    assert re.search(r"33% 0:00:\d\d 0:00:\d\d left", shown.getvalue())


def test_latency_build_counts_what_is_not_measured(capsys, tmp_path):
    path = tmp_path / "macs.json"
    assert latency.main(["build", "--out", str(path), "--cost", "macs", "--num_classes", "10"]) == 0
    table = tfnas.LatencyTable.load(path)
    assert table.cost.name == "macs"
    assert " MACs" in capsys.readouterr().out
    assert outcome(capsys, latency.main, "build", "--out", str(path), "--cost", "flops")[0] == 2


# ---- all of them ----------------------------------------------------------------------------------------------------


def test_one_name_for_all(capsys, searched):
    assert main.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in main.COMMANDS)
    assert main.main(["search", "--target_lat", "12"]) == 0
    assert searched == [SearchConfig(target_lat=12)]
    assert outcome(capsys, main.main, "parse", "--x")[1].startswith("tfnas parse: unknown flag --x")
    assert outcome(capsys, main.main, "serch") == (
        2,
        f"tfnas: unknown command 'serch' (did you mean search?); there are {', '.join(main.COMMANDS)}\n",
    )
    assert outcome(capsys, main.main)[0] == 2


def test_a_command_calls_the_library_itself(monkeypatch):
    """Between the script and the search stands nothing but the command's own function."""
    calls = []
    monkeypatch.setattr(
        "tfnas.searching.differentiable.differentiable_search.search",
        lambda config, given: calls.extend(inspect.stack()[1:3]),
    )
    assert train_search.main([]) == 0
    assert [(Path(call.filename).name, call.function) for call in calls] == [
        ("train_search.py", "main"),
        ("test_commands.py", "test_a_command_calls_the_library_itself"),
    ]


def test_a_config_file_may_come_from_a_pipe(searched, capsys):
    reader, writer = os.pipe()
    os.write(writer, b"target_lat: 12\n")
    os.close(writer)
    assert outcome(capsys, train_search.main, "--config", f"/dev/fd/{reader}") == (0, "")
    os.close(reader)
    assert searched == [SearchConfig(target_lat=12)]


@pytest.mark.parametrize(
    "command",
    [main.main, train_search.main, parsing_model.main, latency.main, lambda given: latency.main(["build", *given])],
)
def test_version(capsys, command):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"tfnas {tfnas.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        *(train_search.main, parsing_model.main, train_eval.main),
        *(lambda arguments: latency.main(["build", *arguments]), export.main, test.main, predict.main),
    ],
)
def test_help_fits_a_terminal(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text and "--config FILE" in text and "--print_config" in text and "--version" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("what"), 2),
        (RunFailed("what"), 1),
        (Infeasible("what"), 3),
        (Interrupted("what"), 130),
        (Interrupted("what", 143), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_statuses(capsys, error, status):
    def fail(_):
        raise error

    assert run_command("made_up", fail, []) == status
    assert capsys.readouterr().err in ("made_up: what\n", "made_up: interrupted\n")


def test_faults_of_the_program_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run_command("made_up", lambda _: 1 / 0, [])


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(capsys):
    import warnings

    assert run_command("made_up", lambda _: warnings.warn("careful", stacklevel=1), []) == 0
    assert capsys.readouterr().err == "made_up: warning: careful\n"


def test_the_commands_start_fast_and_a_closed_pipe_is_quiet():
    check = "import sys, tfnas.cli.main as m; m.main(['--help']); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    shown = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, check=True)
    assert shown.stdout and not shown.stderr
    reader, writer = os.pipe()
    os.close(reader)
    closed = subprocess.run(
        [sys.executable, "-m", "tfnas", "--help"], env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (closed.returncode, closed.stderr) == (141, b"")


def test_a_closed_pipe_is_quiet_where_rich_writes_and_where_a_command_leaves(capfd):
    """Rich answers a closed pipe by leaving with status 1, which would read as a failure."""

    def write(_):
        with (
            open(os.dup(writer), "w") as pipe,  # noqa: PTH123
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", pipe)
            Console(file=pipe).print("whoever reads this")

    def leave(_):
        raise SystemExit(0)

    reader, writer = os.pipe()
    os.close(reader)
    kept = os.dup(1)
    try:
        assert run_command("made_up", write, []) == 141
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    os.close(writer)
    assert capfd.readouterr().err == ""
    with pytest.raises(SystemExit, match="0"):
        run_command("made_up", leave, [])


@pytest.fixture
def own_output(monkeypatch):
    """Puts a file in the place of standard output; what a command does to descriptor 1 is undone."""
    before = os.dup(1)
    yield lambda file: monkeypatch.setattr(sys, "stdout", file)
    os.dup2(before, 1)
    os.close(before)


def test_a_full_output_is_not_told_as_a_full_disk(own_output, capfd, tmp_path):
    inputs = write_inputs(tmp_path)
    flags = [f"--{name}={value}" for name, value in inputs.items()]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path to write to
        own_output(full)
        status = train_search.main([*flags, f"--target_lat={middle_ms(inputs)}", "--device=cpu", "--run_dir=run"])
        own_output(sys.__stdout__)
        with contextlib.suppress(OSError):
            full.close()
    said = capfd.readouterr().err
    assert status == 1
    assert (
        "the output cannot be written: No space left on device. The last saved state is intact. Resume with: " in said
    )
    assert "system error" not in said


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_a_full_output_is_one_message_of_short_answers_too(own_output, capfd, flag):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a path to write to
        own_output(full)
        status = main.main([flag])
        own_output(sys.__stdout__)
        with contextlib.suppress(OSError):
            full.close()
    assert (status, capfd.readouterr().err) == (1, "tfnas: the output cannot be written: No space left on device\n")


def test_a_reader_that_closes_the_output_of_a_run_is_no_failed_run(own_output, capfd, tmp_path):
    inputs = write_inputs(tmp_path)
    flags = [f"--{name}={value}" for name, value in inputs.items()]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        own_output(pipe)
        status = train_search.main([*flags, f"--target_lat={middle_ms(inputs)}", "--device=cpu", "--run_dir=run"])
        own_output(sys.__stdout__)
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    assert (status, capfd.readouterr().err) == (141, "")


def test_an_output_that_was_closed_from_the_start_is_nobodys(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    said = []
    assert run_command("made_up", lambda _: said.append(Console().print("for nobody")), []) == 0
    assert said and capsys.readouterr().err == ""


def test_a_thread_that_cannot_write_is_one_line(capsys):
    def body(_):
        thread = threading.Thread(target=lambda: open("/nowhere/events", "w"))  # noqa: PTH123, SIM115
        thread.start()
        thread.join()

    assert outcome(capsys, lambda arguments: run_command("made_up", body, arguments)) == (
        0,
        "made_up: warning: [Errno 2] No such file or directory: '/nowhere/events'\n",
    )


@pytest.mark.parametrize("name", ["train_search.py", "parsing_model.py"])
def test_the_files_at_the_root_run(name):
    shown = subprocess.run([sys.executable, PROJECT / name, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"tfnas {tfnas.__version__}\n"
