"""A score, a block and a space from files outside the package: imported, and installed, as docs/extending.md says."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import tfnas
from tfnas.cli import evolve as cli_evolve
from tfnas.cli import parsing_model
from tfnas.core.errors import InputError
from tfnas.core.units import peak_activations
from tfnas.proxies import score as scores
from tfnas.proxies.score import Score, ScoreFailed, register_score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.runs.worker_pool import TaskResult, WorkerPool
from tfnas.searching.evolution.candidate_scoring import CandidateScorer
from tfnas.searching.evolution.evolutionary_search import evolve
from tfnas.searching.evolution.objective import Objective
from tfnas.spaces import families
from tfnas.spaces.families import architecture_counts, parse_architecture
from tfnas.spaces.mbconv import space_file
from tfnas.spaces.zen import block_names
from tfnas.spaces.zen.block_names import register_block
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_figures import structure_figures
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.structure_spaces import structure_space
from tfnas.spaces.zen.super_block import BLOCK_TYPES, BlockType
from tfnas.spaces.zen.unit_shapes import architecture_shapes

PROJECT = Path(__file__).resolve().parents[1]
QUIET = Console(quiet=True)
ZENNAS = (
    "i3x32_n10:SuperConvK3BNRELU(3,8,1,1)SuperResFusedK3(8,16,2,24,2)SuperResFusedK5(16,16,1,8,1)"
    "SuperConvK1BNRELU(16,32,1,1)"
)
TINYNAS = "i3x32_n10:" + str(
    [
        {"class": "ConvKXBNRELU", "in": 3, "out": 8, "k": 3, "s": 1},
        {"class": "SuperResFused", "in": 8, "out": 16, "k": 3, "s": 2, "L": 2, "btn": 24},
        {"class": "SuperResK1DWSEK1", "in": 16, "out": 16, "k": 3, "s": 1, "L": 1, "btn": 48},
    ]
)
FUSED = BlockType(("full", "point"), shortcut="identity", squeeze_excite_after=0, squeeze_excite="always")


def documented(name):
    """The code block of docs/extending.md for a file, without the comment that names the file."""
    text = (PROJECT / "docs" / "extending.md").read_text()
    (code,) = re.findall(rf"^```\w+\n# {re.escape(name)}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return code


def documented_program():
    text = (PROJECT / "docs" / "extending.md").read_text()
    (code,) = re.findall(r"^```python\n(import my_block\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return code


def documented_command():
    text = (PROJECT / "docs" / "extending.md").read_text()
    (command,) = re.findall(r"^python -m tfnas evolve .*$", text, re.MULTILINE)
    return command


def write(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(documented(name))


@pytest.fixture
def forget_imported():
    """The modules that a test imports under a documented name are gone afterwards."""
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_score", "my_block", "my_package")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(scores, "_registered", {})
    known = dict(BLOCK_TYPES)
    yield
    BLOCK_TYPES.clear()
    BLOCK_TYPES.update(known)


@pytest.fixture
def fused():
    """The documented block, registered."""
    exec(documented("my_block.py"), {})


# ---- the documented files -------------------------------------------------------------------------------------------


def test_the_documented_files_imported_by_a_program(tmp_path, monkeypatch, forget_imported, capsys):
    """Its worker processes have imported neither block nor score."""
    write(tmp_path, "my_score.py", "my_block.py", "my_space.yaml")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(documented_program(), {"__name__": "__main__"})
    text = capsys.readouterr().out.splitlines()[-1]
    summary = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert "SuperResFusedK" in text and summary["params"] <= 60e3
    assert summary["outcomes"]["joined"] > 16 and not summary["outcomes"].get("no_score")
    members = json.loads((tmp_path / "found" / "population.json").read_text())["members"]
    assert members[0]["architecture"] == text
    for member in members[:3]:
        again = tfnas.score("logit_spread", member["architecture"], batch_size=16, seed=2)
        assert again == pytest.approx(member["score"])


def test_the_documented_package_installed_for_command_lines(tmp_path, monkeypatch, forget_imported, capsys):
    write(tmp_path, "pyproject.toml")
    package, site = tmp_path / "my_package", tmp_path / "site"
    write(package, "my_score.py", "my_block.py", "my_space.yaml")
    (package / "__init__.py").write_text(documented("my_package/__init__.py"))
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(tmp_path)]
    subprocess.run(install, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    monkeypatch.syspath_prepend(site)
    run_dir = tmp_path / "run"
    command = [*documented_command().replace("64", "16").split(), "--run_dir", str(run_dir), "--jobs", "1"]
    assert command[:4] == ["python", "-m", "tfnas", "evolve"]
    assert cli_evolve.main(command[4:]) == 0
    assert json.loads((run_dir / "summary.json").read_text())["outcomes"]["joined"] > 0
    assert "SuperResFused" in (run_dir / "best_structure.txt").read_text()
    assert parsing_model.main(["--model_path", str(run_dir)]) == 0
    assert "SuperResFused" in capsys.readouterr().out


# ---- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [ZENNAS, TINYNAS])
def test_structures_of_a_registered_block(fused, text):
    """Read, written, sent to another process, counted and scored as the module is."""
    found = parse_architecture(text)
    assert parse_architecture(found.to_text()) == found == pickle.loads(pickle.dumps(found))
    network = tfnas.build_network(found)
    counted = tfnas.count(network, 32)
    assert architecture_counts(found) == counted
    figures = structure_figures().figures(found)
    assert (figures["params"], figures["macs"]) == (counted.params, counted.macs)
    fast = tfnas.score("zen", found, batch_size=4)
    module = StructureNetwork(found.structure, residuals=False)
    assert fast == pytest.approx(tfnas.score("zen", module, batch_size=4, image_size=32), abs=1e-3)


def test_what_a_unit_of_it_computes(fused):
    """Written out by hand: k x k with the stride, squeeze-and-excite, 1x1, and a pool as the shortcut."""
    structure = Structure.parse("SuperResFusedK3(8,8,2,24,1)")
    torch.manual_seed(0)
    (block,) = StructureNetwork(structure).double().eval().blocks
    (unit,) = block
    images = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    state = {name: value for name, value in unit.state_dict().items() if value.dtype == torch.float64}
    silu, scale = torch.nn.functional.silu, (1 + 1e-3) ** -0.5  # batch norms as they begin
    wide = silu(
        scale
        * torch.nn.functional.conv2d(
            images, state["body.conv1.weight"], stride=2, padding=1, bias=state.get("body.conv1.bias")
        )
    )
    narrow = silu(
        scale * torch.einsum("oi,ni->no", state["body.squeeze_excite.gate.conv1.weight"][..., 0, 0], wide.mean((2, 3)))
    )
    gate = torch.sigmoid(
        scale * torch.einsum("oi,ni->no", state["body.squeeze_excite.gate.conv2.weight"][..., 0, 0], narrow)
    )
    branch = scale * torch.einsum("oi,nihw->nohw", state["body.conv2.weight"][..., 0, 0], wide * gate[..., None, None])
    pooled = images.reshape(2, 8, 3, 2, 3, 2).mean((3, 5))
    with torch.no_grad():
        torch.testing.assert_close(unit(images), silu(branch + pooled))


def random_type(generator):
    count = int(generator.integers(2, 5))
    ends, inside = ("point", "full"), ("point", "full", "depthwise")
    layers = [ends if place in (0, count - 1) else inside for place in range(count)]
    squeezes = str(generator.choice(["never", "if asked", "always"]))
    return BlockType(
        tuple(str(generator.choice(words)) for words in layers),
        strided=int(generator.integers(count)),
        shortcut=str(generator.choice(["none", "strided", "pooled", "identity"])),
        projects_first=bool(generator.integers(2)),
        units_per_layer=int(generator.integers(1, 3)),
        squeeze_excite=squeezes,
        squeeze_excite_after=None if squeezes == "never" else int(generator.integers(count)),
        activation=str(generator.choice(["relu", "silu"])),
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_type_is_counted_and_scored_as_its_module(seed):
    generator = np.random.default_rng(seed)
    name = f"SuperRandom{seed}x"  # what is known of a type is remembered by its name
    register_block(name, random_type(generator))
    squeezed = "_se" if seed % 2 else ""
    found = parse_architecture(
        f"i3x20_n5{squeezed}:SuperConvK3BNRELU(3,8,1,1){name}K3(8,16,2,24,2){name}K5(16,8,1,8,1)"
    )
    network, figures = tfnas.build_network(found), structure_figures().figures(found)
    counted = tfnas.count(network, 20)
    assert (figures["params"], figures["macs"]) == (counted.params, counted.macs)
    shapes = architecture_shapes(found)
    assert sum(times * shape.counts.macs for shape, times in shapes) == counted.macs
    units = found.structure.units(20, use_se=bool(squeezed))
    assert figures["memory"] == 4 * peak_activations(units, 5)
    module = StructureNetwork(found.structure, residuals=False, use_se=bool(squeezed))
    expected = tfnas.score("zen", module, batch_size=4, image_size=20)
    assert tfnas.score("zen", found, batch_size=4) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("notation", ["zennas", "tinynas"])
def test_it_is_mutated_among_other_types(fused, tmp_path, notation):
    path = tmp_path / "own.yaml"
    if notation == "zennas":
        path.write_text(documented("my_space.yaml"))
    else:
        path.write_text(
            f'extends: tinynas-k1dwsek1\ninitial: "{TINYNAS}"\ntypes: [[SuperResFused, SuperResK1DWSEK1]]\n'
        )
    family = structure_space(str(path), max_layers=60)
    generator, seen, current = np.random.default_rng(0), set(), family.initial
    for _ in range(60):
        current = family.mutate(current, generator)
        assert Structure(current.structure.blocks, notation) == current.structure  # checked again
        assert parse_architecture(current.to_text()) == current
        seen |= {(block.block_type, block.kernel) for block in current.structure.blocks}
    other = ("kxkx", 3) if notation == "zennas" else ("k1dwsek1", 5)
    assert {("SuperResFused", 3), ("SuperResFused", 5), other} <= seen


@pytest.mark.parametrize(("fields", "message"), [
    ({"layers": ()}, "layers must be a tuple of convolutions, got"),
    ({"layers": "full"}, "layers must be a tuple of convolutions, got 'full'"),
    ({"layers": ("full", "dense")}, "layers must be point or full or depthwise, got 'dense'"),
    ({"layers": ("depthwise", "point")}, "must not begin or end with depthwise"),
    ({"layers": ("point", "depthwise")}, "must not begin or end with depthwise"),
    ({"strided": 2}, "strided must be 0 to 1, the place of a layer, got 2"),
    ({"shortcut": "dense"}, "shortcut must be none or strided or pooled or identity, got 'dense'"),
    ({"activation": "gelu"}, "activation must be relu or silu, got 'gelu'"),
    ({"units_per_layer": 0}, "units_per_layer must be a whole number from 1 on"),
    ({"squeeze_excite": "always"}, "squeeze_excite_after must be given where squeeze_excite is not never"),
    ({"squeeze_excite_after": 1}, "squeeze_excite_after must be given where squeeze_excite is not never"),
    ({"squeeze_excite": "always", "squeeze_excite_after": 5}, "squeeze_excite_after must be 0 to 1"),
])  # fmt: skip
def test_a_type_that_cannot_be_names_the_field(fields, message):
    with pytest.raises(InputError, match=message):
        BlockType(**{"layers": ("full", "point"), **fields})


def test_a_name_stands_for_one_block(fused):
    register_block("SuperResFused", BLOCK_TYPES["tinynas", "SuperResFused"])  # the same again
    for name in ("SuperResFused", "SuperResK1KX", "SuperResK3"):  # SuperResK3K3 is ZenNAS's
        with pytest.raises(ValueError, match=f"there is a block type '{name}' already"):
            register_block(name, FUSED)
    for name in ("Fused", "Super", "Super-Res", "SuperRes(8)"):
        with pytest.raises(InputError, match="must begin with Super"):
            register_block(name, FUSED)
    with pytest.raises(InputError, match="SuperResOne: layers must be two convolutions or more, got 1"):
        register_block("SuperResOne", BlockType(("full",)))
    with pytest.raises(InputError, match="SuperResOther: expands_output and repeats=False are for"):
        register_block("SuperResOther", BlockType(("full", "point"), repeats=False))


@pytest.mark.parametrize("text", [ZENNAS, TINYNAS])
def test_an_unknown_block_says_how_to_make_it_known(text):
    with pytest.raises(InputError, match=r"a type of your own must be registered \(tfnas.register_block\)"):
        parse_architecture(text)


# ---- mistakes name the file -----------------------------------------------------------------------------------------


def written_module(folder, monkeypatch, source):
    """The name of a module that can be imported."""
    (folder / "wrong_module.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "wrong_module", raising=False)
    return "wrong_module"


def offer(monkeypatch, module, entry):
    def entry_points(*, group, name=entry.name):
        return [entry] if (group, name) == (entry.group, entry.name) else []

    monkeypatch.setattr(module, "entry_points", entry_points)


@pytest.mark.parametrize(("source", "message"), [
    ("import no_such_module", "cannot be loaded: No module named 'no_such_module'"),
    (documented("my_block.py").replace('("full", "point")', '("full", "depthwise")'), "loaded: layers must not"),
    ("BLOCK = 3", "must be a BlockType, got a int"),
    ("from tfnas.spaces.zen.super_block import BlockType\nBLOCK = BlockType(('full',))", "layers must be two conv"),
])  # fmt: skip
def test_a_block_of_a_package_that_is_wrong(tmp_path, monkeypatch, source, message):
    module = written_module(tmp_path, monkeypatch, source)
    offer(monkeypatch, block_names, EntryPoint("SuperResFused", f"{module}:BLOCK", block_names.ENTRY_POINTS))
    place = rf'entry point SuperResFused = "{module}:BLOCK" \(tfnas.blocks\)'
    with pytest.raises(InputError, match=f"{place}.*{message}"):
        parse_architecture(ZENNAS)


@pytest.mark.parametrize(("source", "message"), [
    ("SCORE = 1 / 0", "cannot be loaded: division by zero"),
    ("SCORE = 'zen'", "must be a Score, got a str"),
    (documented("my_score.py").replace("logit_spread", "other"), "must be named like its entry point, got name 'o"),
])  # fmt: skip
def test_a_score_of_a_package_that_is_wrong(tmp_path, monkeypatch, source, message):
    (tmp_path / "wrong_score.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_score", raising=False)
    offer(monkeypatch, scores, EntryPoint("logit_spread", "wrong_score:SCORE", scores.ENTRY_POINTS))
    with pytest.raises(
        InputError, match=rf'entry point logit_spread = "wrong_score:SCORE" \(tfnas.scores\).*{message}'
    ):
        tfnas.score("logit_spread", "SuperConvK3BNRELU(3,8,1,1)", image_size=8)


def test_a_score_that_fails_names_its_file_and_line(tmp_path):
    path = tmp_path / "failing.py"
    path.write_text(
        "def measure(scored, options):\n    value = options.seed\n    return 1 / value if value < 9 else 1e999\n"
    )
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    register_score(Score(name="failing", higher_is_better=True, cost="analytic", summary="", measure=names["measure"]))
    place = re.escape(str(path))
    with pytest.raises(
        ScoreFailed, match=rf"score failing \({place}, line 3\) cannot be computed .*: division by zero"
    ):
        tfnas.score("failing", "SuperConvK3BNRELU(3,8,1,1)", seed=0)
    with pytest.raises(ScoreFailed, match=rf"score failing \({place}\) of SuperConv.* is not finite"):
        tfnas.score("failing", "SuperConvK3BNRELU(3,8,1,1)", seed=9)
    config = tfnas.EvolveConfig(score="failing", seed=0, iterations=4, run_dir=str(tmp_path / "run"), device="cpu")
    with pytest.raises(
        InputError, match=rf"--score: the network to start from has none: score failing \({place}, line 3"
    ):
        evolve(config, QUIET)
    assert not (tmp_path / "run").exists()


def test_a_space_of_a_package_that_is_wrong(tmp_path, monkeypatch, fused):
    (tmp_path / "wrong.yaml").write_text(documented("my_space.yaml") + "max_channels: 100\n")
    source = "from pathlib import Path\nSPACE = Path(__file__).with_name('wrong.yaml')\nTEXT = 'wrong.yaml'\n"
    module = written_module(tmp_path, monkeypatch, source)
    offer(monkeypatch, space_file, EntryPoint("wrong", f"{module}:SPACE", space_file.ENTRY_POINTS))
    place = re.escape(str(tmp_path / "wrong.yaml"))
    config = tfnas.EvolveConfig(space="wrong", score="params", iterations=4, run_dir=str(tmp_path / "run"))
    with pytest.raises(InputError, match=rf"space file {place}: max_channels must be a multiple of 8, got 100"):
        evolve(config, QUIET)
    with pytest.raises(InputError, match=r"no space 'wrongs': give one of .*, wrong\b.*did you mean wrong"):
        evolve(tfnas.EvolveConfig(space="wrongs", run_dir=str(tmp_path / "run")), QUIET)
    offer(monkeypatch, space_file, EntryPoint("wrong", f"{module}:TEXT", space_file.ENTRY_POINTS))
    with pytest.raises(InputError, match=rf'entry point wrong = "{module}:TEXT" .* must be a Path, got a str'):
        structure_space("wrong")


# ---- families in worker processes -----------------------------------------------------------------------------------


class OtherProcesses(WorkerPool):
    """Computes tasks as other processes do: from their bytes, without what this one has registered."""

    def results(self, tasks):
        for number, task in enumerate(map(pickle.dumps, tasks)):
            families._FAMILIES.clear()
            yield TaskResult(number, pickle.loads(task).compute(), 0.0)


def test_worker_processes_know_a_family_that_was_registered(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "tests" / "spaces")
    from toy_family import FAMILY

    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register_family(FAMILY)
    objective, options = Objective.parse("naswot"), ScoreOptions(batch_size=4)
    networks = [FAMILY.parse(f"toy:16x10:{widths}") for widths in ("8,8", "8,9")]
    expected = [(tfnas.score("naswot", network, batch_size=4),) for network in networks]
    scorer = CandidateScorer(objective, options, OtherProcesses(jobs=2, connected=True))
    assert scorer.in_workers and scorer.scores(networks) == expected
