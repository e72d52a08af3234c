"""What an interrupted run has left: taken where it is whole, dropped and named where it is not."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from dealrec.config import Config
from dealrec.engine.leftovers import drop_damaged
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent, Stage

made: list[str] = []


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def work(context: Context, *, killed: bool) -> None:
    """A folder, a table and a number, each kept for the next run; then the end, or a kill before it."""

    def fill(folder: Path) -> None:
        made.append("folder")
        (folder / "weights.bin").write_bytes(bytes(100))

    context.shard_once("folder", fill)
    shards: dict[str, Callable[[Path], object]] = {
        "table.parquet": pl.DataFrame({"a": [1]}).write_parquet,
        "number.json": lambda path: path.write_text("128"),
    }
    for name, write in shards.items():
        if not context.shard(name).exists():
            made.append(name)
            write(context.shard(name))
    if killed:
        raise KeyboardInterrupt
    (context.out / "end.txt").write_text("done")


def go(run_dir: Path, *, killed: bool) -> list[str]:
    made.clear()
    listener = Listener()
    run(Config(), run_dir, (Stage("work", 1, partial(work, killed=killed)),), progress=listener)
    return listener.lines


@pytest.mark.parametrize("name", ["folder/weights.bin", "table.parquet", "number.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "gone"])
def test_only_what_is_damaged_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", killed=True)
    (path,) = (tmp_path / "run" / "work.part" / "shards").glob(f"*/{name}")
    content = path.read_bytes()
    path.write_bytes(
        {"cut": content[: len(content) // 2], "empty": b"", "flipped": content[:-1] + b"x"}.get(damage, b"")
    )
    if damage == "gone":
        path.unlink()
    said = go(tmp_path / "run", killed=False)
    entry = name.partition("/")[0]
    cut_number = name == "number.json" and damage == "cut"  # "1" is a number too
    assert made == ([] if cut_number else [entry])
    told = any(f"{entry} is damaged" in line for line in said)
    assert told == (not cut_number and (damage != "gone" or entry == "folder"))


def test_nothing_is_made_again_where_all_is_whole(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run", killed=True)
    assert made == ["folder", "table.parquet", "number.json"]
    assert not [line for line in go(tmp_path / "run", killed=False) if "damaged" in line]
    assert made == []
    assert not (tmp_path / "run" / "work" / "shards").exists()


@pytest.mark.parametrize(
    "name", ["items/0-9.safetensors", "trainer/checkpoint-5/model.safetensors", "trainer/checkpoint-5/optimizer.pt"]
)
@pytest.mark.parametrize("left", [0, 7, 100])
def test_what_is_kept_one_by_one_is_dropped_one_by_one(tmp_path: Path, name: str, left: int) -> None:
    """Blocks of titles, and the checkpoints of a training: those before go on being there."""
    folder = tmp_path / "evaluate.part" / "shards" / "0123"
    for place in ("items/0-9", "items/9-18", "trainer/checkpoint-4/model", "trainer/checkpoint-5/model"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        save_file({"a": torch.arange(30.0), "b": torch.ones(2)}, folder / f"{place}.safetensors", {"from": "a test"})
    torch.save({"a": torch.arange(30.0)}, folder / "trainer" / "checkpoint-5" / "optimizer.pt")
    assert list(drop_damaged(tmp_path / "evaluate.part")) == []
    os.truncate(folder / name, left)
    first, second, *_ = name.split("/")
    assert list(drop_damaged(tmp_path / "evaluate.part")) == [folder / first / second]
    assert sorted(path.name for path in folder.glob("*/*")) == sorted(
        {"0-9.safetensors", "9-18.safetensors", "checkpoint-4", "checkpoint-5"} - {second}
    )
