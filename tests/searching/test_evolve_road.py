"""From a search without training to a file to ship: every command takes its run directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfnas.spaces.families import load_architecture

PROJECT = Path(__file__).resolve().parents[2]


def run(folder, *command, statuses=(0,)):
    """Run a command of the package in a folder; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "tfnas", *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert result.returncode in statuses, result.stdout + result.stderr
    return result.stdout


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


FEW = ("--iterations", "48", "--children", "16", "--population", "16", "--batch_size", "8", "--jobs", "2")


@pytest.mark.slow
def test_structures_from_scores_of_real_images_to_a_file(tmp_path):
    search = ("--score", "zico", "--data", "digits", "--image_size", "16", "--max_macs", "2e6")
    said = run(tmp_path, "evolve", *search, *FEW, "--run_dir", "evolved")
    assert "data      digits: " in said and "10 classes" in said
    found = summary(tmp_path / "evolved")
    assert found["macs"] <= 2e6 and found["data"] == "digits" and found["num_classes"] == 10
    assert "MACs" in run(tmp_path, "parse", "--model_path", "evolved")
    few = ("--epochs", "2", "--batch_size", "16", "--workers", "0")
    run(tmp_path, "train", "--model_path", "evolved", "--run_dir", "trained", *few)
    assert load_architecture(tmp_path / "trained") == load_architecture(tmp_path / "evolved")
    assert f"{summary(tmp_path / 'trained')['top1']:.2f}" in run(tmp_path, "test", "--model_path", "trained")
    exported = run(tmp_path, "export", "--model_path", "trained", "--format", "onnx", "--out", "network.onnx")
    assert (tmp_path / "network.onnx").is_file() and "ms" in exported


@pytest.mark.slow
def test_mbconv_blocks_from_a_target_latency_to_a_certificate(tmp_path):
    search = ("--space", "digits", "--score", "naswot", "--data", "digits", "--target_lat", "12")
    run(tmp_path, "evolve", *search, *FEW, "--run_dir", "evolved")
    found = summary(tmp_path / "evolved")
    assert 0.995 * 12 <= found["table_ms"] <= 12 == found["target_ms"]
    run(tmp_path, "train", "--model_path", "evolved", "--run_dir", "trained", "--epochs", "1", "--workers", "0")
    run(tmp_path, "export", "--model_path", "trained", "--format", "onnx", "--out", "network.onnx")
    certified = run(tmp_path, "latency", "certify", "network.onnx", statuses=(0, 3))  # the table is of another machine
    assert "12 ms" in certified
