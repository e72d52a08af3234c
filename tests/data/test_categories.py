"""The categories of items: what is taken for one, what is refused, and that they change nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dealrec.columns import ITEM, TITLE
from dealrec.config import Columns, Config, DataConfig
from dealrec.data.categories import MANY, categories
from dealrec.data.readers.tables import Column
from dealrec.data.sources import Source, read
from dealrec.engine.settings import deviations, recorded
from dealrec.errors import DataError
from dealrec.stages.pipeline import stages as declared
from tests.conftest import Cli, made_items

STAGES = declared(Config.model_validate({"select": {"method": "dealrec"}, "pool": {"method": "influence-strata"}}))

LOG = "user_id:token\titem_id:token\ttimestamp:float\nu\t1\t1\nu\t2\t2\n"
ITEMS = (
    "item_id:token\ttitle:token_seq\tclass:token_seq\tgroup:token\n1\tToy Story\tDrama  War Drama\tOn sale\n2\tB\t\t\n"
)


def column(values: Any, *, separator: str | None = None) -> Column:
    return Column(Path("items.parquet"), "genre", pl.Series(values), text=False, separator=separator)


@pytest.mark.parametrize(
    ("values", "separator", "expected"),
    [
        (["War|Drama", "War", None, " "], None, [["War|Drama"], ["War"], [], []]),
        (["War|Drama||War ", "|", "Dra\u200bma"], "|", [["War", "Drama"], [], ["Dra ma"]]),
        (["a.b"], ".", [["a", "b"]]),  # the separator is a text, not a pattern
        (["Toys > Games > Chess"], " > ", [["Toys", "Games", "Chess"]]),
        ([["War", "Drama", "War"], [], None, [None, "", "\t"]], None, [["War", "Drama"], [], [], []]),
        ([["War,Drama"], ["x"]], ",", [["War", "Drama"], ["x"]]),
        ([7, None, 12], None, [["7"], [], ["12"]]),
        ([[7, 8], [7]], None, [["7", "8"], ["7"]]),
        ([7.0, float("nan"), None], None, [["7"], [], []]),  # integers beside a gap
        (pl.Series(["War", None], dtype=pl.Categorical), None, [["War"], []]),
        (pl.Series([["War"], ["x"]], dtype=pl.List(pl.Enum(["War", "x"]))), None, [["War"], ["x"]]),
        (pl.Series([["War", "x"]], dtype=pl.Array(pl.String, 2)), None, [["War", "x"]]),
        (pl.Series([None, None]), None, [[], []]),
        (pl.Series([[], []]), "|", [[], []]),
    ],
)
def test_categories_in_all_their_forms(values: Any, separator: str | None, expected: list[list[str]]) -> None:
    found = categories(column(values), separator=separator)
    assert found.dtype == pl.List(pl.String)
    assert found.to_list() == expected


@pytest.mark.slow
@given(st.lists(st.lists(st.text(alphabet="ab |\n\u202e", max_size=3), max_size=4) | st.none(), min_size=1))
@settings(max_examples=100, deadline=None)
def test_categories_are_those_of_a_loop(rows: list[list[str] | None]) -> None:
    found = categories(column(pl.Series(rows, dtype=pl.List(pl.String))), separator="|").to_list()
    plain = str.maketrans("\n\u202e", "  ")
    for row, names in zip(rows, found, strict=True):
        parts = [" ".join(part.translate(plain).split()) for text in row or [] for part in text.split("|")]
        assert names == list(dict.fromkeys(filter(None, parts)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0, 2.5], ["no whole numbers", "2.5", "data row 2"]),
        ([1.0, float("inf")], ["no whole numbers", "inf", "data row 2"]),
        ([[1.5]], ["List(Float64)"]),
        ([True], ["Boolean"]),
        ([[["a"]]], ["List(List(String))"]),
        ([{"a": "b"}], ["Struct"]),
        ([b"a"], ["Binary"]),
    ],
)
def test_what_holds_no_categories(values: Any, says: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        categories(column(values), separator=None)
    for said in ("items.parquet", "column 'genre'", "Store categories as text", *says):
        assert said in f"{caught.value} {caught.value.remedy}"


Reader = Callable[..., tuple[Source, list[str]]]


@pytest.fixture
def recbole(tmp_path: Path) -> Reader:
    """Read two RecBole files whose items have categories; return the source and the warnings."""

    def run(**names: str) -> tuple[Source, list[str]]:
        paths = tmp_path / "x.inter", tmp_path / "x.item"
        for path, text in zip(paths, (LOG, ITEMS), strict=True):
            path.write_text(text)
        warnings: list[str] = []
        settings = DataConfig(format="recbole", interactions=paths[0], items=paths[1], columns=Columns(**names))
        return read(settings, warn=warnings.append), warnings

    return run


def named(source: Source) -> list[tuple[Any, ...]]:
    assert source.categories is not None
    return source.categories.rows()


def test_a_space_separates_in_recbole_sequences_alone(recbole: Reader) -> None:
    source, warnings = recbole(category="class")
    assert source.items.rows() == [(1, "Toy Story"), (2, "B")]
    assert named(source) == [(1, ["Drama", "War"]), (2, [])]
    assert warnings == []
    assert named(recbole(category="group")[0]) == [(1, ["On sale"]), (2, [])]
    assert named(recbole(category="class", category_separator="W")[0]) == [(1, ["Drama", "ar Drama"]), (2, [])]
    assert recbole()[0].categories is None


def test_a_column_that_is_not_there(recbole: Reader) -> None:
    with pytest.raises(DataError, match="no column 'clas'; there are: item_id, title, class, group") as caught:
        recbole(category="clas")
    assert "data.columns.category" in caught.value.remedy
    assert "did you mean 'class'?" in caught.value.remedy


def warnings_of(folder: Path, names: list[Any]) -> list[str]:
    pl.DataFrame(
        {ITEM: range(len(names)), TITLE: map(str, range(len(names))), "genre": names}, strict=False
    ).write_parquet(folder / "items.parquet")
    (folder / "log.csv").write_text("user_id,item_id,timestamp\nu,0,1\n")
    warnings: list[str] = []
    settings = DataConfig(
        interactions=folder / "log.csv", items=folder / "items.parquet", columns=Columns(category="genre")
    )
    read(settings, warn=warnings.append)
    return warnings


def test_of_an_item_in_several_rows_the_first_categories_are_kept_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nu,1,1\n")
    (tmp_path / "items.csv").write_text("item_id,title,genre\n1,A,\n2,B,NULL\n1,A,War\n1,A,Drama\n")
    paths = {"interactions": tmp_path / "log.csv", "items": tmp_path / "items.csv"}
    source = read(DataConfig(**paths, columns=Columns(category="genre")), warn=lambda _: None)
    assert sorted(named(source)) == [(1, ["War"]), (2, [])]


def test_very_many_categories_and_none_are_told(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, [f"c{i}" for i in range(MANY)]) == []
    (many,) = warnings_of(tmp_path, [f"c{i}" for i in range(MANY + 1)])
    assert many.startswith("1,001 different categories of 1,001 items, of which the report shows the largest alone")
    assert warnings_of(tmp_path, [None, " "]) == ["none of 2 items has a category; the report does without"]


def test_they_are_in_the_fingerprint_only_where_they_are_set() -> None:
    def fingerprinted(config: Config) -> dict[str, Any]:
        return deviations(recorded(config, STAGES[0].settings), Config)

    chosen = Config.model_validate({"data": {"columns": {"category": "genre", "category_separator": "|"}}})
    assert fingerprinted(Config()) == {}
    assert fingerprinted(chosen) == {"data.columns": {"category": "genre", "category_separator": "|"}}
    for config in (Config(), chosen):
        assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.slow
def test_setting_them_in_a_finished_run_makes_the_data_and_the_report_anew_alone(
    write_config: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    path, run_dir = write_config(), tmp_path / "run"
    made_items().with_columns(genre=pl.Series(["odd", "even"] * 15)).write_parquet(path.with_name("items.parquet"))
    again = ["run", path, "--run-dir", run_dir, "--until", "influence", "--json"]
    assert cli(*again)[0] == 0
    status, out, said = cli(*again, "--set", "data.columns.category=genre")
    assert status == 0, said
    assert {stage["stage"]: stage["ran"] for stage in json.loads(out)["stages"]} == {
        "data": True,
        "surrogate": False,
        "influence": False,
    }
    assert len(pl.read_parquet(run_dir / "data" / "categories.parquet")) == 30


@pytest.mark.slow
def test_validate_counts_them_and_says_what_is_wrong(write_config: Callable[..., Path], cli: Cli) -> None:
    path = write_config(data={"columns": {"category": "genre"}})
    status, _, said = cli("validate", path)
    assert status == 2
    assert "no column 'genre'" in said
    genres = [f"{'even' if item % 2 == 0 else 'odd'}|third" if item % 3 == 0 else None for item in range(30)]
    made_items().with_columns(genre=pl.Series(genres)).write_parquet(path.with_name("items.parquet"))
    assert "\ncategories: 2\n" in cli("validate", path)[1]
    assert "\ncategories: 3\n" in cli("validate", path, "--set", "data.columns.category_separator='|'")[1]
    assert "categories" not in cli("validate", path, "--set", "data.columns.category=null")[1]
    status, _, said = cli(
        "validate", path, "--set", "data.columns.category=null", "--set", "data.columns.category_separator='|'"
    )
    assert status == 2
    assert "category_separator needs data.columns.category" in said
