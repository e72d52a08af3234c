"""What make gpu does, with a CPU in the place of the card; and that it says so where there is none."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.gpu.__main__ import in_time, main
from benchmarks.gpu.checks import ADAPTER, Check, agreement, same_adapter, same_files
from benchmarks.gpu.speeds import Speed, matrix_weights
from dealrec.recommenders.bigrec.model import load_model


def test_without_a_gpu_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--out", str(tmp_path / "gpu.json")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert (
        shown.err == f"make gpu: torch {torch.__version__} sees no CUDA GPU on this machine, so nothing was measured\n"
    )
    assert not (tmp_path / "gpu.json").exists()


@pytest.mark.slow
def test_all_of_it_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # as it sets it itself, so that it is put back
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr("benchmarks.gpu.__main__.RUN_SECONDS", 900)  # whatever else this machine does
    main(["--device", "cpu", "--size", "tiny", "--ranks", "2", "--minutes", "60", "--out", str(tmp_path / "gpu.json")])
    shown, result = capsys.readouterr().out, json.loads((tmp_path / "gpu.json").read_text())
    checks = {check["name"]: check for check in result["checks"]}
    kept = checks.pop("effort keeps to effort.batch_memory")  # of a whole process, in which other tests ran: not exact
    assert "MiB, batches of" in kept["found"]
    assert [check for check in checks.values() if not check["held"]] == []
    assert len(checks) == 9
    rows = {row["component"].partition(",")[0]: row for row in result["speeds"]}
    assert set(rows) == {"effort", "loss", "generation", "fine-tuning", "surrogate", "influence"}
    assert all(row["seconds"] > 0 and row["a_second"] > 0 for row in rows.values())
    assert 0 < rows["effort"]["share_of_peak"] < 1
    assert result["left_out"] == []
    for name in ("**no**", "| a second run | yes |", "TFLOP/s is the matrix peak"):
        assert (name in shown) == (name != "**no**" or not kept["held"])
    assert [row["component"] for row in result["speeds"] if f"| {row['component']} |" not in shown] == []


def left(folder: Path, losses: list[float | None]) -> Path:
    (folder / "effort").mkdir(parents=True)
    table = pl.DataFrame({"sample_id": range(len(losses)), "loss": losses, "norm": losses})
    table.write_parquet(folder / "effort" / "details.parquet")
    return folder


@pytest.mark.parametrize(
    ("other", "held"),
    [([1.0, 2.0, 4.0], True), ([1.0, 2.0, 3.99], True), ([1.0, 2.1, 4.0], False), ([1.0, 2.0], False)],
)
def test_scores_agree_or_do_not(tmp_path: Path, other: list[float | None], held: bool) -> None:
    one, two = left(tmp_path / "one", [1.0, 2.0, 4.0]), left(tmp_path / "two", other)
    assert agreement(one, two, "loss", tolerance=1e-2).held is held


def test_a_second_run_that_differs_in_a_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.checks.REPEATED", ["effort/details.parquet"])
    one, two, three = (left(tmp_path / str(i), [1.0, 2.0 + i // 2]) for i in range(3))
    assert same_files(one, two).held
    assert same_files(one, three) == Check("a second run", False, "effort/details.parquet")


@pytest.mark.parametrize(("values", "held"), [([1.0, 2.0], True), ([1.001, 2.0], True), ([1.0, 2.1], False)])
def test_adapters_agree_but_for_rounding(tmp_path: Path, values: list[float], held: bool) -> None:
    for name, content in (("one", [1.0, 2.0]), ("two", values)):
        (tmp_path / name / ADAPTER).parent.mkdir(parents=True)
        save_file({"a": torch.tensor(content)}, tmp_path / name / ADAPTER)
    assert same_adapter(tmp_path / "one", tmp_path / "two").held is held


def test_what_fails_is_a_check_that_did_not_hold_and_what_is_too_late_is_left_out() -> None:
    def fails() -> Iterator[Check]:
        yield Check("one", True, "")
        raise RuntimeError("CUDA out of memory")

    left_out: list[str] = []
    found = list(
        in_time([("fails", fails), ("after", lambda: [Check("two", True, "")])], seconds=60, left_out=left_out)
    )
    assert found == [
        Check("one", True, ""),
        Check("fails", False, "RuntimeError: CUDA out of memory"),
        Check("two", True, ""),
    ]
    assert list(in_time([("fails", fails)], seconds=-1, left_out=left_out)) == []
    assert left_out == ["fails"]


def test_the_share_of_the_peak_is_of_the_matrices_that_tokens_pass_through(tiny_llm: Path) -> None:
    model = load_model(str(tiny_llm))
    layer = 16 * 16 * 2 + 16 * 8 * 2 + 3 * 16 * 32
    assert matrix_weights(model) == 2 * layer
    row = Speed("effort", seconds=2.0, amount=100, unit="tokens", operations=4 * 2 * layer).row(peak=1e6)
    assert row["share_of_peak"] == pytest.approx(4 * 2 * layer * 100 / 2.0 / 1e6)
