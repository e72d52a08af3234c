"""Training rows of the user's own as tables: what is selected comes back as the kind that it was, column by column."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import dealrec
from dealrec.errors import ConfigError, DataError
from tests.stages.test_rows import CHAT, COLUMNS, made_rows, settings

KINDS = ["polars", "polars.lazy", "pandas", "pyarrow", "datasets"]


def as_kind(rows: list[dict[str, Any]], kind: str) -> Any:
    if kind == "datasets":
        return pytest.importorskip("datasets").Dataset.from_list(rows)
    if kind == "pyarrow":
        return pytest.importorskip("pyarrow").Table.from_pylist(rows)
    if kind == "pandas":
        return pytest.importorskip("pandas").DataFrame(rows)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.lazy() if kind == "polars.lazy" else frame


def as_rows(table: Any) -> list[dict[str, Any]]:
    if hasattr(table, "to_pylist"):
        return list(table.to_pylist())
    if hasattr(table, "to_dicts"):
        return list(table.to_dicts())
    if hasattr(table, "collect"):
        return as_rows(table.collect())
    return list(table.to_dict("records") if hasattr(table, "iloc") else table.to_list())


def sections(llm: Path) -> dict[str, Any]:
    content = settings(llm, data={"columns": COLUMNS})
    return {name: section for name, section in content.items() if name not in ("data", "select")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_selected_comes_back_as_it_was(kind: str, tiny_llm: Path, tmp_path: Path) -> None:
    rows = [row | {"kept": {"a": place}} for place, row in enumerate(made_rows()[:120])]
    if kind != "pandas":  # which makes floats of whole numbers beside a gap
        rows[5:5] = [CHAT[0]]
    pruned = dealrec.prune(
        rows=as_kind(rows, kind),
        valid_rows=as_kind(made_rows()[120:150], kind),
        budget=6,
        data={"columns": COLUMNS},
        run_dir=tmp_path / "run",
        **sections(tiny_llm),
    )
    assert type(pruned.rows) is type(as_kind(rows, kind))
    found = as_rows(pruned.rows)
    names = as_kind(rows, kind).collect_schema().names() if kind == "polars.lazy" else list(found[0])
    assert list(found[0]) == names
    by_id = {row["id"]: row for row in rows}
    ids = [row["id"] for row in found]
    assert [id_ for id_ in by_id if id_ in ids] == ids
    for row in found:
        assert {name: row[name] for name in by_id[row["id"]]} == by_id[row["id"]]
    exported = pruned.export(tmp_path / "out", to="rows")
    assert (exported / "rows.txt").read_text().split() == ids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_of_rows_are_exported(tiny_llm: Path, tmp_path: Path) -> None:
    pl.DataFrame(made_rows()[:150], infer_schema_length=None).write_parquet(tmp_path / "a.parquet")
    options: dict[str, Any] = {"data": {"columns": COLUMNS, "valid_share": 0.2}, **sections(tiny_llm)}
    pruned = dealrec.prune(rows=tmp_path / "a.parquet", budget=6, run_dir=tmp_path / "run", **options)
    with pytest.raises(ConfigError, match="No rows were given as a table"):
        _ = pruned.rows
    assert (pruned.export(tmp_path / "out", to="rows") / "train.parquet").exists()
    assert len(pruned.selected) == 6


def test_rows_exclude_interactions(tiny_llm: Path) -> None:
    rows = pl.DataFrame(made_rows()[:5], infer_schema_length=None)
    options: dict[str, Any] = {"budget": 2, "llm": tiny_llm}
    with pytest.raises(ConfigError, match="interactions or rows, and got both"):
        dealrec.prune(rows, rows=rows, **options)
    with pytest.raises(ConfigError, match="prune needs items"):
        dealrec.prune(rows, **options)
    with pytest.raises(ConfigError, match="prune needs interactions"):
        dealrec.prune(None, rows, **options)
    with pytest.raises(ConfigError, match="prune needs interactions"):
        dealrec.prune(valid_rows=rows, **options)
    with pytest.raises(DataError, match="rows: row 1 has no 'user'"):
        dealrec.prune(rows=rows.with_columns(user=None), data={"columns": COLUMNS}, **options)
    with pytest.raises(DataError, match="rows is a list, not a table"):
        dealrec.prune(rows=made_rows(), data={"columns": COLUMNS}, **options)  # type: ignore[arg-type]
