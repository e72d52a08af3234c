"""Tables of every kind in, the same selection out, as the same kind."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type
from uuid import UUID

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

import dealrec
from dealrec.api.tables import _COLUMNS, kind_of, polars_frame, table_of_kind
from dealrec.config import Columns
from dealrec.errors import DataError
from tests.conftest import made_interactions, made_items

NAMES = Columns()
KINDS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda table: table,
    "polars.lazy": lambda table: table.lazy(),
    "pandas": lambda table: pd.DataFrame(table.to_dict(as_series=False)),
    "pyarrow": lambda table: pa.table(table.to_dict(as_series=False)),
    "datasets": lambda table: datasets.Dataset.from_dict(table.to_dict(as_series=False)),
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the made-up data; test_api reads them


def as_polars(table: Any) -> pl.DataFrame:
    """As a user would look into it, not by the code that is tested."""
    match table:
        case pl.DataFrame():
            return table
        case pl.LazyFrame():
            return table.collect()
        case pd.DataFrame():
            return pl.DataFrame(table.to_dict(orient="list"))
        case pa.Table():
            return pl.DataFrame(table.to_pylist())
        case datasets.Dataset():
            return pl.DataFrame(list(table))
    raise AssertionError(f"unexpected {type(table)}")


def interactions_as(**columns: Any) -> Any:
    """The made-up interactions of pandas with other columns."""
    return KINDS["pandas"](made_interactions()).assign(**columns)


@pytest.mark.slow
def test_every_kind_selects_the_same_and_comes_back_as_itself(sections: dict[str, Any], tmp_path: Path) -> None:
    found = {}
    for kind, made in KINDS.items():
        tables = made(made_interactions()), made(made_items())
        one = dealrec.prune(*tables, budget=6, **sections, run_dir=tmp_path / kind)
        assert type(one.selected) is type(one.training_data) is type(tables[0])
        found[kind] = as_polars(one.selected), as_polars(one.training_data)
    selected, rows = found["polars"]
    assert selected["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    for others in found.values():
        assert_frame_equal(others[0], selected)
        assert_frame_equal(others[1], rows)
    inputs = {(tmp_path / kind / "input" / "interactions.parquet").read_bytes() for kind in KINDS}
    assert len(inputs) == 1  # so that a run goes on where one of another kind stopped


@pytest.mark.slow
def test_the_training_data_are_the_exported_lines(sections: dict[str, Any], tmp_path: Path) -> None:
    tables = KINDS["datasets"](made_interactions()), made_items()
    found = dealrec.prune(*tables, budget=6, **sections)
    lines = found.export(tmp_path / "train.jsonl").read_text().splitlines()
    assert list(found.training_data) == [json.loads(line) for line in lines]
    assert set(found.training_data.column_names) == {"prompt", "completion"}


@pytest.mark.slow
def test_the_kind_is_that_of_the_interactions_whatever_the_items_are(sections: dict[str, Any], tmp_path: Path) -> None:
    made_interactions().write_csv(tmp_path / "i.csv")
    file = dealrec.prune(tmp_path / "i.csv", KINDS["pyarrow"](made_items()), budget=6, **sections)
    assert_type(file, dealrec.Pruned[pl.DataFrame])
    assert isinstance(file.selected, pl.DataFrame)
    lazy = dealrec.prune(made_interactions().lazy(), KINDS["pandas"](made_items()), budget=6, **sections)
    assert_type(lazy.selected, pl.LazyFrame)
    assert_type(lazy.training_data, pl.LazyFrame)
    assert_frame_equal(lazy.selected.collect(), file.selected)


@pytest.mark.parametrize("ids", [pl.Int64, pl.String], ids=["integers", "texts"])
def test_histories_are_lists_in_every_kind(ids: type[pl.DataType]) -> None:
    table = pl.DataFrame({"user_id": ["a", "b"], "history": [[1, 2], [3]]})
    table = table.with_columns(pl.col("history").cast(pl.List(ids)))
    first, second = table["history"].to_list()
    frame = table_of_kind(table, "pandas")
    assert frame["history"].tolist() == [first, second]
    assert isinstance(frame["history"][0], list)
    assert frame.index.tolist() == [0, 1]
    arrow = table_of_kind(table, "pyarrow")
    assert arrow.schema.field("user_id").type == pa.string()
    assert arrow.schema.field("history").type == pa.list_(pa.int64() if ids == pl.Int64 else pa.string())
    rows = table_of_kind(table, "datasets")
    assert rows[1] == {"user_id": "b", "history": second}
    assert rows.features["user_id"] == datasets.Value("string")
    others = datasets.Dataset.from_dict({"user_id": ["c"], "history": [first]})
    assert len(datasets.concatenate_datasets([rows, others])) == 3
    assert table_of_kind(table, "polars.lazy").collect().equals(table)


def test_a_filtered_and_formatted_dataset_gives_the_rows_it_shows() -> None:
    rows = KINDS["datasets"](made_interactions()).shuffle(seed=1)
    kept = rows.select([place for place, item in enumerate(rows["item_id"]) if item % 2])
    expected = pl.DataFrame(list(kept))
    kept.set_format("torch", columns=["item_id"])
    assert_frame_equal(polars_frame(kept, NAMES, name="interactions"), expected)
    assert kept.format["type"] == "torch"
    assert expected["item_id"].unique().len() == 15


def test_an_index_of_pandas_is_no_column() -> None:
    shuffled = interactions_as().sample(frac=1, random_state=0)
    expected = pl.DataFrame(shuffled.to_dict(orient="list"))
    assert_frame_equal(polars_frame(shuffled, NAMES, name="interactions"), expected)
    with pytest.raises(DataError, match=r"no column 'user_id'.*index \(user_id\).*reset_index"):
        polars_frame(shuffled.set_index("user_id"), NAMES, name="interactions")


@pytest.mark.parametrize(
    "columns",
    [
        {"user_id": lambda table: table["user_id"].astype("category")},
        {"user_id": lambda table: table["user_id"].astype(object)},
        {"user_id": lambda table: table["user_id"].astype(pd.ArrowDtype(pa.large_string()))},
        {"item_id": lambda table: table["item_id"].astype("Int64")},
        {"item_id": lambda table: table["item_id"].astype("category")},
        {"item_id": lambda table: table["item_id"].astype(object)},
        {"item_id": lambda table: table["item_id"].astype("int16")},
        {"not_needed": lambda table: [object() for _ in range(len(table))]},
    ],
    ids=["category", "object", "large", "Int64", "category of numbers", "object of numbers", "int16", "others"],
)
def test_the_types_of_pandas_mean_what_they_hold(
    sections: dict[str, Any], tmp_path: Path, columns: dict[str, Any]
) -> None:
    ways = {"as it is": interactions_as(), "otherwise": interactions_as(**columns)}
    items = KINDS["pandas"](made_items())
    for name, table in ways.items():
        dealrec.prune(table, items, budget=6, **sections, run_dir=tmp_path / name, until="data")
    first, second = (pl.read_parquet(tmp_path / name / "data" / "samples-train.parquet") for name in ways)
    assert_frame_equal(first, second)


def test_dictionaries_and_large_texts_of_pyarrow_mean_what_they_hold() -> None:
    plain = KINDS["pyarrow"](made_interactions())
    table = plain.set_column(0, "user_id", plain["user_id"].dictionary_encode())
    found = polars_frame(table, NAMES, name="interactions").with_columns(pl.col("user_id").cast(pl.String))
    assert_frame_equal(found, made_interactions())
    table = plain.set_column(0, "user_id", plain["user_id"].cast(pa.large_string()))
    assert_frame_equal(polars_frame(table, NAMES, name="interactions"), made_interactions())


def test_times_with_a_zone_are_the_same_moments(sections: dict[str, Any], tmp_path: Path) -> None:
    start = datetime(2024, 3, 31, tzinfo=UTC)  # on that day the clocks go forward in Vienna
    moments = [start + timedelta(minutes=7 * row) for row in range(len(made_interactions()))]
    ways = {"UTC": pd.Series(moments), "Vienna": pd.Series(moments).dt.tz_convert("Europe/Vienna")}
    for name, times in ways.items():
        table = interactions_as(timestamp=times)
        dealrec.prune(table, made_items(), budget=6, **sections, run_dir=tmp_path / name, until="data")
    first, second = (pl.read_parquet(tmp_path / name / "data" / "interactions-train.parquet") for name in ways)
    assert_frame_equal(first, second)
    assert first["timestamp"].min() == int(start.timestamp()) * 1_000_000


def test_of_a_lazy_table_only_the_named_columns_are_computed() -> None:
    def refuse(_: Any) -> Any:
        raise AssertionError("computed")

    lazy = made_interactions().lazy().with_columns(dear=pl.col("item_id").map_batches(refuse, return_dtype=pl.Int64))
    assert_frame_equal(polars_frame(lazy, NAMES, name="interactions"), made_interactions())


def test_other_names_of_columns_and_numbers_for_names() -> None:
    table = interactions_as().set_axis([0, 1, 2], axis=1)
    names = Columns(user="0", item="1", timestamp=None, rating="2")
    assert polars_frame(table, names, name="interactions").columns == ["0", "1", "2"]


def test_every_setting_of_a_column_is_taken_from_one_of_the_tables() -> None:
    known = {key for keys in _COLUMNS.values() for key in keys}
    of_rows = {key for key, field in Columns.model_fields.items() if str(field.description).startswith("Format rows")}
    assert known == {key for key in Columns.model_fields if not key.endswith("_separator")} - of_rows


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (interactions_as(item_id=pd.Series([1, "x"] * 200, dtype=object)), r"column 'item_id' cannot.*one type"),
        (interactions_as(item_id=1j), r"column 'item_id' cannot be read"),
        (interactions_as(item_id=2**70), r"column 'item_id' cannot be read"),
        (pd.concat([interactions_as(), interactions_as()[["user_id"]]], axis=1), "2 columns are called 'user_id'"),
        (interactions_as().head(0), "interactions: the table has no rows"),
        (interactions_as().rename(columns={"timestamp": "time"}), "did you mean 'time'.*null"),
        (made_interactions().with_columns(pl.Series("user_id", [object()] * 297)), "holds Python objects"),
        (pl.scan_parquet("/there/is/none.parquet"), "interactions cannot be read: .*none.parquet"),
        (made_interactions().lazy().with_columns(pl.col("user_id").cast(pl.Int64)), "can be collected"),
        (pa.table({"user_id": pa.array([(1, 2, 3)], pa.month_day_nano_interval()), "item_id": [1], "timestamp": [1]}),
         "column 'user_id' cannot be read"),
        (datasets.DatasetDict(), r"interactions is a datasets.DatasetDict.*interactions\['train'\]"),
        (KINDS["datasets"](made_interactions()).to_iterable_dataset(), "without streaming"),
        (interactions_as()["user_id"], "is a pandas.*Series.*polars.DataFrame"),
        ([{"user_id": 1}], r"is a list.*polars.DataFrame\(interactions\)"),
        (7, "is a int"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_a_remedy(table: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        dealrec.prune(table, made_items(), budget=6, llm="x", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"item_id": pd.array([None, *range(296)], dtype="Int64")}, "interactions: column 'item_id' has no id in 1 of"),
        ({"timestamp": pd.date_range("2024", periods=297).where([False] + [True] * 296)}, "has no time in 1 of 297"),
        ({"timestamp": pd.period_range("2024", periods=297)}, "interactions: column 'timestamp' has the type"),
        ({"user_id": UUID(int=1)}, "interactions: column 'user_id' has the type Binary, which holds no ids"),
    ],
)
def test_faults_of_values_name_the_argument_not_a_file(
    sections: dict[str, Any], columns: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        dealrec.prune(interactions_as(**columns), made_items(), budget=6, **sections)


def test_types_are_told_before_anything_runs(tmp_path: Path) -> None:
    """What mypy should refuse is refused: an ignore that is not needed is an error of its own."""
    with pytest.raises(DataError):
        dealrec.prune(3, "items.csv", budget=6)  # type: ignore[arg-type]
    with pytest.raises(DataError):
        dealrec.prune(tmp_path / "a.csv", [], budget=6)  # type: ignore[arg-type]


def test_subclasses_count_and_classes_of_other_packages_that_are_called_alike_do_not() -> None:
    class Sub(pd.DataFrame):  # type: ignore[misc] # pandas is Any without its stubs
        pass

    assert kind_of(Sub(), name="items") == "pandas"
    with pytest.raises(DataError, match="items is a"):
        kind_of(type("DataFrame", (), {})(), name="items")


@pytest.mark.slow
def test_nothing_of_the_others_is_imported_for_polars(tmp_path: Path, tiny_llm: Path) -> None:
    made_interactions().write_parquet(tmp_path / "i.parquet")
    made_items().write_parquet(tmp_path / "items.parquet")
    code = (
        f"llm = {str(tiny_llm)!r}"
        + """
import sys, polars as pl, dealrec
split = {"split": "leave-last-out"}
tables = pl.read_parquet("i.parquet"), pl.scan_parquet("items.parquet")
found = dealrec.prune(*tables, budget=6, llm=llm, data=split, run_dir="run", until="data")
repr(found), found._repr_html_()
print(sorted({"pandas", "pyarrow", "datasets"} & set(sys.modules)))
"""
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
