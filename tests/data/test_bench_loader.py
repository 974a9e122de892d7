"""The loader's benchmark, on a few small files: it runs to its end, and both loaders see the same images."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def bench_loader(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_loader

    yield bench_loader
    sys.modules.pop("bench_loader", None)


def test_its_figures(bench_loader, monkeypatch, tmp_path, capsys):
    small = "--images 7 --batch 4 --image_size 32 --width 80 --height 60 --workers 0 --rounds 2"
    monkeypatch.setattr(sys, "argv", ["bench_loader.py", *small.split(), "--json", str(tmp_path / "found.json")])
    bench_loader.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {
        *("settings", "processor", "cores", "torch", "kilobytes", "load_average", "images_per_second", "ratios"),
        *("difference", "difference_of_the_view", "what_the_jitter_changes"),
    }
    assert (found["settings"]["images"], found["settings"]["workers"]) == (7, [0])
    rates = found["images_per_second"]
    plain, own = rates["plain"]["0"], rates["tfnas"]["0"]
    assert len(plain) == len(own) == 2 and min(*plain, *own) > 0
    assert found["ratios"]["0"] == pytest.approx([one / other for one, other in zip(own, plain, strict=True)])
    assert found["difference_of_the_view"] > 0 and 0 < found["difference"] < found["what_the_jitter_changes"]
    table = capsys.readouterr().out
    assert "7 files of 80 x 60" in table and "| workers | plain, images/s |" in table


def test_both_loaders_give_the_same_images(bench_loader, tmp_path):
    """Numbered by their labels: all of them in every epoch, in the same order."""
    settings = argparse.Namespace(images=7, batch=3, image_size=16, width=48, height=36, quality=90)
    files = bench_loader.write_files(tmp_path, settings)
    files.labels[:] = range(7)
    orders = []
    for made in (bench_loader.plain_epochs, bench_loader.own_epochs):
        epoch = made(files, 0, settings, torch.device("cpu"))
        for number in (0, 1):
            batches = list(epoch(number))
            assert [images.shape for images, _ in batches] == [(size, 3, 16, 16) for size in (3, 3, 1)]
            assert all(images.dtype == torch.float32 for images, _ in batches)
            orders.append([int(label) for _, labels in batches for label in labels])
    assert orders[:2] == orders[2:] and orders[0] != orders[1]
    assert [sorted(order) for order in orders] == [list(range(7))] * 4
