r"""The command lines of the TF-NAS authors' README and example.sh, word for word but for paths, and all their flags.

Each is read; those that small data allow run to their end: a network at 224 pixels, and pictures of noise.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from authors_checkpoint import IMAGENET_IN_CHANNELS, imagenet_document

import tfnas
from tests.evaluation.made_models import authors_files, seven_classes, varied_network, write_list, write_pictures
from tfnas.cli import parsing_model, test, train_eval, train_search

PROJECT = Path(__file__).resolve().parents[2]

SEARCH = r"""
CUDA_VISIBLE_DEVICES=0 python -u train_search.py \
	--img_root "Your ImageNet Train Set Path" \
	--train_list "./dataset/ImageNet-100-effb0_train_cls_ratio0.8.txt" \
	--val_list "./dataset/ImageNet-100-effb0_val_cls_ratio0.8.txt" \
	--lookup_path "./latency_pkl/latency_gpu.pkl" \
	--target_lat 15.0
"""
SEARCH_WITH_ALL = r"""
CUDA_VISIBLE_DEVICES=0 python -W ignore -u train_search.py \
	--img_root "Your ImageNet Train Set Path" \
	--train_list "./dataset/ImageNet-100-effb0_train_cls_ratio0.8.txt" \
	--val_list "./dataset/ImageNet-100-effb0_val_cls_ratio0.8.txt" \
	--lookup_path "./latency_pkl/latency_gpu.pkl" \
	--save "./checkpoints" \
	--print_freq 100 \
	--workers 4 \
	--epochs 90 \
	--batch_size 32 \
	--w_lr 0.025 \
	--w_mom 0.9 \
	--w_wd 1e-5 \
	--a_lr 0.01 \
	--a_wd 5e-4 \
	--grad_clip 5.0 \
	--T 5.0 \
	--T_decay 0.96 \
	--num_classes 100 \
	--lambda_lat 0.1 \
	--target_lat 15.0 \
	--note "TF-NAS-lam0.1-lat15.0-gpu"
"""
PARSE = r"""
CUDA_VISIBLE_DEVICES=3 python -u parsing_model.py \
	--model_path "Searched Model Path" \
	--save_path "./model.config" \
	--lookup_path "./latency_pkl/latency_gpu.pkl"
"""
PARSE_AND_A_COMMENT = r"""
CUDA_VISIBLE_DEVICES=0 python -u parsing_model.py \
	--model_path "Searched Model Path" \
	--save_path "./model.config" \
	--lookup_path "./latency_pkl/latency_gpu.pkl" \
	# --print_lat
"""
_IMAGES = r"""
	--train_root "Your ImageNet Train Set Path" \
	--val_root "Your ImageNet Val Set Path" \
	--train_list "ImageNet Train List" \
	--val_list "ImageNet Val List" \
"""
_RECIPE = r"""
	--save "./checkpoints" \
	--print_freq 100 \
	--workers 16 \
	--epochs 250 \
	--batch_size 512 \
	--lr 0.2 \
	--momentum 0.9 \
	--weight_decay 1e-5 \
	--grad_clip 5.0 \
	--label_smooth 0.1 \
	--num_classes 1000 \
	--dropout_rate 0.2 \
	--drop_connect_rate 0.2 \
"""


def training(start, *ends):
    """Their lines of training have most of their flags in common."""
    return start + " \\" + "".join(ends)


TRAIN = {
    "searched": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u train_eval.py", _IMAGES, '--model_path "Searched Model Path"'
    ),
    "config": training("CUDA_VISIBLE_DEVICES=0,1 python -u train_eval.py", _IMAGES, '--config_path "./model.config"'),
    "amp": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u train_eval_amp.py",
        *(_IMAGES, '--config_path "./model.config" --opt_level "O1"'),
    ),
    "distributed": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u -m torch.distributed.launch --nproc_per_node=2 train_eval_amp.py",
        *(_IMAGES, '--config_path "./model.config" --opt_level "O1"'),
    ),
    "searched, example": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u train_eval.py",
        *(_IMAGES, '--model_path "Searched Model Path" \\', _RECIPE, '--note "TF-NAS-lat15.0-gpu"'),
    ),
    "config, example": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u train_eval.py",
        *(_IMAGES, '--config_path "./model.config" \\', _RECIPE, '--note "TF-NAS-lat15.0-gpu"'),
    ),
    "amp, example": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u train_eval_amp.py",
        *(_IMAGES, '--config_path "./model.config" \\', _RECIPE, '--opt_level "O1" --note "TF-NAS-lat15.0-gpu"'),
    ),
    "distributed, example": training(
        "CUDA_VISIBLE_DEVICES=0,1 python -u -m torch.distributed.launch --nproc_per_node=2 train_eval_amp.py",
        *(_IMAGES, '--config_path "./model.config" \\', _RECIPE, '--opt_level "O1" --note "TF-NAS-lat15.0-gpu"'),
    ),
}
TEST = r"""
CUDA_VISIBLE_DEVICES=0 python -u test.py \
	--val_root "Your ImageNet Val Set Path" \
	--val_list "ImageNet Val List" \
	--model_path "./model.config" \
	--weights "Pretrained Weights"
"""
TEST_BY_CONFIG = TEST.replace("--model_path", "--config_path")

PATHS = {
    "Your ImageNet Train Set Path": "train",
    "Your ImageNet Val Set Path": "val",
    "ImageNet Train List": "train.txt",
    "ImageNet Val List": "val.txt",
    "./dataset/ImageNet-100-effb0_train_cls_ratio0.8.txt": "train.txt",
    "./dataset/ImageNet-100-effb0_val_cls_ratio0.8.txt": "train_too.txt",
    "Searched Model Path": "searched_model_90.pth.tar",
    "Pretrained Weights": "checkpoint.pth.tar",
}
SHORTER = ("--epochs", "1", "--num_classes", "7", "--workers", "0", "--device", "cpu")
"""Behind their words, of which each then goes before the same one in the line."""

PROGRAMS = {
    "train_search.py": train_search.main,
    "parsing_model.py": parsing_model.main,
    "train_eval.py": train_eval.main,
    "train_eval_amp.py": train_eval.main,
    "test.py": test.main,
}


def words_of(line, table="./latency_pkl/latency_gpu.pkl"):
    """A command line as a shell takes it apart, with our paths: from `python` on."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    paths = {**PATHS, "./latency_pkl/latency_gpu.pkl": str(table)}
    return [paths.get(word, word) for word in words[words.index("python") + 1 :]]


def program_of(words):
    """The program that such words name, and its arguments."""
    name = next(word for word in words if word in PROGRAMS)
    arguments = words[words.index(name) + 1 :]
    return lambda *further: PROGRAMS[name]([*arguments, *further], name), arguments


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with all that the command lines name but their latency table."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("train", 1), ("val", 2)):
        pictures = write_pictures(tmp_path / name, each=1, seed=seed)
        labels = [number % 7 for number in range(len(pictures))]
        write_list(tmp_path / f"{name}.txt", tmp_path / name, pictures, labels)
    (tmp_path / "train_too.txt").write_text((tmp_path / "train.txt").read_text())
    authors_files(tmp_path, varied_network(seven_classes(), 5).state_dict())
    torch.save(imagenet_document(), tmp_path / "searched_model_90.pth.tar")
    return tmp_path


@pytest.fixture
def handed_over(monkeypatch):
    """The configurations that commands of hours hand over, in place of running."""
    configs = []
    for module, name in (
        ("searching.differentiable.differentiable_search", "search"),
        ("training.retraining", "retrain"),
    ):
        monkeypatch.setattr(f"tfnas.{module}.{name}", lambda config, **_: configs.append(config))
    return configs


@pytest.mark.parametrize("line", [SEARCH, SEARCH_WITH_ALL, *TRAIN.values()], ids=["search", "search, example", *TRAIN])
def test_every_word_of_a_long_command_arrives(handed_over, capsys, line):
    run, arguments = program_of(words_of(line))
    assert run() == 0, capsys.readouterr().err
    (config,) = handed_over
    said = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert all(flag.startswith("--") for flag in said)
    for flag, value in said.items():
        found = getattr(config, flag[2:])
        assert found == (value if isinstance(found, str) else pytest.approx(float(value), rel=1e-15)), flag


@pytest.mark.filterwarnings("ignore:the latency table has 88 non-positive entries")
@pytest.mark.parametrize("line", [PARSE, PARSE_AND_A_COMMENT])
def test_parsing_runs_to_its_end(shared_data, capsys, line):
    table = shared_data / "tfnas" / "latency_gpu.pkl"
    run, _ = program_of(words_of(line, table))
    assert run() == 0, capsys.readouterr().err
    architecture = tfnas.Architecture.load("architecture.json")
    widths = [place.block.mid_channels for place in architecture.blocks]
    assert widths == [8 * channels // 2 for blocks in IMAGENET_IN_CHANNELS for channels in blocks]
    assert json.loads(Path("model.config").read_text()) == architecture.to_model_config()
    assert f"{tfnas.LatencyTable.load(table).architecture_ms(architecture):.4f} ms per batch" in capsys.readouterr().out


@pytest.mark.parametrize("line", [TEST, TEST_BY_CONFIG])
def test_testing_runs_to_its_end(capsys, line):
    run, _ = program_of(words_of(line))
    assert run("--workers", "0", "--threads", "1", "--device", "cpu") == 0, capsys.readouterr().err
    found = json.loads(Path("test-results/test.json").read_text())
    assert (found["num_images"], found["num_classes"], found["image_size"]) == (7, 7, 224)


@pytest.mark.parametrize("name", ["config", "amp"])
def test_training_runs_to_its_end(capsys, name):
    run, _ = program_of(words_of(TRAIN[name]))
    assert run(*SHORTER, "--batch_size", "7", "--threads", "1", "--run_dir", "trained") == 0, capsys.readouterr().err
    summary = json.loads(Path("trained/summary.json").read_text())
    assert (summary["epochs"], summary["num_classes"], summary["image_size"]) == (1, 7, 224)
    assert summary["opt_level"] == ("O1" if name == "amp" else "O0")


def run_for_real(line, table, *further):
    words = words_of(line, table)
    here = [str(PROJECT / word) if word in PROGRAMS else word for word in words]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [sys.executable, *here, *further], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_training_by_the_older_launcher_runs_to_its_end():
    run_for_real(TRAIN["distributed"], "", *SHORTER, "--batch_size", "4", "--threads", "1", "--run_dir", "trained")
    assert json.loads(Path("trained/summary.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_searching_runs_to_its_end(shared_data):
    table = shared_data / "tfnas" / "latency_gpu.pkl"
    run_for_real(SEARCH, table, *SHORTER, "--warmup_epochs", "0", "--batch_size", "7", "--run_dir", "searched")
    summary = json.loads(Path("searched/summary.json").read_text())
    assert 0.995 * 15 <= summary["table_ms"] <= 15


# ---- flags ----------------------------------------------------------------------------------------------------------

_TRAINING_FLAGS = (
    "--train_root train --val_root val --train_list train.txt --val_list val.txt --config_path model.config "
    "--save ./checkpoints/ --print_freq 100 --workers 16 --epochs 250 --batch_size 512 --lr 0.2 --momentum 0.9 "
    "--weight_decay 1e-5 --grad_clip 5.0 --label_smooth 0.1 --num_classes 1000 --dropout_rate 0.2 "
    "--drop_connect_rate 0.2 --seed 2 --note try"
)
ALL_FLAGS = {
    "train_search.py": (
        "--img_root train --train_list train.txt --val_list val.txt --lookup_path table.pkl --save ./checkpoints "
        "--print_freq 100 --workers 4 --epochs 90 --batch_size 32 --w_lr 0.025 --w_mom 0.9 --w_wd 1e-5 --a_lr 0.01 "
        "--a_wd 5e-4 --a_beta1 0.5 --a_beta2 0.999 --grad_clip 5.0 --T 5.0 --T_decay 0.96 --num_classes 100 --seed 2 "
        "--note try --lambda_lat 0.1 --target_lat 15.0"
    ),
    "train_eval.py": _TRAINING_FLAGS,
    "train_eval_amp.py": (
        f"{_TRAINING_FLAGS} --local_rank 0 --sync_bn --opt_level O3 --keep_batchnorm_fp32 True --loss_scale 128.0 "
        "--channels_last True"
    ),
}


@pytest.mark.parametrize("name", ALL_FLAGS)
def test_every_flag_of_theirs_is_known(handed_over, capsys, name):
    assert PROGRAMS[name](ALL_FLAGS[name].split(), name) == 0, capsys.readouterr().err
    (config,) = handed_over
    if name == "train_eval_amp.py":
        assert (config.keep_batchnorm_fp32, config.channels_last, config.sync_bn) == (True, True, True)
        assert config.static_loss_scale == 128.0


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("train_eval.py", "--config_path model.config --grad_clip 0", "grad_clip must be a positive number"),
        ("train_eval.py", "--config_path model.config --print_freq 0.5", "--print_freq must be a whole number"),
        ("train_eval.py", "--config_path model.config --model_path x", "not both"),
        (
            "test.py",
            "--val_root val --val_list val.txt --weights checkpoint.pth.tar",
            "--weights checkpoint.pth.tar says no network",
        ),
    ],
)
def test_what_theirs_would_take_otherwise_is_answered(capsys, name, arguments, answer):
    assert PROGRAMS[name](arguments.split(), name) == 2
    assert answer in capsys.readouterr().err
