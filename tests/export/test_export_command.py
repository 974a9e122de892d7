"""The command: what it prints, and every kind of bad input as one message and an exit status."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys

import pytest
from made_models import made_model, write_run

from tfnas import ExportConfig, InputError, OnnxModel
from tfnas.cli import export, main
from tfnas.export.exporting import export_model


def outcome(capsys, *arguments):
    status = export.main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured


def test_help_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main.main(["export", "--help"])
    text = capsys.readouterr().out
    assert "--quantize {int8,int8_vnni}" in text and max(map(len, text.splitlines())) <= 80


def test_help_is_fast():
    check = (
        "import sys, tfnas.cli.main as m\n"
        "try: m.main(['export', '--help'])\n"
        "except SystemExit: sys.exit(bool({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", check], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model_path missing", "missing"),
        ("--model_path . ", "has no model.pt: it is not a finished training run"),
        ("--model_path m.pt --format tflite", "--format must be one of onnx, torch_export, got 'tflite'"),
        ("--model_path m.pt --quantize int8 --format torch_export", "quantize int8 goes with --format onnx only"),
        ("--model_path m.pt --opset 13", "opset is 13; these networks are written in 14 to 26, which have all"),
        ("--model_path m.pt --opset 18 --format torch_export", "opset 18 goes with --format onnx only"),
        ("--model_path m.pt --quantize int8 --dtype float16", "starts from float32; omit --dtype float16"),
        ("--model_path m.pt --dtype bfloat16", "dtype bfloat16 is not supported in ONNX"),
        ("--model_path m.pt --out .", "out is ., a folder; give a file in it"),
        ("--model_path m.pt --out no/where.onnx", "there is no folder no; make it first"),
        ("--model_path m.pt --out m.pt", "out is m.pt, the model that is to be exported"),
        ("--model_path run --format torch_export --out run/model.pt", "out is run/model.pt, the model that is to be"),
        ("--model_path run --out run/../run/summary.json", "summary.json of the run; choose"),
        ("--model_path run/model.pt --out run/architecture", "which would replace run/architecture.json of the run"),
        (f"--model_path {300 * 'x'}", "cannot be read"),
        (f"--model_path m.pt --out {300 * 'x'}/m.onnx", "make it first"),
        (f"--model_path m.pt --img_root {300 * 'x'}", "there is no such folder"),
        ("--model_path m.pt --image_size 0", "image_size must be 1 or more, got 0"),
        ("--model_path m.pt --batch 0", "batch must be dynamic or a whole number above 0, got '0'"),
        ("--model_path m.pt --batch many", "batch must be dynamic or a whole number above 0, got 'many'"),
        ("--model_path m.pt --img_root nowhere", "--img_root nowhere: there is no such folder"),
        ("--model_path m.pt --img_root empty", "img_root is empty: it contains 0 images; at least 1 are needed"),
        ("--model_path text", "text is no readable checkpoint"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    made_model(class_names=("cat", "dog"), data="folder").save(tmp_path / "m.pt")
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "m.pt", tmp_path / "run" / "model.pt")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no model")
    before = sorted(tmp_path.iterdir())
    status, captured = outcome(capsys, *arguments.split())
    assert status == 2 and message in captured.err and captured.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("field", ["format", "dtype", "quantize"])
def test_the_python_configuration_is_checked_too(field):
    with pytest.raises(InputError, match=f"{field} must be one of .*, got 'other'"):
        ExportConfig(model_path="run", **{field: "other"})


@pytest.mark.slow
def test_a_damaged_picture_is_named(tmp_path):
    made_model(class_names=("cat", "dog"), data="folder").save(tmp_path / "model.pt")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"broken\.png"):
        export_model(ExportConfig(model_path=str(tmp_path), img_root=str(tmp_path / "photos")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "photos"]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """The whole command; the former file stays as it was."""
    write_run(tmp_path)
    (tmp_path / "model.onnx").write_text("the former file")
    command = [sys.executable, "-m", "tfnas", "export", "--model_path", str(tmp_path)]
    shown = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert shown.returncode == 1, shown.stderr
    refusal = f"cannot write {tmp_path / 'model.onnx'}: File too large; raise the limit on file sizes (ulimit -f)"
    assert shown.stderr == f"tfnas export: {refusal}\n"
    assert (tmp_path / "model.onnx").read_text() == "the former file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "model.onnx", "model.pt"]


def closed_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "status"), [(lambda: os.open("/dev/full", os.O_WRONLY), 1), (closed_pipe, 141)], ids=["full", "closed"]
)
def test_files_are_written_where_the_output_cannot_be_shown(tmp_path, output, status):
    write_run(tmp_path)
    command = [sys.executable, "-m", "tfnas", "export", "--model_path", str(tmp_path), "--check_images", "20"]
    shown = subprocess.run(command, stdout=output(), stderr=subprocess.PIPE, text=True, check=False)
    assert shown.returncode == status, shown.stderr
    assert OnnxModel.load(tmp_path / "model.onnx").class_names and (tmp_path / "model.onnx.json").is_file()
