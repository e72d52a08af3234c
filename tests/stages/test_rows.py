"""A run over training rows of the user's own: scored on exactly these, and handed back as they stand."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from dealrec.config import Config
from dealrec.config.files import load, parse
from dealrec.engine.runner import run
from dealrec.engine.stage import Silent
from dealrec.errors import ConfigError, DataError, ModelError
from dealrec.exporting import export
from dealrec.recommenders.bigrec.model import load_llm
from dealrec.recommenders.bigrec.rows import encode_row
from dealrec.sequences import IGNORED, collate, sequence_losses
from dealrec.stages.pipeline import results, stages_until
from dealrec.stages.validation import check
from tests.conftest import Cli, made_interactions, made_items
from tests.recommenders.test_llm_checks import made as saved

pytestmark = pytest.mark.slow  # whole runs, and what they left

COLUMNS = {
    "row": "id",
    "prompt": "prompt",
    "completion": "completion",
    "user": "user",
    "history": "history",
    "target": "target",
    "timestamp": "time",
}
CHAT = [{"id": "chat-0", "prompt": "Hello", "completion": "Hi"}, {"id": "chat-1", "prompt": "x", "completion": ""}]
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def made_rows() -> list[dict[str, Any]]:
    """Rows by time; every fifth interaction has a second one."""
    titles = dict(made_items().iter_rows())
    log = made_interactions(users=30).sort("user_id", "timestamp")
    rows: list[dict[str, Any]] = []
    for (user,), table in log.group_by("user_id", maintain_order=True):
        items, times = table["item_id"].to_list(), table["timestamp"].to_list()
        for place in range(1, len(items)):
            liked = ", ".join(titles[item] for item in items[:place])
            for form in ("{} then:", "After {} comes:")[: 2 if len(rows) % 5 == 0 else 1]:
                row = {"prompt": form.format(liked), "completion": titles[items[place]], "user": user}
                row |= {"history": items[:place], "target": items[place], "time": times[place]}
                rows.append({"id": f"row-{len(rows)}", **row, "kept": [None, {"a": 1}]})
    return sorted(rows, key=lambda row: float(row["time"]))


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def settings(llm: Path, **sections: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "data": {"format": "rows", "rows": "train.jsonl", "valid_rows": "valid.jsonl", "columns": COLUMNS},
        "surrogate": {"max_epochs": 2, "dim": 8, "layers": 1},
        "llm": {"model": str(llm)},
        "loss_drop": {"epochs": 1},
        "pool": {"size": 1.0},
        "select": {"budget": 12},
        "finetune": {"epochs": 1, "micro_batch_size": 8},
        "evaluate": {"resamples": 100},
    }
    for name, section in sections.items():
        content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
    return content


def write(folder: Path, llm: Path, **sections: Any) -> Path:
    rows = made_rows()
    write_lines(folder / "train.jsonl", [*CHAT[:1], *rows[:150], *CHAT[1:]])
    write_lines(folder / "valid.jsonl", rows[150:175])
    write_lines(folder / "test.jsonl", rows[175:195])
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(llm, **sections)))
    return folder / "config.yaml"


def run_until(config: Config, folder: Path, until: str) -> Path:
    run(config, folder, stages_until(config, until), progress=Silent())
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_llm: Path) -> Path:
    """A run to its end, in the folder of its rows."""
    folder = tmp_path_factory.mktemp("rows")
    arms = {"by-effort": {"method": "dealrec"}, "by-alignment": {"method": "alignment"}}
    path = write(folder, tiny_llm, data={"test_rows": "test.jsonl"}, select={"arms": arms})
    run_until(load(path), folder / "run", "report")
    return folder


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "run" / name)


def test_samples_are_of_interactions(finished: Path) -> None:
    samples, rows = table(finished, "data/samples-train.parquet"), table(finished, "data/rows.parquet")
    given = [json.loads(line) for line in (finished / "train.jsonl").read_text().splitlines()]
    assert sorted(row for rows_ in samples["rows"] for row in rows_) == [
        place for place, row in enumerate(given) if "target" in row
    ]
    for sample in samples.iter_rows(named=True):
        for row in sample["rows"]:
            assert [given[row][name] for name in ("user", "history", "target", "time")] == [
                sample[name] for name in ("user_id", "history", "target", "timestamp")
            ]
    assert rows["row"].to_list() == list(range(152 + 25 + 20))
    assert table(finished, "data/other-rows.parquet").rows() == [(0, "chat-0"), (151, "chat-1")]
    assert samples["rows"].list.len().max() == 2


def row_loss(llm: Path, row: dict[str, Any]) -> tuple[float, int]:
    """Mean loss over the tokens of a row's completion and end, and how many they are: no code of ours but the loss."""
    model, tokenizer = load_llm(str(llm))
    prompt, completion = (tokenizer.encode(row[name]) for name in ("prompt", "completion"))
    ids = torch.tensor([[*prompt, *completion, tokenizer.eos_token_id]])
    with torch.inference_mode():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :])), len(completion) + 1


def test_losses_are_of_exactly_these_rows(finished: Path, tiny_llm: Path) -> None:
    given = [json.loads(line) for line in (finished / "train.jsonl").read_text().splitlines()]
    samples, losses = table(finished, "data/samples-train.parquet"), table(finished, "loss/details.parquet")
    assert losses["sample_id"].to_list() == samples["sample_id"].to_list()
    several = samples.filter(pl.col("rows").list.len() > 1).head(2)
    for sample in pl.concat([samples.head(2), several]).iter_rows(named=True):
        parts = [row_loss(tiny_llm, given[row]) for row in sample["rows"]]
        tokens = sum(count for _, count in parts)
        measured = losses.row(by_predicate=pl.col("sample_id") == sample["sample_id"], named=True)
        assert measured["tokens"] == tokens
        assert measured["loss"] == pytest.approx(sum(loss * count for loss, count in parts) / tokens, rel=1e-4)


def test_every_signal_is_of_samples(finished: Path) -> None:
    ids = table(finished, "data/samples-train.parquet")["sample_id"].to_list()
    for stage in ("influence", "surrogate_loss_drop", "loss", "loss_drop", "effort", "alignment"):
        scores = table(finished, f"{stage}/scores.parquet")
        assert scores["sample_id"].to_list() == ids
        assert scores[stage].is_finite().all()


def test_test_rows_are_evaluated_by_their_loss(finished: Path, tiny_llm: Path) -> None:
    given = [json.loads(line) for line in (finished / "test.jsonl").read_text().splitlines()]
    base = table(finished, "evaluate/base/per_user.parquet")
    assert base.columns == ["user_id", "loss"]
    user = given[0]["user"]
    losses = [row_loss(tiny_llm, row)[0] for row in given if row["user"] == user]
    measured = base.filter(pl.col("user_id") == user)["loss"][0]
    assert measured == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_selected_rows_come_out_byte_for_byte(finished: Path, tmp_path: Path) -> None:
    exported = export(finished / "run", to="rows", out=tmp_path / "out")
    selected = set(table(finished, "select/selected.parquet")["sample_id"])
    samples = table(finished, "data/samples-train.parquet")
    chosen = {row for s in samples.iter_rows(named=True) if s["sample_id"] in selected for row in s["rows"]}
    given = (finished / "train.jsonl").read_bytes().splitlines(keepends=True)
    expected = [line for place, line in enumerate(given) if place in chosen | {0, 151}]
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == b"".join(expected)
    ids = [json.loads(line)["id"] for line in expected]
    assert (tmp_path / "out" / "rows.txt").read_text().split("\n") == [*ids, ""]
    assert exported.samples == len(expected)


def test_weights_are_one_number_a_row(finished: Path, tmp_path: Path) -> None:
    export(finished / "run", to="weights", out=tmp_path / "out")
    weights = [float(line) for line in (tmp_path / "out" / "weights.txt").read_text().splitlines()]
    assert len(weights) == 152
    assert weights[0] == weights[151] == 1
    candidates = table(finished, "select/candidates.parquet").join(
        table(finished, "data/samples-train.parquet"), on="sample_id"
    )
    lowest = candidates.filter(pl.col("rank").is_null()).sort("overall").row(0, named=True)
    assert weights[lowest["rows"][0]] == pytest.approx(1 / len(candidates), rel=1e-4)
    for sample in candidates.filter(pl.col("rank").is_not_null()).iter_rows(named=True):
        assert {weights[row] for row in sample["rows"]} == {1}


def test_prompts_come_without_completions(finished: Path, tmp_path: Path) -> None:
    export(finished / "run", to="prompts", out=tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "prompts.jsonl").read_text().splitlines()]
    given = {row["id"]: row for row in map(json.loads, (finished / "train.jsonl").read_text().splitlines())}
    assert lines == [{"row_id": line["row_id"], "prompt": given[line["row_id"]]["prompt"]} for line in lines]
    selected = set(table(finished, "select/selected.parquet")["sample_id"])
    samples = table(finished, "data/samples-train.parquet")
    assert len(lines) == sum(len(s["rows"]) for s in samples.iter_rows(named=True) if s["sample_id"] in selected)


def test_the_training_file_of_the_run_holds_what_is_trained_on(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "run" / "export" / "train.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (finished / "train.jsonl").read_text().splitlines()]
    provenance = table(finished, "export/provenance.parquet")
    for line, row in zip(lines, provenance["row"], strict=True):
        assert line == {name: given[row][name] for name in ("prompt", "completion")}


def test_the_report_and_the_status_speak_of_such_a_run(finished: Path, cli: Cli) -> None:
    assert "training samples" in (finished / "run" / "report" / "report.html").read_text()
    status, out, _ = cli("status", finished / "run")
    assert (status, "complete" in out) == (0, True)


def test_other_stacks_are_refused_and_rows_of_other_runs(finished: Path) -> None:
    with pytest.raises(ConfigError, match=r"no export to trl\. Choose --to rows"):
        export(finished / "run", to="trl")


def test_the_least_config_ends_with_the_export(tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    write_lines(tmp_path / "train.jsonl", made_rows())
    data = {"format": "rows", "rows": "train.jsonl", "columns": COLUMNS}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": data, "llm": {"model": str(tiny_llm)}}))
    config = load(tmp_path / "c.yaml")
    assert [stage.name for stage in results(config)][-1] == "export"
    run_dir, out = tmp_path / "run", tmp_path / "out"
    few = ["--set", "surrogate.max_epochs=1", "--set", "loss_drop.epochs=1", "--set", "pool.size=40"]
    assert cli("run", tmp_path / "c.yaml", "--run-dir", run_dir, "--until", "export", *few)[0] == 0
    assert cli("export", run_dir, "--to", "rows", "--out", out)[0] == 0
    assert {"train.jsonl", "rows.txt"} <= {path.name for path in out.iterdir()}
    assert len((out / "rows.txt").read_text().splitlines()) == len((out / "train.jsonl").read_text().splitlines())


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_rows_of_other_kinds_of_files_select_alike(ending: str, finished: Path, tmp_path: Path, tiny_llm: Path) -> None:
    def convert(path: Path, rows: list[dict[str, Any]]) -> None:
        rows = [{name: row.get(name) for name in ("id", *COLUMNS.values()) if name != "kept"} for row in rows]
        if ending == "json":
            path.write_text(json.dumps(rows))
        elif ending == "parquet":
            pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
        else:
            cells = [row | {"history": None if row["history"] is None else str(row["history"])} for row in rows]
            pl.DataFrame(cells, infer_schema_length=None).write_csv(path)

    for part in ("train", "valid"):
        rows = [json.loads(line) for line in (finished / f"{part}.jsonl").read_text().splitlines()]
        convert(tmp_path / f"{part}.{ending}", [row for row in rows if "target" in row])
    data = {"rows": f"train.{ending}", "valid_rows": f"valid.{ending}"}
    content = settings(tiny_llm, data={"format": "rows", "columns": COLUMNS, **data})
    run_until(parse(content, base=tmp_path), tmp_path / "run", "loss")
    before = table(finished, "loss/details.parquet")
    assert pl.read_parquet(tmp_path / "run" / "loss" / "details.parquet").equals(before)
    same = ["sample_id", "user_id", "history", "target", "timestamp"]
    samples = pl.read_parquet(tmp_path / "run" / "data" / "samples-train.parquet")
    assert samples.select(same).equals(table(finished, "data/samples-train.parquet").select(same))


def test_without_interactions_signals_of_the_llm_select(tmp_path: Path, tiny_llm: Path, finished: Path) -> None:
    data = {"format": "rows", "rows": str(finished / "train.jsonl"), "columns": {"row": "id"}}
    config = parse(settings(tiny_llm, data=data | {"valid_rows": None, "valid_share": 0.2}), base=tmp_path)
    assert config.select.method == "loss-drop"
    names = [stage.name for stage in results(config)]
    assert not [name for name in names if name.startswith(("surrogate", "influence"))]
    run_until(config, tmp_path / "run", "export")
    manifest = json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())
    assert any("there is no surrogate" in warning for warning in manifest["warnings"])
    exported = export(tmp_path / "run", to="rows", out=tmp_path / "out")
    assert exported.samples == 12
    for method in ("influence", "both-loss-drops"):
        other = parse(settings(tiny_llm, data=data, select={"method": method}), base=finished)
        with pytest.raises(ConfigError, match="names no history and target"):
            run_until(other, tmp_path / "other", "data")


def test_tokens_score_as_the_text_that_they_are_of(tmp_path: Path, tiny_llm: Path, finished: Path) -> None:
    _, tokenizer = load_llm(str(tiny_llm))
    for part in ("train", "valid"):
        rows = [json.loads(line) for line in (finished / f"{part}.jsonl").read_text().splitlines()]
        for row in rows:
            prompt, learnt = tokenizer.encode(row.pop("prompt")), tokenizer.encode(row.pop("completion"))
            learnt.append(tokenizer.eos_token_id)
            row |= {"input_ids": [*prompt, *learnt], "labels": [IGNORED] * len(prompt) + learnt}
        write_lines(tmp_path / f"{part}.jsonl", rows)
    columns = {name: field for name, field in COLUMNS.items() if name not in ("prompt", "completion")}
    config = parse(settings(tiny_llm, data={"columns": columns}), base=tmp_path)
    run_until(config, tmp_path / "run", "loss")
    assert pl.read_parquet(tmp_path / "run" / "loss" / "details.parquet").equals(
        table(finished, "loss/details.parquet")
    )


class TestEncoding:
    """Rows as tokens."""

    @pytest.fixture
    def tokenizer(self, tiny_llm: Path) -> Any:
        tokenizer = load_llm(str(tiny_llm))[1]
        tokenizer.chat_template = TEMPLATE
        return tokenizer

    @staticmethod
    def row(**fields: Any) -> dict[str, Any]:
        return (
            dict.fromkeys(("prompt", "completion", "messages", "input_ids", "labels"), None) | {"row_id": "r"} | fields
        )

    def learnt(self, tokenizer: Any, **fields: Any) -> str:
        tokens = encode_row(tokenizer, self.row(**fields), limit=None, longer="cut").tokens
        return str(tokenizer.decode([label for label in tokens.labels if label != IGNORED]))

    def test_labels_are_on_the_completion_and_the_end(self, tokenizer: Any) -> None:
        assert self.learnt(tokenizer, prompt="ab", completion="cd") == "cd<|end|>"
        assert self.learnt(tokenizer, prompt="ab", completion="") == "<|end|>"

    def test_labels_are_on_what_the_template_writes_for_learnt_turns(self, tokenizer: Any) -> None:
        turns = [("user", "a", False), ("assistant", "b", False), ("user", "c", False), ("assistant", "d", True)]
        messages = [dict(zip(("role", "content", "learnt"), turn, strict=True)) for turn in turns]
        assert self.learnt(tokenizer, messages=messages) == "d<|end|>"
        messages[1]["learnt"] = True
        assert self.learnt(tokenizer, messages=messages) == "b<|end|>d<|end|>"

    def test_a_row_in_which_nothing_can_be_learnt_is_refused(self, tokenizer: Any) -> None:
        silent = TEMPLATE.replace("<{{ message['role'] }}>{{ message['content'] }}<|end|>", "", 1)
        turns = [{"role": role, "content": "a", "learnt": role == "assistant"} for role in ("user", "assistant")]
        tokenizer.chat_template = silent
        for row in (
            self.row(messages=turns),
            self.row(prompt="", completion=""),
            self.row(input_ids=[3, 4], labels=[3, IGNORED]),
        ):
            with pytest.raises(DataError, match="Row 'r' has no token to learn after its first"):
                encode_row(tokenizer, row, limit=None, longer="cut")
        assert self.learnt(tokenizer, prompt="", completion="a") == "a<|end|>"

    def test_a_template_that_rewrites_earlier_turns_is_refused(self, tokenizer: Any) -> None:
        tokenizer.chat_template = TEMPLATE.replace("message['content']", "message['content'] if loop.last else ''")
        messages = [{"role": role, "content": "a", "learnt": role == "assistant"} for role in ("user", "assistant") * 2]
        with pytest.raises(ModelError, match="otherwise when others follow"):
            self.learnt(tokenizer, messages=messages)

    def test_longer_rows_lose_their_end_or_else_their_beginning(self, tokenizer: Any) -> None:
        def cut(prompt: str, completion: str, limit: int) -> str:
            encoded = encode_row(tokenizer, self.row(prompt=prompt, completion=completion), limit=limit, longer="cut")
            assert encoded.cut
            assert len(encoded.tokens.input_ids) == len(encoded.tokens.labels) == limit
            return str(tokenizer.decode(encoded.tokens.input_ids))

        assert cut("abcd", "efgh", 6) == "abcdef"
        assert cut("abcdefgh", "ij", 6) == "fghij<|end|>"
        with pytest.raises(DataError, match="Row 'r' has 9 tokens, above the 6"):
            encode_row(tokenizer, self.row(prompt="abcd", completion="efgh"), limit=6, longer="refuse")
        assert not encode_row(tokenizer, self.row(prompt="abcd", completion="efgh"), limit=9, longer="refuse").cut

    def test_a_cut_row_has_a_loss(self, tokenizer: Any, tiny_llm: Path) -> None:
        model, _ = load_llm(str(tiny_llm))
        row = encode_row(tokenizer, self.row(prompt="x" * 40, completion="y"), limit=8, longer="cut").tokens
        middle = self.row(input_ids=list(range(2, 42)), labels=[IGNORED] * 19 + [21, 22] + [IGNORED] * 19)
        cut = encode_row(tokenizer, middle, limit=8, longer="cut").tokens
        assert (cut.input_ids, cut.labels) == (list(range(15, 23)), [IGNORED] * 6 + [21, 22])
        for tokens in (row, cut):
            assert torch.isfinite(sequence_losses(model, collate([tokens], pad_id=tokenizer.pad_token_id))).all()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"rows": None}, "needs data.rows"),
        ({"columns": {"target": "t"}}, "go together"),
        ({"final": True}, "data.final is of interactions"),
        ({"warm_share": 0.5, "columns": {"history": "h", "target": "t"}}, "name data.columns.timestamp"),
        ({"format": "table"}, "needs data.format: rows"),
        ({"format": "table", "rows": None, "items": None}, "can be null with data.format: rows alone"),
    ],
)
def test_settings_that_contradict_rows_are_refused(
    data: dict[str, Any], says: str, tiny_llm: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(settings(tiny_llm) | {"data": {"format": "rows", "rows": "train.jsonl", **data}}, base=tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.ranking_users must be 0"):
        parse(settings(tiny_llm, evaluate={"ranking_users": 10}), base=tmp_path)
    with pytest.raises(ConfigError, match=r"evaluate\.log_rank must be false"):
        parse(settings(tiny_llm, evaluate={"log_rank": True}), base=tmp_path)


def test_without_times_nothing_is_compared_that_needs_them(tiny_llm: Path, tmp_path: Path) -> None:
    data: dict[str, Any] = {"format": "rows", "rows": "train.jsonl", "valid_rows": "valid.jsonl"}
    for columns, there in (({}, False), ({"timestamp": "time"}, True)):
        config = parse({"llm": {"model": str(tiny_llm)}, "data": {**data, "columns": columns}}, base=tmp_path)
        assert ("most-recent" in config.compare.methods) is there


@pytest.mark.parametrize("part", ["valid_rows", "test_rows"])
def test_a_file_is_of_one_part_whatever_its_path(part: str, tiny_llm: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", made_rows())
    (tmp_path / "link").symlink_to(tmp_path)
    data = {"format": "rows", "rows": "train.jsonl", part: "link/train.jsonl"}
    config = parse(settings(tiny_llm) | {"data": data}, base=tmp_path)
    with pytest.raises(DataError, match=rf"train\.jsonl is of data\.rows and of data\.{part}"):
        run_until(config, tmp_path / "run", "data")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "no chat template"),
        ({"input_ids": [1, 9999], "labels": [-100, 9999]}, "The rows reach token 9,999"),
    ],
)
def test_an_llm_that_cannot_read_the_rows_is_refused_before_anything_is_computed(
    row: dict[str, Any], says: str, tiny_llm: Path, tmp_path: Path
) -> None:
    write_lines(tmp_path / "train.jsonl", [row] * 40)
    config = parse(settings(tiny_llm) | {"data": {"format": "rows", "rows": "train.jsonl"}}, base=tmp_path)
    with pytest.raises(ModelError, match=says):
        check(config, warn=lambda _: None)


@pytest.mark.parametrize(("most", "said"), [(600, False), (601, True), (None, False)])
def test_rows_beyond_learnt_positions_are_refused_before_anything_is_computed(
    most: int | None, said: bool, tiny_llm: Path, tmp_path: Path
) -> None:
    learnt = GPT2Config(vocab_size=258, n_embd=8, n_layer=1, n_head=2, n_positions=600, bos_token_id=0, eos_token_id=1)
    gpt2 = saved(GPT2LMHeadModel, learnt, tmp_path / "gpt2", tiny_llm)
    write_lines(tmp_path / "train.jsonl", [{"prompt": "p", "completion": f"c{number}"} for number in range(40)])
    data, warnings = {"format": "rows", "rows": "train.jsonl"}, list[str]()
    content = settings(gpt2) | {"data": data, "llm": {"model": str(gpt2), "rows": {"max_tokens": most}}}
    if said:
        with pytest.raises(
            ConfigError, match=r"llm\.rows\.max_tokens 601 is above the LLM's 600 positions.*set it to n"
        ):
            check(parse(content, base=tmp_path), warn=warnings.append)
    else:
        check(parse(content, base=tmp_path), warn=warnings.append)
    content["llm"] = {"model": str(tiny_llm), "rows": {"max_tokens": 2049}}  # rotary ones go on
    check(parse(content, base=tmp_path), warn=warnings.append)
    assert [warning.partition(" (")[0] for warning in warnings if "positions" in warning] == [
        "llm.rows.max_tokens 2,049 is above the LLM's 2,048 positions of training"
    ]


def test_longer_rows_are_refused_before_anything_is_computed(tiny_llm: Path, tmp_path: Path) -> None:
    rows = [{"id": f"r{number}", "prompt": "p" * number, "completion": "c"} for number in range(40)]
    write_lines(tmp_path / "train.jsonl", rows)
    content = settings(tiny_llm) | {"data": {"format": "rows", "rows": "train.jsonl", "columns": {"row": "id"}}}
    content["llm"] = {"model": str(tiny_llm), "rows": {"max_tokens": 40, "longer": "refuse"}}
    with pytest.raises(DataError, match="Row 'r39' has 41 tokens, above the 40"):
        check(parse(content, base=tmp_path), warn=lambda _: None)
    content["llm"]["rows"]["max_tokens"] = 41
    check(parse(content, base=tmp_path), warn=lambda _: None)


def test_conversations_go_through_the_template_of_the_llm(tiny_llm: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    llm = tmp_path / "llm"
    llm.mkdir()
    for path in tiny_llm.iterdir():
        (llm / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(llm)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(llm)
    rows = [
        {"conversations": [{"from": "human", "value": row["prompt"]}, {"from": "gpt", "value": row["completion"]}]}
        for row in made_rows()[:60]
    ]
    write_lines(tmp_path / "train.jsonl", rows)
    data = {"format": "rows", "rows": "train.jsonl", "valid_share": 0.3}
    config = parse(settings(llm) | {"data": data}, base=tmp_path)
    run_until(config, tmp_path / "run", "select")
    assert pl.read_parquet(tmp_path / "run" / "loss" / "details.parquet")["loss"].is_finite().all()
    export(tmp_path / "run", to="prompts", out=tmp_path / "out")
    first = json.loads((tmp_path / "out" / "prompts.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in first["prompt"]] == ["user"]


def test_titles_of_an_items_file_stand_in_the_place_of_those_of_the_rows(
    finished: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    made_items().with_columns(pl.col("title") + " (file)").write_parquet(tmp_path / "items.parquet")
    data = {"rows": str(finished / "train.jsonl"), "valid_rows": None, "items": str(tmp_path / "items.parquet")}
    config = parse(settings(tiny_llm, data=data), base=tmp_path)
    run_until(config, tmp_path / "run", "data")
    titles = pl.read_parquet(tmp_path / "run" / "data" / "items.parquet")["title"]
    assert titles.str.ends_with(" (file)").all()
    assert table(finished, "data/items.parquet")["title"].str.starts_with("Film").all()


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"data": {"valid_rows": "chat.jsonl"}}, r"No row of data\.valid_rows has 'history' and 'target'"),
        ({"data": {"rows": "one.jsonl", "valid_rows": None}}, r"are of one interaction, and data\.valid_rows is null"),
        ({"data": {"columns": COLUMNS | {"timestamp": None}}, "select": {"method": "most-recent"}}, "needs times"),
        ({"data": {"columns": {"row": "id"}}, "recommender": "tiger"}, r"data\.columns names no history and target"),
    ],
)
def test_what_would_stop_a_run_over_rows_is_told_by_validate(
    sections: dict[str, Any], says: str, tiny_llm: Path, text_encoder: Path, tmp_path: Path, cli: Cli
) -> None:
    write(tmp_path, tiny_llm)
    write_lines(tmp_path / "chat.jsonl", CHAT)
    write_lines(tmp_path / "one.jsonl", [made_rows()[0] | {"id": f"copy-{number}"} for number in range(3)])
    content = settings(tiny_llm, **sections) | {"tiger": {"text_encoder": str(text_encoder)}}
    if "recommender" in sections:
        content["data"] |= {"rows": "test.jsonl", "warm_share": 0.5, "columns": {"row": "id", "timestamp": "time"}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    status, _, err = cli("validate", tmp_path / "c.yaml")
    assert (status, len(err.splitlines())) == (2, 1)
    assert re.search(says, err)


def test_an_arm_that_needs_times_is_told_by_validate(tiny_llm: Path, tmp_path: Path) -> None:
    columns = {"columns": COLUMNS | {"timestamp": None}}
    config = load(write(tmp_path, tiny_llm, data=columns, select={"arms": {"newest": {"method": "most-recent"}}}))
    warnings = list[str]()
    check(config, warn=warnings.append)
    assert any("arm newest will be left out: most-recent needs times" in warning for warning in warnings)


def test_a_comparison_needs_test_rows(tiny_llm: Path, tmp_path: Path, cli: Cli) -> None:
    path = write(tmp_path, tiny_llm)
    for options in ([], ["--dry-run"]):
        status, _, err = cli("compare", path, "--run-dir", tmp_path / "compared", *options)
        assert (status, "data.test_rows is null" in err) == (2, True)


def test_a_budget_of_more_rows_than_there_are_is_refused(tmp_path: Path, tiny_llm: Path) -> None:
    path = write(tmp_path, tiny_llm, select={"budget": 151, "budget_unit": "rows"})
    with pytest.raises(ConfigError, match=r"select\.budget is 151, above the 150 rows of the 1"):
        run_until(load(path), tmp_path / "run", "pool")


@pytest.mark.parametrize(("unit", "budget"), [("rows", 14), ("tokens", 700), ("tokens", 0.1)])
def test_a_budget_counts_rows_or_tokens(tmp_path: Path, tiny_llm: Path, unit: str, budget: int | float) -> None:
    """Tokens are those that the LLM reads of all rows of a sample; one sample more would exceed it."""
    arms = {"random": {"method": "random"}, "validation": {"method": "validation"}}
    select = {"budget": budget, "budget_unit": unit, "arms": arms}
    path = write(tmp_path, tiny_llm, select=select)
    run_until(load(path), tmp_path / "run", "export")
    samples = pl.concat([table(tmp_path, f"data/samples-{part}.parquet") for part in ("train", "valid")])
    samples = samples.with_columns(sample_id=pl.int_range(len(samples)))
    _, tokenizer = load_llm(str(tiny_llm))
    texts = table(tmp_path, "data/rows.parquet").sort("row")
    encoded = [encode_row(tokenizer, row, limit=None, longer="cut") for row in texts.iter_rows(named=True)]
    lengths = [len(row.tokens.input_ids) for row in encoded]
    sizes = [sum(lengths[row] for row in rows) if unit == "tokens" else len(rows) for rows in samples["rows"]]
    training = len(table(tmp_path, "data/samples-train.parquet"))
    most = budget if isinstance(budget, int) else int(budget * sum(sizes[:training]))
    for arm in ("selected", "random", "validation"):
        size = sum(sizes[sample] for sample in table(tmp_path, f"select/{arm}.parquet")["sample_id"])
        assert most - max(sizes) < size <= most, arm


def test_arms_of_a_budget_in_tokens_stand_beside_random_of_the_same(tmp_path: Path, tiny_llm: Path, cli: Cli) -> None:
    """Samples have one row or two, so that arms of one budget are of several sizes."""
    path = write(
        tmp_path,
        tiny_llm,
        data={"test_rows": "test.jsonl"},
        select={"budget": 2500, "budget_unit": "tokens", "method": "surrogate-loss-drop"},
        compare={"methods": ["loss-drop"], "replicates": 1, "random_sizes": [1, 2]},
    )
    status, out, err = cli("compare", path, "--run-dir", tmp_path / "compared")
    assert status == 0, err
    shown = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert {arm["arm"] for arm in shown["arms"]} == {"selected", "loss-drop"}
    cells = pl.read_parquet(tmp_path / "compared" / "comparison.parquet")
    assert cells["size"].n_unique() > 2
    status, out, err = cli("run", path, "--run-dir", tmp_path / "run", "--dry-run")
    assert status == 0, err
    assert "length" in out


def test_rows_have_no_form(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="written as they stand"):
        export(finished / "run", to="rows", form="tokens", out=tmp_path / "out")


def test_fields_that_no_row_has_are_named(tmp_path: Path, tiny_llm: Path) -> None:
    write(tmp_path, tiny_llm)
    columns = COLUMNS | {"history": "hist", "target": "tgt"}
    config = parse(settings(tiny_llm, data={"columns": columns}), base=tmp_path)
    with pytest.raises(DataError, match=r"No row of data\.rows has 'hist' and 'tgt'"):
        run_until(config, tmp_path / "run", "data")


def test_a_changed_row_file_makes_the_run_out_of_date(tiny_llm: Path, tmp_path: Path) -> None:
    path = write(tmp_path, tiny_llm)
    run_until(load(path), tmp_path / "run", "data")
    rows = made_rows()
    write_lines(tmp_path / "train.jsonl", rows[:100])
    run_until(load(path), tmp_path / "run", "data")
    assert json.loads((tmp_path / "run" / "data" / "manifest.json").read_text())["facts"]["rows"] == 100
