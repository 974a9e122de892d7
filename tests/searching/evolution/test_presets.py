"""Published searches: every one opens with its own start within its own budgets; TinyNAS's files are read, not run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from tfnas import InputError
from tfnas.cli import evolve as evolve_command
from tfnas.runs.distributed import DistributedContext
from tfnas.searching.evolution.evolutionary_search import evolve
from tfnas.searching.evolution.evolve_setup import prepare
from tfnas.searching.evolution.presets import preset, preset_config, preset_names
from tfnas.spaces.zen.zoo_networks import zoo_architecture

ALONE = DistributedContext(0, 1, torch.device("cpu"))
PROGRAMS = {"Zen-NAS": 18, "TinyNAS": 19, "Incorporated-NAS": 15, "AZ-NAS": 3, "ZiCo": 3}
TIMED = [name for name in preset_names() if preset(name).ms_per_image is not None]
UNTIMED = [name for name in preset_names() if name not in TIMED]
ANALYTIC = [name for name in UNTIMED if "entropy" in preset(name).fields["score"]]

R50 = """\
work_dir = './save_model/R50_R224_FLOPs41e8/'
log_level = 'INFO'
log_freq = 1000
image_size = 224
largest = 41 * 1e8

model = dict(type='CnnNet', structure_info=[
    {'class': 'ConvKXBNRELU', 'in': 3, 'out': 32, 's': 2, 'k': 3},
    {'class': 'SuperResK1KXK1', 'in': 32, 'out': 256, 's': 2, 'k': 3, 'L': 1, 'btn': 64},
    {'class': 'SuperResK1KXK1', 'in': 256, 'out': 512, 's': 2, 'k': 3, 'L': 1, 'btn': 128},
    {'class': 'SuperResK1KXK1', 'in': 512, 'out': 768, 's': 2, 'k': 3, 'L': 1, 'btn': 256},
    {'class': 'SuperResK1KXK1', 'in': 768, 'out': 1024, 's': 1, 'k': 3, 'L': 1, 'btn': 256},
    {'class': 'SuperResK1KXK1', 'in': 1024, 'out': 2048, 's': 2, 'k': 3, 'L': 1, 'btn': 512},
])
budgets = [
    dict(type="flops", budget=largest),
    dict(type="layers", budget=49),
    dict(type="model_size", budget=25.55e6),
]
score = dict(type='madnas', multi_block_ratio=[0, 0, 0, 0, 1])
space = dict(type='space_k1kxk1', image_size=image_size)
search = dict(minor_mutation=False, minor_iter=100000, popu_size=256, num_random_nets=100000, sync_size_ratio=1.0,
              num_network=1)
"""


def test_there_is_one_of_every_published_search():
    programs = [preset(name).source.partition(",")[0] for name in preset_names()]
    assert {program: programs.count(program) for program in programs} == PROGRAMS


@pytest.mark.parametrize("name", UNTIMED)
def test_its_start_is_within_its_budgets_and_belongs_to_its_space(name):
    """Scores that take passes are replaced: that a start has one is not what is checked here."""
    analytic = {} if name in ANALYTIC else {"score": "params", "combine": "sum"}
    setup = prepare(preset_config(name, jobs=1, **analytic), ALONE)
    fields = preset(name).fields
    assert setup.budgets.exceeded(setup.budgets.figures(setup.searched.initial)) is None
    assert setup.budgets.names == tuple(name for name in setup.budgets.names if f"max_{name}" in fields)
    assert len(setup.budgets.names) == sum(key.startswith("max_") for key in fields)
    initial = fields["init"]
    if not initial.startswith("Super"):
        assert setup.searched.initial.structure == zoo_architecture(initial).structure
    assert setup.searched.initial.image_size == fields["image_size"]


@pytest.mark.parametrize("name", TIMED)
def test_a_budget_of_the_authors_device_needs_a_table(name):
    with pytest.raises(InputError, match=rf"preset {name} has a budget of [\d.]+ ms per image \(V100.*--lookup_path"):
        preset_config(name)
    found = preset_config(name, max_ms=3.0)
    assert (found.max_ms, found.space) == (3.0, preset(name).fields["space"])
    assert preset(name).settings(32)["max_ms"] == 32 * preset(name).ms_per_image


def test_what_is_given_takes_precedence():
    found = preset_config("zen-cifar-2m", iterations=20, max_params=5e5)
    assert (found.iterations, found.max_params, found.max_layers, found.score) == (20, 5e5, 20, "zen")


def test_an_unknown_one_is_named_with_a_close_one():
    with pytest.raises(InputError, match=r"no preset 'zen-cifar-1M' \(did you mean zen-cifar-1m\?\): --list_presets"):
        preset_config("zen-cifar-1M")


def test_the_command_takes_a_name_and_flags_before_its_settings(tmp_path, capsys):
    run_dir = tmp_path / "run"
    flags = ["--preset", "params-cifar-1m", "--iterations", "64", "--population", "512", "--run_dir", str(run_dir)]
    assert evolve_command.main([*flags, "--max_params", "5e5"]) == 0
    settings = yaml.safe_load((run_dir / "config.yaml").read_text())
    expected = {"space": "zen-xxbl", "score": "params", "max_params": 5e5, "max_layers": 18, "iterations": 64}
    assert {name: settings[name] for name in expected} == expected
    assert evolve_command.main(["--preset", "params-cifar-1m", "--resume", str(run_dir)]) == 0
    assert "all" in capsys.readouterr().out
    assert evolve_command.main(["--preset", "params"]) == 2
    assert "no preset 'params'" in capsys.readouterr().err


def test_all_are_listed_in_lines_that_fit(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert evolve_command.main(["--list_presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == preset_names()
    start = lines.index("zen-cifar-1m: Zen-NAS, Zen_NAS_cifar_params1M.sh")
    assert lines[start + 1] == "  zen in zen-xxbl at 32 px; 1 M parameters, 18 layers"
    with pytest.raises(SystemExit):
        evolve_command.main(["--help"])
    assert "--list_presets" in capsys.readouterr().out.split("examples:")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", UNTIMED)
def test_it_runs_to_its_end(name, tmp_path):
    short = {} if "zico" not in name else {"data": "digits", "num_classes": None}
    config = preset_config(name, iterations=6, children=3, batch_size=4, run_dir=str(tmp_path / "run"), **short)
    result = evolve(config)
    assert sum(result.summary["outcomes"].values()) == 6
    assert (tmp_path / "run" / "best_structure.txt").exists()


# ---- files of TinyNAS -----------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.py"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_configuration_file_says_what_the_preset_of_it_does(tmp_path):
    found = dataclasses.asdict(preset_config(written(tmp_path, R50)))
    known = dataclasses.asdict(preset_config("r50-flops"))
    differing = {name for name in found if found[name] != known[name]}
    assert differing == {"init"}
    start = prepare(preset_config(written(tmp_path, R50)), ALONE).searched.initial
    assert [block.out_channels for block in start.structure.blocks] == [32, 256, 512, 768, 1024, 2048]


def test_rules_of_its_space_are_taken_over(tmp_path):
    text = R50.replace("image_size=image_size)", "maximum_channel=2304, exclude_stem=True, block_num=3)")
    rules = prepare(preset_config(written(tmp_path, text)), ALONE).searched.family.mutation.rules
    assert (rules.max_channels, rules.change_stem, rules.changes) == (2304, False, 3)


def test_a_latency_is_of_its_device(tmp_path):
    text = R50 + "budgets = [dict(type='latency', budget=8e-4)]\nlatency = dict(type='OpPredictor', data_type='FP16')\n"
    with pytest.raises(InputError, match=r"0\.8 ms per image \(FP16, batch 32\)"):
        preset_config(written(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_size = 224", "import os", "line 4: expected `name = value`; a preset is read, not run"),
        ("image_size = 224", "image_size = int('224')", "line 4: expected a literal.*a preset is read, not run"),
        ("41 * 1e8", "unknown", "line 5: expected a literal, dict.* or a name assigned before"),
        ("41 * 1e8", "41 / 0", "line 5: division by zero"),
        ("41 * 1e8", "41 *", "line 5: invalid syntax"),
        ("budget=49", "budget='many'", "budget 'layers' must have a budget above 0, got 'many'"),
        ('type="layers"', 'type="depth"', "unknown budget 'depth'; known are layers"),
        ("'space_k1kxk1'", "'space_other'", "unknown space 'space_other'; known are k1kxk1"),
        ("'madnas'", "'best'", "unknown score 'best'; known are madnas"),
        ("num_network=1", "num_network=5", "search.num_network = 5 is not understood: only 1"),
        ("popu_size=256", "popu_size=0", "search.popu_size must be a whole number of 1 or more, got 0"),
        ("popu_size=256", "popu_size=1e999", "search.popu_size must be a whole number of 1 or more, got inf"),
        ("type='space_k1kxk1'", "**largest, type='space_k1kxk1'", "line .*: expected a literal, dict"),
        ("image_size = 224", "image_size = 'small'", "image_size must be given, as a whole number, got 'small'"),
        ("model = dict", "models = dict", "unknown setting models; known are image_size"),
        ("'btn': 512", "'btn': '512'", "block 6 of 6.*btn must be a whole number"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, old, new, message):
    assert old in R50
    with pytest.raises(InputError, match=rf"preset .*config\.py: .*{message}"):
        preset_config(written(tmp_path, R50.replace(old, new)))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the preset .*none\.py: No such file"):
        preset_config(str(tmp_path / "none.py"))
