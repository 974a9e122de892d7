"""The whole road of docs/road.md: from a folder of images to an ONNX file with a measured latency."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_from_a_folder_of_images_to_a_file_to_ship(tmp_path):
    def run(*command):
        """Run a program of the project, or a command of the package, in the folder; returns what it printed."""
        what = ["-m", "tfnas"] if command[0] == "tfnas" else [str(PROJECT / command[0])]
        result = subprocess.run(
            [sys.executable, *what, *command[1:]],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("dataset/digits_folder.py", "photos", "--per_class", "60")
    search = ["--data", "folder", "--img_root", "photos", "--space", "digits", "--target_lat", "15"]
    run("train_search.py", *search, "--run_dir", "searched", "--epochs", "3", "--warmup_epochs", "1", "--workers", "0")
    assert "MACs" in run("parsing_model.py", "--model_path", "searched")
    few = ["--epochs", "3", "--batch_size", "16", "--workers", "0"]
    run("train_eval_amp.py", "--inherit", "searched", "--run_dir", "trained", *few)
    tested = run("test.py", "--model_path", "trained")
    exported = run("tfnas", "export", "--model_path", "trained", "--format", "onnx", "--out", "network.onnx")

    assert 0.995 * 15 <= read(tmp_path / "searched")["table_ms"] <= 15
    summary = read(tmp_path / "trained")
    assert summary["data"] == "folder" and summary["target_ms"] == 15
    assert summary["class_names"] == [f"digit {number}" for number in range(10)]
    assert f"{summary['top1']:.2f}" in tested
    assert (tmp_path / "network.onnx").is_file() and "ms" in exported
    picture = sorted((tmp_path / "photos" / "digit 3").iterdir())[0]
    for model in ("trained", "network.onnx"):
        assert "digit" in run("tfnas", "predict", "--model_path", model, str(picture))


def read(run_dir):
    return json.loads((run_dir / "summary.json").read_text())
