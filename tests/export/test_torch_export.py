"""The .pt2 file, loaded again in a process that knows nothing of tfnas."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from made_models import DIGITS, made_model, plain_logits, random_pixels

from tfnas import ExportConfig, export_model
from tfnas.cli import export

_ALONE = """
import sys, json, torch
extra = {"tfnas.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
images = torch.load(sys.argv[2], weights_only=True)
rows = [program.module()(part).tolist() for part in (images[:1], images)]
assert not any(name.startswith("tfnas") for name in sys.modules)
print(json.dumps({"rows": rows, "extra": json.loads(extra["tfnas.json"])}))
"""


def test_the_command_and_its_file(tmp_path, capsys):
    model = made_model()
    model.save(tmp_path / "model.pt")
    command = ["--model_path", str(tmp_path), "--format", "torch_export", "--check_images", "100"]
    status = export.main(command)
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    lines = captured.out.splitlines()
    assert lines[0] == f"file      {tmp_path / 'model.pt2'}"
    (check,) = (line for line in lines if line.startswith("check"))  # there is no run beside the file
    assert "largest difference" in check and "on 100 test images of the bundled digits, in batches of 1, 4, " in check
    latency = [line for line in lines if " ms +- " in line]
    assert len(latency) == 4
    assert all("threads=1" in line and "float32, batch " in line and " runs, " in line for line in latency)
    assert lines[-1] == f"report    {tmp_path / 'model.pt2.json'}"
    pixels = random_pixels(3)
    found = torch.export.load(tmp_path / "model.pt2").module()(pixels.float() / 255)
    torch.testing.assert_close(found, plain_logits(model, pixels), rtol=1e-5, atol=1e-5)
    assert b"site-packages" not in (tmp_path / "model.pt2").read_bytes()


@pytest.mark.slow
def test_it_runs_without_this_package(tmp_path):
    model = made_model()
    model.save(tmp_path / "model.pt")
    export_model(ExportConfig(model_path=str(tmp_path), format="torch_export"))
    pixels = random_pixels(3)
    torch.save(pixels.float() / 255, tmp_path / "images.pt")
    command = [sys.executable, "-c", _ALONE, tmp_path / "model.pt2", tmp_path / "images.pt"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(shown.stdout)
    expected = plain_logits(model, pixels)
    torch.testing.assert_close(torch.tensor(found["rows"][0]), expected[:1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.tensor(found["rows"][1]), expected, rtol=1e-5, atol=1e-5)
    assert found["extra"]["class_names"] == list(DIGITS) and found["extra"]["preprocessing"]["mean"] == [0.2, 0.3, 0.5]


@pytest.mark.slow
def test_bfloat16(tmp_path):
    made_model(class_names=("cat", "dog"), data="folder").save(tmp_path / "model.pt")
    report = export_model(
        ExportConfig(model_path=str(tmp_path), format="torch_export", dtype="bfloat16", out=str(tmp_path / "b.pt2"))
    )
    (check,) = report.checks
    assert check.images.startswith("images of random noise, since no real ones are available")
    assert report.accuracy is None and check.tolerance is None
    assert 1e-5 < check.max_abs_difference < 0.1 * check.largest_logit
