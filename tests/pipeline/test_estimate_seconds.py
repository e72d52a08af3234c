"""The seconds of a dry run by hand arithmetic: the pieces take made-up seconds, and everything is counted once.

A clock that goes on by one second whenever it is read stands for what the probes time themselves.
"""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch

from dealrec.config_file import load
from dealrec.pipeline.estimates import bench as benches
from dealrec.pipeline.estimates import recommenders, surrogates, tiger
from dealrec.pipeline.estimates.bench import Bench, Watched, seconds_each, watched
from dealrec.pipeline.estimates.results import Expected
from dealrec.pipeline.evaluation import measures
from dealrec.pipeline.evaluation import test_users as users_of
from dealrec.pipeline.stage import Silent
from dealrec.pipeline.surrogates import batches, chosen_parameters, trained
from dealrec.pipeline.tables import read_samples
from dealrec.surrogate import Batches, per_sample_loss
from dealrec.surrogate.units import make_units
from tests.pipeline.test_recommenders import SMALL_TIGER

Write = Callable[..., Path]
LOADING, ENCODING = 1000.0, 2.0  # seconds of the recommender, and of a sample that becomes tokens


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (benches, recommenders, surrogates, tiger):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=itertools.count(1.0).__next__))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the measurements of a module seconds in the order in which they are made, or a constant by name."""

    def set_(module: Any, *, seconds: tuple[float, ...] = (), settled: tuple[float, ...] = (), **rates: Any) -> None:
        for name, values in (("seconds_of", seconds), ("settled_seconds_of", settled)):
            if values:
                monkeypatch.setattr(module, name, taking(values))
        for name, value in rates.items():
            monkeypatch.setattr(module, name, lambda *_args, _value=value, **_options: _value)

    return set_


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths in tokens of what each measurement has encoded, at made-up seconds of loading and encoding."""
    lengths: list[list[int]] = []
    started, encode = recommenders._started, recommenders._encoded

    def watching(recommender: Any, samples: pl.DataFrame) -> tuple[list[Any], float]:
        found, _ = encode(recommender, samples)
        lengths.append([len(one.input_ids) for one in found])
        return found, ENCODING

    monkeypatch.setattr(recommenders, "_started", lambda bench: (started(bench)[0], LOADING))
    monkeypatch.setattr(recommenders, "_encoded", watching)
    return lengths


def taking(seconds: tuple[float, ...]) -> Callable[[Callable[[], object]], float]:
    """In the place of `seconds_of`: does the work and says that it took what is given, one after the other."""
    left = iter(seconds)

    def measure(work: Callable[[], object]) -> float:
        work()
        return next(left)

    return measure


def made_bench(config: Path, folder: Path, *overrides: str) -> Bench:
    """With the data read."""
    folder.mkdir()
    bench = Bench(load(config, list(overrides)), folder, Silent())
    bench.run("data")
    return bench


def selected_bench(config: Path, folder: Path, *overrides: str) -> Bench:
    bench = made_bench(config, folder, *overrides)
    bench.stand_in_selection()
    return bench


def found(expected: Expected) -> tuple[Any, Any]:
    """seconds and at_most, to be compared with."""
    at_most = expected.at_most
    return pytest.approx(expected.seconds), None if at_most is None else pytest.approx(at_most)


def test_what_is_watched_is_counted_without_the_first() -> None:
    """The clock stands at 1, 2, 3 ... after each item."""
    seen: Watched[str] = []
    assert list(watched(["abc", "de", "f"], seen)) == ["abc", "de", "f"]
    assert seconds_each(seen) == (3 - 1) / 2
    assert seconds_each(seen, len) == (3 - 1) / (2 + 1)


def test_watching_ends_when_it_has_lasted() -> None:
    seen: Watched[int] = []
    assert list(watched(range(100), seen, least=2.5)) == [0, 1, 2, 3]


def test_surrogate(write_config: Write, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 units of which a step's 16 are trained on, and 40 of which 8 are ranked, in each of 4 epochs."""
    monkeypatch.setattr(surrogates, "STEPS", 1)
    monkeypatch.setattr(surrogates, "RANKED", 8)
    stage(surrogates, settled=(3.0,), _epoch_seconds=2.0)
    expected = surrogates.surrogate(made_bench(write_config(), tmp_path / "bench"))
    seconds = 1 + 4 * (2.0 * 40 / 16 + 3.0 * 40 / 8)
    assert found(expected) == (seconds, seconds)


def pieces(stage: Any, bench: Bench, monkeypatch: pytest.MonkeyPatch, **seconds: Any) -> Expected:
    """Influence whose training batches are 10 times as many as those measured, and the targets 4 times.

    A product takes 2 seconds, a gradient 3, scoring 5, and a pair of vectors half a second.
    """
    monkeypatch.setattr(surrogates, "BATCHES", 1)
    stage(surrogates, _epoch_seconds=2.0)
    surrogates.surrogate(bench)
    real, times = surrogates._piece, iter((10.0, 4.0))
    monkeypatch.setattr(surrogates, "_piece", lambda every: (real(every)[0], next(times)))
    stage(surrogates, **seconds)
    return surrogates.influence(bench)


EKFAC: dict[str, Any] = {"solver": {"kind": "ekfac"}, "parameters": ["last-block"]}
FIXED = 1 + 4 * 3 + 10 * 5  # loading, the gradient and the scoring


def test_influence_by_conjugate_gradients(
    write_config: Write, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 steps of Lanczos with 15 times 14 pairs, 15 to 50 iterations with 4 pairs each, a residual with one."""
    bench = made_bench(write_config(influence={"solver": {"kind": "cg", "max_iter": 50}}), tmp_path / "bench")
    expected = pieces(stage, bench, monkeypatch, settled=(2.0, 3.0, 5.0, 0.5))
    usual = FIXED + (15 + 15 + 1) * 10 * 2 + (15 * 14 + 4 * 15 + 1) * 0.5
    most = FIXED + (15 + 50 + 1) * 10 * 2 + (15 * 14 + 4 * 50 + 1) * 0.5
    assert found(expected) == (usual, most)


def test_influence_by_lissa(write_config: Write, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 7 seconds."""
    solver = {"kind": "lissa", "depth": 30, "repeats": 2}
    bench = made_bench(write_config(influence={"solver": solver}), tmp_path / "bench")
    expected = pieces(stage, bench, monkeypatch, settled=(2.0, 3.0, 5.0, 0.5, 7.0))
    assert found(expected) == (FIXED + 30 * 2 * 7 + (15 + 1) * 10 * 2 + (15 * 14 + 1) * 0.5, None)


def test_influence_by_ekfac(write_config: Write, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch is all that is measured: its passes and the eigenvectors count once."""
    bench = made_bench(write_config(influence=EKFAC), tmp_path / "bench")
    expected = pieces(stage, bench, monkeypatch, settled=(2.0, 3.0, 5.0, 0.5, 7.0))
    assert found(expected) == (FIXED + 7 + 10 * 2 + 0.5, None)


def test_what_ekfac_does_besides(
    write_config: Write, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of two batches has a quarter of the positions: 8 s for it and 14 s for both are 8 s of passes over both
    and 6 s of eigenvectors; all batches are 10 times as many."""
    bench = made_bench(write_config(influence=EKFAC), tmp_path / "bench")
    surrogates.surrogate(bench)
    context = bench.context("influence")
    model = trained(context)
    some = replace(batches(context, model, "train"), order=[torch.arange(2), torch.arange(2, 4)])
    monkeypatch.setattr(surrogates, "_positions", lambda _units, order: {1: 4, 2: 16}[len(order)])
    stage(surrogates, settled=(8.0,), seconds=(14.0,))
    params = chosen_parameters(model, bench.config.influence.parameters)
    loss = per_sample_loss(model, loss=bench.config.surrogate.loss)
    assert surrogates._besides(bench, model, loss, params, some, 10.0) == pytest.approx(8 * 10 + 6)


def test_a_piece_is_some_batches_by_their_positions() -> None:
    """Three of the five batches, which hold 2 x 6, 2 x 5, 2 x 4, 2 x 3 and 1 x 2 positions, padding included."""
    units = make_units([[1] * length for length in (6, 5, 5, 2, 4, 3, 3, 2, 2)], whole=True)
    order = list(torch.arange(len(units)).split(2))
    every = Batches(units, torch.zeros(0), order)
    some, whole = surrogates._piece(every)
    assert [index.tolist() for index in some.order] == [[0, 1], [4, 5], [8]]
    assert whole == (12 + 10 + 8 + 6 + 2) / (12 + 8 + 2)


def test_effort(write_config: Write, tmp_path: Path, stage: Any, encoded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 candidates in shards of 4, of which one is there; 6 are encoded, and fall into batches of 4 and 2."""
    encode = recommenders._encoded
    monkeypatch.setattr(recommenders, "_encoded", lambda recommender, samples: encode(recommender, samples[:6]))
    stage(recommenders, _seconds_per_token=0.25)
    bench = selected_bench(write_config(), tmp_path / "bench")
    bench.shards["effort"] = frozenset({"00000004.parquet"})
    expected = recommenders.effort(bench)
    ((*first, fifth, sixth),) = encoded
    tokens = round((4 * max(first) + 2 * max(fifth, sixth)) * 12 / 6 * 2 / 3)
    assert expected.figures == {"samples": 8, "tokens": tokens}
    assert found(expected) == (LOADING + 1 + 12 * ENCODING + tokens * 0.25, None)


def test_finetune(write_config: Write, tmp_path: Path, stage: Any, encoded: Any) -> None:
    """Two arms with two trainings each, one of them done; two processes share the 3 epochs over 6 samples."""
    stage(recommenders, seconds=(10.0,), _training_rate=(5.0, 0.25))
    bench = selected_bench(write_config(finetune={"epochs": 3, "seeds": 2, "processes": 2}), tmp_path / "bench")
    bench.shards["finetune"] = frozenset({"random-0+1"})
    expected = recommenders.finetune(bench)
    each = 2 * LOADING + 5 + 3 * 10 + 6 * ENCODING + 3 * sum(encoded[0]) * 0.25 / 2
    assert found(expected) == (3 * each, None)
    assert "the memory is that of each" in expected.notes[0]


@pytest.mark.parametrize(("every", "rounds"), [("epoch", 3), (2, 3 * 2 // 2)])
def test_finetune_with_early_stopping(
    write_config: Write, tmp_path: Path, stage: Any, encoded: Any, every: object, rounds: int
) -> None:
    """Four samples are answered in 10 seconds; 3 epochs of 2 steps are validated on 5 samples."""
    stage(recommenders, seconds=(10.0,), _training_rate=(5.0, 0.25))
    changed = {"patience": 1, "validation_samples": 5, "epochs": 3, "checkpoint_every": every}
    expected = recommenders.finetune(selected_bench(write_config(finetune=changed), tmp_path / "bench"))
    each = 2 * LOADING + 5 + 3 * 10 + 6 * ENCODING + 3 * sum(encoded[0]) * 0.25 + rounds * 5 * 10 / 4
    assert found(expected) == (2 * each, 2 * each)
    assert "early stopping (finetune.patience)" in expected.notes[0]


def test_warmstart(write_config: Write, tmp_path: Path, stage: Any, encoded: Any) -> None:
    """One training on all samples of the earlier period."""
    stage(recommenders, seconds=(10.0,), _training_rate=(5.0, 0.25))
    warm = {"epochs": 2, "batch_size": 4, "micro_batch_size": 2}
    bench = made_bench(write_config(data={"warm_share": 0.5}, warmstart=warm), tmp_path / "bench")
    expected = recommenders.warmstart(bench)
    (lengths,) = encoded
    each = 2 * LOADING + 5 + 3 * 10 + len(lengths) * ENCODING + 2 * sum(lengths) * 0.25
    assert expected.figures["samples"] == len(lengths) > 6
    assert found(expected)[0] == each


def test_evaluate(write_config: Write, tmp_path: Path, stage: Any, encoded: Any) -> None:
    """Two of three arms are to do: 10 losses, 4 users with recommendations, and the titles once."""
    stage(recommenders, _catalogue=(5000.0, 20.0), _recommending=7.0, _statistics=11.0, _seconds_per_token=0.25)
    bench = selected_bench(write_config(), tmp_path / "bench")
    bench.shards["evaluate"] = frozenset({"base"})
    expected = recommenders.evaluate(bench)
    tokens = 10 * max(encoded[0])  # one batch holds them all
    seconds = 5000 + 2 * (LOADING + 14 * ENCODING + tokens * 0.25 + 4 * 7 + 20) + 11
    assert found(expected) == (seconds, seconds)
    assert len(expected.notes) == 1
    bench.shards["evaluate"] = frozenset({"base", "items"})
    assert found(recommenders.evaluate(bench))[0] == seconds - 5000


def test_evaluate_says_where_ranking_takes_most(write_config: Write, tmp_path: Path, stage: Any, encoded: Any) -> None:
    stage(recommenders, _catalogue=(0.0, 0.0), _recommending=1e6, _statistics=0.0, _seconds_per_token=0.0)
    notes = recommenders.evaluate(selected_bench(write_config(), tmp_path / "bench")).notes
    assert "evaluate.ranking_users sets for how many users (now 4)" in notes[-1]


def test_the_pieces_of_evaluate(write_config: Write, tmp_path: Path, stage: Any, encoded: Any) -> None:
    """Recommendations of the 4 users of a batch; every statistic of every measure; 10 of 30 titles."""
    overrides = ("evaluate.batch_size=4", "finetune.seeds=2", "select.random_arms=3")
    bench = selected_bench(write_config(), tmp_path / "bench", *overrides)
    recommender, _ = recommenders._started(bench)
    _, users = users_of(read_samples(bench.folder / "data" / "samples-test.parquet"), bench.config)
    stage(recommenders, seconds=(8.0, 1.0, 10.0, 100.0))
    assert recommenders._recommending(bench, recommender, users) == 8 / 4
    count = len(measures(bench.config.evaluate))
    assert recommenders._statistics(bench, 10) == count * (1 * (1 + 4 * 2) + 3 * 10 + 100)


def test_titles_and_their_lookup(
    write_config: Write, tmp_path: Path, stage: Any, encoded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 of 30 titles are embedded in a tick, in batches of one; 2 of 4 queries are looked up among 15 rows in 7 s."""
    for name, value in (("TITLES", 10), ("BLOCK", 15), ("QUERIES", 2)):
        monkeypatch.setattr(recommenders, name, value)
    bench = selected_bench(write_config(), tmp_path / "bench", "evaluate.batch_tokens=1")
    recommender: Any = recommenders._started(bench)[0]
    stage(recommenders, seconds=(7.0,))
    assert recommenders._catalogue(bench, recommender, 4) == pytest.approx((1 * 30 / 10, 7 * (4 / 2) * (30 / 15)))


@pytest.fixture
def tiger_bench(write_config: Write, tmp_path: Path, text_encoder: Path) -> Bench:
    settings = {**SMALL_TIGER, "text_encoder": str(text_encoder), "validation_samples": 5}
    path = write_config(recommender="tiger", tiger=settings, data={"warm_share": 0.5})
    return made_bench(path, tmp_path / "bench")


def test_tiger_warmstart(tiger_bench: Bench, stage: Any) -> None:
    """Two epochs with 5 ranked samples each."""
    stage(tiger, _coding_seconds=100.0, _epoch_seconds=3.0, _validation_seconds=0.5)
    assert found(tiger.warmstart(tiger_bench)) == (100 + 2 * (3 + 5 * 0.5), 100 + 2 * (3 + 5 * 0.5))


def test_tiger_codes(tiger_bench: Bench, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second title is embedded, in 2 s; each of 5 epochs over a third of the items takes (11 - 5) / 3 s."""
    monkeypatch.setattr(tiger, "TITLES", 15)
    stage(tiger, seconds=(2.0, 5.0, 11.0))
    batch = tiger_bench.config.tiger.codes.batch_size
    seconds = tiger._coding_seconds(tiger_bench, [f"Film {i}" for i in range(30)], known=24 * batch)
    assert seconds == pytest.approx(1 + 2 * 2 + (5 + (5 - 1) * 2) * 24 / 8)
