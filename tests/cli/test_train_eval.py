"""The training commands: help, both programs, launchers' flags, exit statuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.cli.train_eval import main

PROJECT = Path(__file__).resolve().parents[2]


def test_help_names_every_heading(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for word in ("--model_path", "--opt_level", "--snapshot", "torchrun --nproc_per_node=2 train_eval_amp.py", "--ema"):
        assert word in text


def test_the_float32_program_says_where_mixed_precision_is(capsys):
    assert main(["--config_path", "x", "--opt_level", "O1"], "train_eval.py") == 2
    assert "use train_eval_amp.py for --opt_level O1" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--local_rank=0", "--local-rank=0"])
def test_older_launchers_flag_is_understood(flag, capsys):
    assert main([flag, "--config_path", "/nowhere.json"]) == 2
    assert "/nowhere.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "which network?"),
        (["--model_path", "a", "--config_path", "b"], "not both"),
        (["--snapshot", "/nowhere"], "no such run directory"),
        (["--config_path", "x", "--epochs", "many"], "--epochs must be a whole number"),
        (["--config_path", "x", "--opt_level", "O4"], "--opt_level must be one of O0, O1, O2, O3"),
        (["--config_path", "x", "--loss_scale", "0"], "--loss_scale must be a number above 0, or dynamic, got 0"),
        (["--config_path", "x", "--loss_scale", "fast"], "--loss_scale must be a number above 0, or dynamic, got fast"),
        (["--config_path", "x", "--opt_level", "O3", "--loss_scale", "dynamic"], "needs weights in float32"),
        (["--config_path", "x", "--opt_level", "O3", "--ema_decay", "0.9"], "--ema_decay needs weights in float32"),
        (["--config_path", "x", "--keep_batchnorm_fp32", "False"], "batch norm's weights stay in float32"),
        (["--modelpath", "x"], "did you mean --model_path?"),
    ],
)
def test_wrong_usage(flags, message, capsys):
    assert main(flags) == 2
    assert message in capsys.readouterr().err


def test_only_the_first_process_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main([]) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("program", ["train_eval.py", "train_eval_amp.py"])
def test_the_programs_start(program):
    command = [sys.executable, str(PROJECT / program), "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("tfnas ")
