"""Re-ranking a small search from beginning to end: its numbers, its files, what it puts in place, and going on."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import pytest
import torch
import yaml
from made_tasks import PICTURE

import tfnas
from tfnas.core.errors import InputError, RunFailed
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.data.opened_data import open_data
from tfnas.data.preprocessing import Preprocessing
from tfnas.latency.cost_table import LatencyTable
from tfnas.nn.network import Network
from tfnas.runs.run_directory import search_checkpoints
from tfnas.searching.parsing import parse_model
from tfnas.searching.reranking import rerank_tasks as tasks
from tfnas.searching.reranking.finished_search import open_search
from tfnas.searching.reranking.rerank_tasks import JOURNAL_FILE
from tfnas.supernet.extract import extract_network, supernet_from_state


def json_of(run_dir, name):
    return json.loads((run_dir / name).read_text())


def test_every_candidate_gets_its_numbers(searched, reranked):
    result = reranked()
    summary, rows = json_of(searched, "summary.json"), result.rows()
    table = LatencyTable.load(summary["lookup_path"])
    assert len(rows) == 8 and sorted(row["candidate"] for row in rows) == list(range(8))
    for row in rows:
        architecture = tfnas.Architecture.parse(row["architecture"])
        network = Network(architecture)
        counts = tfnas.count(network, architecture.image_size)
        assert row["table_ms"] == table.architecture_ms(architecture)
        assert 0.995 * summary["target_ms"] <= row["table_ms"] <= summary["target_ms"]
        assert (row["params"], row["macs"]) == (counts.params, counts.macs)
        assert 0 <= row["inherited_top1"] <= 100
        assert row["trained_top1"] is None
    derived = next(row for row in rows if row["derived"])
    assert derived["architecture"] == summary["architecture"] and derived["candidate"] == 0
    assert derived["inherited_top1"] == summary["top1"]  # as the search itself judged it


def test_inherited_accuracy_is_that_of_the_extracted_network(searched, reranked):
    """A network with the supernet's channels, batch norm on the statistics of each batch, on the architecture part."""
    result = reranked(num_candidates=4)
    state, _, _ = search_checkpoints(searched).load_latest()
    saved = yaml.safe_load((searched / "config.yaml").read_text())
    supernet = supernet_from_state(state)
    held_out = open_data(
        DataConfig(data="digits"), image_size=supernet.space.image_size, seed=saved["seed"]
    ).architecture
    batches = EpochBatches(len(held_out), batch_size=saved["batch_size"], epoch=0, seed=saved["seed"])
    for number, candidate in enumerate(result.candidates):
        network = extract_network(supernet, candidate.architecture).train()
        right = 0
        with torch.no_grad():
            for images, labels in loader(held_out, batches, workers=0):
                right += int((network(images).argmax(1) == labels).sum())
        top1 = 100 * right / len(held_out)
        # the supernet computes in another layout in memory: a last digit may move one image
        assert result.measure("inherited").values[number] == pytest.approx(top1, abs=100.1 / len(held_out))


def test_ranks_are_combined_by_the_sum_of_their_logarithms(reranked):
    rows = reranked(scores="flops,inherited").rows()
    macs = [row["macs"] for row in rows]
    for row in rows:
        assert row["flops_rank"] == 1 + sum(other > row["macs"] for other in macs)  # counts differ: no ties
        ties = [other["inherited_top1"] for other in rows]
        above = sum(value > row["inherited_top1"] for value in ties)
        assert row["inherited_rank"] == 1 + above + (ties.count(row["inherited_top1"]) - 1) / 2
        expected = math.log(row["flops_rank"]) + math.log(row["inherited_rank"])
        assert row["log_rank_sum"] == pytest.approx(expected, rel=1e-12)
    sums = [round(row["log_rank_sum"], 9) for row in rows]
    assert sums == sorted(sums) and [row["rank"] for row in rows] == list(range(1, 9))


def test_scores_of_real_images_get_those_of_the_search(reranked):
    """The same two batches for every candidate, of the images that weights are trained on."""
    result = reranked(scores="zico,az_trainability", num_candidates=3, score_batch=4)
    weights = open_data(result.search.data, image_size=8, seed=0).weights
    order = next(iter(EpochBatches(len(weights), batch_size=8, epoch=0, seed=0)))
    plain = Preprocessing.of("digits", 8).transform()
    images, labels = dataclasses.replace(weights, transform=plain).pixels(order)
    settings = {"images": plain.normalise(images), "labels": labels, "seed": 0}
    for row in result.rows():
        assert row["zico"] == tfnas.score("zico", row["architecture"], **settings)
        assert row["az_trainability"] == tfnas.score("az_trainability", row["architecture"], seed=0, batch_size=4)


def test_the_files_say_the_same(searched, reranked):
    result = reranked()
    document = json_of(searched, "rerank.json")
    assert document["candidates"] == json.loads(json.dumps(result.rows()))
    assert document["num_candidates"] == 8 and document["combined"] == ["flops", "params"]
    assert document["candidates"][document["derived_rank"] - 1]["derived"] is True
    assert document["picked"]["by"] == "derived" and document["picked"]["candidate"] == 0
    with (searched / "rerank.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["architecture"] for row in rows] == [row["architecture"] for row in document["candidates"]]
    assert [float(row["table_ms"]) for row in rows] == [row["table_ms"] for row in document["candidates"]]
    assert (searched / "rerank.png").read_bytes() == PICTURE
    assert "derived   rank" in (searched / "log.txt").read_text()


def test_picking_and_putting_back(searched, reranked):
    before = {name: (searched / name).read_bytes() for name in ("architecture.json", "model.config")}
    summary = json_of(searched, "summary.json")
    reranked()
    assert {name: (searched / name).read_bytes() for name in before} == before  # the derived one is the default
    assert json_of(searched, "summary.json") == summary
    result = reranked(pick="rank")
    picked = result.candidates[result.order[0]].architecture
    assert not result.candidates[result.order[0]].is_derived, "the seed must make it another one"
    assert tfnas.Architecture.load(searched) == picked
    assert json_of(searched, "model.config") == picked.to_model_config()
    now = json_of(searched, "summary.json")
    assert now["architecture"] == picked.to_text() and now["picked_by"] == "rank"
    assert now["derived"]["architecture"] == summary["architecture"] and now["seed"] == summary["seed"]
    parsed = parse_model(searched)
    assert parsed.architecture == picked and parsed.target_ms == summary["target_ms"]
    assert now["params"] == parsed.counts.params and now["table_ms"] == pytest.approx(parsed.table_ms)
    assert any("picked by re-ranking" in note for note in parsed.notes)
    assert reranked(pick="rank").candidates == result.candidates  # drawn around the derived one as before
    reranked(pick="derived")
    assert json_of(searched, "summary.json") == summary
    assert {name: (searched / name).read_bytes() for name in before} == before


def test_a_second_time_computes_what_is_new_only(searched, reranked_anew, monkeypatch):
    first = reranked_anew()
    lines = (searched / JOURNAL_FILE).read_text().splitlines()
    assert len(lines) == 3 * 8
    computed = []

    def watched(kind):
        compute = kind.compute
        monkeypatch.setattr(kind, "compute", lambda task: computed.append(task.measure) or compute(task))

    watched(tasks.ScoreTask)
    watched(tasks.InheritedTask)
    again = reranked_anew()
    assert not computed
    assert again.rows() == first.rows()
    reranked_anew(scores="flops,entropy", num_candidates=10)
    assert sorted(computed) == ["entropy"] * 10 + ["flops"] * 2 + ["inherited"] * 2


def test_a_killed_run_goes_on_with_the_scores_it_has(searched, reranked_anew, monkeypatch):
    compute, seen = tasks.InheritedTask.compute, []

    def dying(task):
        if len(seen) == 3:
            raise RunFailed("the machine is gone")
        seen.append(task.architecture)
        return compute(task)

    monkeypatch.setattr(tasks.InheritedTask, "compute", dying)
    with pytest.raises(RunFailed, match=r"the machine is gone\. All results so far are saved\. The same command"):
        reranked_anew()
    assert not (searched / "rerank.json").exists()
    assert len((searched / JOURNAL_FILE).read_text().splitlines()) == 2 * 8 + 3
    monkeypatch.setattr(tasks.InheritedTask, "compute", lambda task: seen.append(task.architecture) or compute(task))
    result = reranked_anew()
    assert len(seen) == 8 == len(set(seen))
    assert len(result.rows()) == 8


@pytest.mark.slow
def test_counted_targets_have_their_own_band(tmp_path):
    """Networks of the same number of MACs; there is no table file then."""
    from rich.console import Console
    from small_search import small_config

    from tfnas.latency.counted_table import counted_table
    from tfnas.searching.differentiable.differentiable_search import search
    from tfnas.searching.reranking.rerank import rerank
    from tfnas.searching.reranking.rerank_config import RerankConfig
    from tfnas.spaces.mbconv.space_file import space

    low, high = counted_table(space(small_config(tmp_path, "none").space), "macs", 10).range_ms(
        space(small_config(tmp_path, "none").space), 10
    )
    config = small_config(tmp_path, "run", cost="macs", lookup_path=None, target_lat=(low + high) / 2)
    run_dir = search(config, Console(quiet=True)).run_dir
    options = {"scores": "params", "num_candidates": 5, "jobs": 1, "device": "cpu"}
    result = rerank(RerankConfig(model_path=str(run_dir), **options), Console(quiet=True))
    for row in result.rows():
        assert 0.995 * config.target_lat <= row["macs"] <= config.target_lat
        assert row["table_macs"] == row["macs"]


# ---- what cannot be re-ranked ---------------------------------------------------------------------------------------


def refusal(path, **settings):
    with pytest.raises(InputError) as caught:
        open_search(str(path), settings.get("lookup_path"))
    return str(caught.value)


def test_refusals_say_what_is_in_the_way(searched, tmp_path):
    assert "there is no" in refusal(tmp_path / "none")
    assert "is not a run directory" in refusal(tmp_path)
    (searched / "summary.json").rename(searched / "kept.json")
    assert "is not finished" in refusal(searched) and "--resume" in refusal(searched)
    (searched / "kept.json").rename(searched / "summary.json")
    table = LatencyTable.load(json_of(searched, "summary.json")["lookup_path"])
    other = dataclasses.replace(table.contents.measurement, date="2020-02-02")
    LatencyTable(dataclasses.replace(table.contents, measurement=other)).save(tmp_path / "other.json")
    assert "is not the one that" in refusal(searched, lookup_path=str(tmp_path / "other.json"))
    summary = json_of(searched, "summary.json")
    for change, words in (
        ({"target_ms": "fast"}, "target_ms must be a number above 0, got 'fast'"),
        ({"target_ms": summary["target_ms"] * 1.2}, "outside the band"),
        ({"architecture": None}, "does not contain the architecture"),
    ):
        (searched / "summary.json").write_text(json.dumps({**summary, **change}))
        assert words in refusal(searched)
    (searched / "summary.json").write_text(json.dumps(summary))
    config = searched / "config.yaml"
    config.write_text(config.read_text().replace("seed: 4\n", "seed: 5\n"))
    assert "config.yaml contains seed 5 (4 when it was saved)" in refusal(searched)
    config.write_text(config.read_text() + "searched_in: elsewhere\n")
    assert "result of latency close" in refusal(searched)


def test_settings_that_config_yaml_lacks_are_those_of_the_checkpoint(searched):
    def settings():
        subject = open_search(str(searched), None)
        return subject.seed, subject.batch_size, subject.data

    expected, config = settings(), searched / "config.yaml"
    assert expected[:2] == (4, 96)
    config.write_text(config.read_text().replace("seed: 4\n", "").replace("batch_size: 96\n", ""))
    assert settings() == expected
    config.unlink()
    assert settings() == expected


def test_a_run_without_checkpoints_is_refused(searched):
    for path in search_checkpoints(searched).saved():
        path.unlink()
    assert "no checkpoint of a search" in refusal(searched)


def test_files_inside_the_run_name_it(searched):
    expected = open_search(str(searched), None)
    for path in (searched / "model.config", expected.checkpoint):
        assert open_search(str(path), None).derived == expected.derived
