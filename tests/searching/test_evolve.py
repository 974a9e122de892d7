"""The evolutionary search against a plain second implementation of its loop, and what it leaves behind."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import tfnas
from tfnas.core.errors import InputError
from tfnas.proxies import score
from tfnas.proxies.score import Score, register_score
from tfnas.searching.evolution.evolutionary_search import evolve
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.evolve_picture import pareto_front
from tfnas.searching.evolution.objective import Objective
from tfnas.searching.evolution.population import Member, Population, population_diversity
from tfnas.spaces import families
from tfnas.spaces.families import architecture_counts, load_architecture, parse_architecture
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_spaces import structure_space

QUIET = Console(quiet=True)


def settings(folder, **changes):
    """A small search by parameters, in closed form."""
    small = {"score": "params", "iterations": 150, "population": 20, "children": 8, "num_classes": 10, "seed": 3}
    small |= {"run_dir": str(folder / "run"), "device": "cpu", "max_params": 120e3}
    return EvolveConfig(**{**small, **changes})


def plain_search(family, value, config):
    """The loop as a list that is sorted anew each time: outcomes of all iterations, and the members, best first."""
    rng = np.random.default_rng(config.seed)
    members, outcomes = [(value(family.initial), 0, family.initial)], []
    while len(outcomes) < config.iterations:
        at_the_start, joining = list(members), []
        at_the_start.sort(key=lambda member: member[:2])
        for _ in range(min(config.children, config.iterations - len(outcomes))):
            if len(at_the_start) <= 10:
                child = family.mutate(family.initial, rng, changes=1)
            else:
                child = family.mutate(at_the_start[rng.integers(len(at_the_start))][2], rng)
            if child in [member[2] for member in at_the_start + joining]:
                outcomes.append("duplicate")
            elif sum(block.layers for block in child.structure.blocks) > config.max_layers:
                outcomes.append("over_layers")
            elif architecture_counts(child).params > config.max_params:
                outcomes.append("over_params")
            else:
                outcomes.append("joined")
                joining.append((value(child), len(outcomes), child))
        members += joining
        while len(members) > config.population:
            members.remove(min(members, key=lambda member: member[:2]))
    return outcomes, sorted(members, key=lambda member: (-member[0], member[1]))


@pytest.mark.parametrize("children", [1, 8])
def test_it_is_the_plain_loop(tmp_path, children):
    config = settings(tmp_path, children=children, max_layers=9)
    result = evolve(config, QUIET)
    family = structure_space(config.space, max_layers=9, num_classes=10)
    outcomes, members = plain_search(family, lambda found: architecture_counts(found).params, config)
    assert {"joined", "duplicate", "over_layers", "over_params"} == set(outcomes)
    history = np.load(result.run_dir / "history.npz", allow_pickle=False)
    assert [str(history["outcomes"][code]) for code in history["outcome"]] == outcomes
    population = json.loads((result.run_dir / "population.json").read_text())["members"]
    assert [member["architecture"] for member in population] == [found.to_text() for _, _, found in members]
    assert [(member["score"], member["found"]) for member in population] == [member[:2] for member in members]
    assert result.architecture == members[0][2]


def test_the_run_directory_says_what_was_found(tmp_path):
    config = settings(tmp_path, max_layers=30, max_macs=50e6)
    result = evolve(config, QUIET)
    run_dir, summary = result.run_dir, json.loads((result.run_dir / "summary.json").read_text())
    assert summary == result.summary
    counts = tfnas.count(tfnas.build_network(result.architecture), result.architecture.image_size)
    assert summary["params"] == counts.params == summary["score"] <= 120e3
    assert summary["macs"] == counts.macs <= 50e6 and summary["layers"] <= 30
    assert load_architecture(run_dir) == result.architecture == parse_architecture(summary["architecture"])
    assert Structure.load(run_dir / "best_structure.txt") == result.architecture.structure
    assert sum(summary["outcomes"].values()) == summary["iterations"] == config.iterations
    assert {"config.yaml", "log.txt", "tensorboard", "checkpoints"} <= {path.name for path in run_dir.iterdir()}
    assert (run_dir / "evolution.png").read_bytes().startswith(b"\x89PNG")
    log = (run_dir / "log.txt").read_text()
    assert "best" in log and "median" in log and "diversity" in log and "over params" in log
    for entry in summary["history"]:
        shares = [value for name, value in entry.items() if name not in ("epoch", "best", "median", "diversity")]
        assert math.isclose(sum(shares), 100) and 0 <= entry["diversity"] <= 1


def test_the_history_has_the_numbers_of_what_was_drawn(tmp_path):
    result = evolve(settings(tmp_path, score="params+flops"), QUIET)
    history = np.load(result.run_dir / "history.npz", allow_pickle=False)
    joined = history["outcome"] == list(history["outcomes"]).index("joined")
    duplicate = history["outcome"] == list(history["outcomes"]).index("duplicate")
    scores, figures = history["scores"], history["figures"]
    columns = [list(history["figure_names"]).index(name) for name in ("params", "macs")]
    assert list(history["score_names"]) == ["params", "flops"]
    assert np.array_equal(scores[joined], figures[joined][:, columns]) and np.isnan(scores[~joined]).all()
    assert np.isnan(figures[duplicate]).all() and np.isfinite(figures[~duplicate]).all()


def test_a_target_latency_is_met_by_refined_widths(tmp_path):
    result = evolve(settings(tmp_path, space="digits", score="entropy", target_lat=12.0, max_params=None), QUIET)
    summary, log = result.summary, (result.run_dir / "log.txt").read_text()
    table = tfnas.LatencyTable.load(summary["lookup_path"])
    assert 0.995 * 12 <= table.architecture_ms(result.architecture) == summary["table_ms"] <= 12 == summary["target_ms"]
    assert summary["table_fingerprint"] == table.fingerprint
    assert summary["score"] == tfnas.score("entropy", result.architecture)
    refined = summary["found"] is None
    assert ("by refining the widths of the best" in log) == refined
    document = json.loads((result.run_dir / "population.json").read_text())["members"]
    assert (summary["architecture"] in [member["architecture"] for member in document]) != refined


@pytest.fixture
def toy_family(monkeypatch):
    """A family from outside the package."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "spaces")
    from toy_family import FAMILY

    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register_family(FAMILY)
    return FAMILY


def test_mbconv_blocks_evolve_too(tmp_path):
    blocks = evolve(settings(tmp_path, space="digits", score="entropy", max_macs=2e6, max_params=None), QUIET)
    counts = tfnas.count(tfnas.build_network(blocks.architecture), blocks.architecture.image_size)
    assert blocks.summary["macs"] == counts.macs <= 2e6
    assert MBConvFamily(tfnas.space("digits")).genes(blocks.architecture)
    assert (blocks.run_dir / "model.config").is_file() and not (blocks.run_dir / "best_structure.txt").exists()
    assert blocks.summary["score"] > blocks.summary["start_scores"]["entropy"]


@pytest.mark.parametrize("family", ["zen", "mbconv"])
def test_a_family_with_spaces_is_no_space(tmp_path, family):
    with pytest.raises(InputError, match=f"--space: no space '{family}': give one of"):
        evolve(settings(tmp_path, space=family), QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("space", "trained"), [("tinynas-3d-k1dwk1", False), ("tinynas-k1kxk1", True)])
def test_training_is_proposed_for_networks_of_images_only(tmp_path, space, trained):
    result = evolve(settings(tmp_path, space=space, iterations=4, max_params=None), QUIET)
    log = (result.run_dir / "log.txt").read_text()
    assert "next " in log and ("--train_root IMAGES" in log) == trained


def test_a_family_of_ones_own_evolves_too(tmp_path, toy_family):
    result = evolve(settings(tmp_path, space="toy", init="toy:16x10:8,8,8", max_params=1600), QUIET)
    assert result.architecture.family == "toy" and 1500 < result.summary["params"] <= 1600
    assert result.summary["start"] == "toy:16x10:8,8,8"


# ---- objectives -----------------------------------------------------------------------------------------------------


def test_sums_and_ranks_of_scores(monkeypatch):
    def loss(scored, options):
        return 0.0

    monkeypatch.setattr(score, "_registered", {})
    register_score(Score(name="loss", higher_is_better=False, cost="forward", summary="for this test", measure=loss))
    total = Objective.parse("0.5*params + 2e+1*loss+flops:zennas")
    assert total.names == ("params", "loss", "flops:zennas")
    assert total.values([(4.0, 1.0, 3.0)]) == [0.5 * 4 - 20 * 1 + 3]
    combined = Objective.parse("params+loss", by_rank=True)
    found = combined.values([(1.0, 9.0), (2.0, 5.0), (2.0, 7.0), (3.0, 8.0)])
    # ranks from below: 1, 2.5, 2.5, 4 and, since lower is better, 1, 4, 3, 2
    expected = [math.log(a / 4) + math.log(b / 4) for a, b in ((1, 1), (2.5, 4), (2.5, 3), (4, 2))]
    assert found == pytest.approx(expected, abs=1e-12)
    alone = Objective.parse("loss")
    assert alone.shown(alone.total((7.0,))) == 7.0


def test_ranks_are_those_among_the_members(tmp_path):
    """Whatever was drawn in which order, the values are those of the final population alone."""
    result = evolve(settings(tmp_path, score="params+flops+random", combine="rank"), QUIET)
    document = json.loads((result.run_dir / "population.json").read_text())
    scores = np.array([member["scores"] for member in document["members"]])
    below = (scores[None] < scores[:, None]).sum(1) + ((scores[None] == scores[:, None]).sum(1) + 1) / 2
    expected = np.log(below / len(scores)).sum(1)
    assert [member["score"] for member in document["members"]] == pytest.approx(expected, abs=1e-9)
    assert result.summary["score"] == pytest.approx(expected.max(), abs=1e-9)


def test_the_worst_leave_and_the_first_of_equals_is_best():
    population = Population(3, Objective.parse("params"))
    values = {"a": 5.0, "b": 7.0, "c": 5.0, "d": 7.0}
    population.add([Member(name, number, (value,), ()) for number, (name, value) in enumerate(values.items())])
    assert [member.architecture for member in population.members] == ["c", "b", "d"]
    assert population.best.architecture == "b" and population.median == 7
    assert "a" not in population and "c" in population


def test_diversity_is_the_mean_distance_of_pairs(toy_family):
    population = Population(4, Objective.parse("params"))
    texts = ["toy:16x10:8,8", "toy:16x10:8,9", "toy:16x10:4,8"]
    population.add([Member(toy_family.parse(text), number, (0.0,), ()) for number, text in enumerate(texts)])
    # parts are 16_3:8 16_8:8 head_8 | 16_3:8 16_8:9 head_9 | 16_3:4 16_4:8 head_8
    assert population_diversity(population) == pytest.approx(((1 - 1 / 5) + (1 - 1 / 5) + 1) / 3)


def test_a_network_for_videos_is_trained_as_the_last_line_says(tmp_path):
    small = settings(tmp_path, space="tinynas-3d-k1dwk1", image_size=32, num_classes=3, iterations=4, max_params=None)
    result = evolve(small, QUIET)
    last = (result.run_dir / "log.txt").read_text().splitlines()[-1]
    network = eval(last.partition("videos: ")[2], {"tfnas": tfnas})
    assert "train_eval" not in last and network.structure == result.architecture.structure
    assert network.classifier.out_features == 3


def test_the_pareto_front_is_what_nothing_beats():
    points = np.random.default_rng(0).integers(0, 12, size=(60, 2)).astype(float)
    beaten = [
        ((points[:, 0] <= x) & (points[:, 1] >= y) & ((points[:, 0] < x) | (points[:, 1] > y))).any() for x, y in points
    ]
    expected = sorted({tuple(point) for point, is_beaten in zip(points, beaten, strict=True) if not is_beaten})
    assert [tuple(point) for point in pareto_front(points)] == expected


# ---- what cannot be scored, and bad input ---------------------------------------------------------------------------


def _sometimes_infinite(scored, options):
    params = architecture_counts(scored.architecture).params
    return math.nan if params % 3 == 0 else float(params)


def test_a_score_that_is_not_finite_is_counted_and_never_enters(tmp_path, monkeypatch):
    monkeypatch.setattr(score, "_registered", {})
    register_score(
        Score(
            name="sometimes",
            higher_is_better=True,
            cost="forward",
            summary="for this test",
            measure=_sometimes_infinite,
        )
    )
    assert architecture_counts(structure_space("zen-xxbl", num_classes=12).initial).params % 3
    result = evolve(settings(tmp_path, score="sometimes", num_classes=12, jobs=1), QUIET)
    assert result.summary["outcomes"]["no_score"] > 5
    members = json.loads((result.run_dir / "population.json").read_text())["members"]
    assert all(member["score"] % 3 for member in members)
    log = (result.run_dir / "log.txt").read_text()
    assert (
        "no score" in log
        and log.count("warning: networks without a finite score do not join; the first: score som") == 1
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": "zem"}, r"--score: no score 'zem'.*Did you mean zen\?"),
        ({"score": "zen:never"}, "--score: score zen has no variant 'never'"),
        ({"score": "params+params"}, "--score names params twice"),
        ({"score": "0*params"}, "the factor of params must be a number above 0"),
        ({"score": "params flops"}, "--score must be a score or a sum such as"),
        ({"score": "quantized_entropy", "space": "digits"}, "--score: the network to start from has none: "),
        ({"combine": "rank"}, "--combine rank is for several scores"),
        ({"score": "2*params+flops", "combine": "rank"}, "--combine rank takes scores without factors"),
        ({"stage_weights": "1,x"}, "--stage_weights must be numbers separated by commas"),
        ({"init": "SuperConvK3BNRELU(3,8,1"}, "--init: "),
        ({"init": "no-such-network"}, "--init: "),
        ({"init": "zennet_imagenet1k_flops400M_SE_res224"}, "--init: block 2 .* has no place in space zen-xxbl"),
        ({"init": "zennet_cifar10_model_size1M_res32"}, "over budget: .* above --max_params 120000"),
        ({"init": "i3x32_n10:SuperConvK3BNRELU(3,8,1,1)", "space": "digits"}, "--init names a network of family zen"),
        ({"space": "dogits"}, r"no space 'dogits'.*did you mean digits\?"),
        ({"max_params": 80e3}, "over budget: .* above --max_params 80000"),
    ],
)
def test_bad_input_is_one_message_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        evolve(settings(tmp_path, **changes), QUIET)
    assert list(tmp_path.iterdir()) == []


def test_without_a_table_it_says_how_to_measure_one(tmp_path):
    space = tmp_path / "own.yaml"
    space.write_text("extends: digits\nname: own\nstem_channels: 24\n")
    config = EvolveConfig(space=str(space), score="params", target_lat=12.0, save=str(tmp_path))
    with pytest.raises(InputError, match=rf"latency build --space {space} --out own_latency\.json"):
        evolve(config, QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "--iterations must be 1 or more"),
        ({"batch_size": 10**8}, "--batch_size must be 2 to 65536"),
        ({"max_macs": -1.0}, "max_macs must be a positive number"),
        ({"cluster": "tcp://x:1"}, "--cluster is for --joblib_backend dask or ray"),
        ({"resume": "there"}, "give --run_dir for a new run or --resume"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        settings(tmp_path, **changes)
