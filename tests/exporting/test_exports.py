"""What stands in the folder of an export; the stacks themselves read it in test_stacks."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from tokenizers.processors import TemplateProcessing

from dealrec.api.prune import Pruned
from dealrec.cli.options import STACK_NAMES
from dealrec.columns import RANK, SAMPLE
from dealrec.config import Config
from dealrec.config.files import load
from dealrec.data.catalogue import pairs
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import recorded_config, states
from dealrec.engine.stage import Context, Silent
from dealrec.errors import ConfigError, DealrecError, RunDirectoryError
from dealrec.exporting import Exported, export
from dealrec.exporting.folder import OF_ROWS, STACKS
from dealrec.exporting.handover import Handover
from dealrec.exporting.training import common_settings, lora_targets, weights_dtype
from dealrec.recommenders.bigrec import Prompter
from dealrec.recommenders.bigrec.model import load_tokenizer
from dealrec.sequences import Sample
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders import bigrec
from tests.exporting.conftest import Make
from tests.families.made import CASES

LLM_STACKS = ("trl", "llamafactory", "axolotl")
DATA = {"trl": "train.jsonl", "llamafactory": "train.json", "axolotl": "train.jsonl"}
CONFIGS = {"trl": "sft.yaml", "llamafactory": "train.yaml", "axolotl": "axolotl.yaml"}


def own(run_dir: Path, arm: str = "selected") -> tuple[Prompter, list[tuple[list[Any], Any]]]:
    """The prompter of the run's own fine-tuning, and history and target of an arm's samples, in the export's order."""
    config = recorded_config(run_dir, Config)
    context = Context("test", config, Silent(), run_dir, run_dir, ("data",))
    table = pl.read_parquet(run_dir / "select" / f"{arm}.parquet")
    table = table.sort(RANK if RANK in table.columns else SAMPLE)
    samples = read_table(run_dir / "data" / "samples-train.parquet")
    chosen = table.join(samples, on=SAMPLE, how="left", maintain_order="left")
    return bigrec.prompter(context, load_tokenizer(config.llm.model)), list(pairs(chosen))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def rows(made: Exported) -> list[dict[str, Any]]:
    path = made.folder / DATA.get(made.stack, "train.jsonl")
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.suffix == ".json" else lines(path)
    return found


def settings(made: Exported) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((made.folder / CONFIGS[made.stack]).read_text())
    return found


def test_the_help_names_the_stacks() -> None:
    assert (*STACKS, *OF_ROWS) == STACK_NAMES


@pytest.mark.slow
def test_hostile_titles_reach_every_stack_as_the_prompter_writes_them(run_dir: Path, tmp_path: Path) -> None:
    prompter, samples = own(run_dir)
    texts = [(prompter.prompt(history), prompter.completion(target)) for history, target in samples]
    shown = " ".join(prompt + completion for prompt, completion in texts)
    pieces = ("{{content}} {{idx}}", "{history} {% raw %}", "😀", "\\u0000", "'hi'", "[31m", "東京", "{a: b}")
    assert [piece for piece in pieces if piece not in shown] == []
    made = {stack: rows(export(run_dir, to=stack, out=tmp_path / stack)) for stack in (*LLM_STACKS, "jsonl")}
    assert [(row["prompt"], row["completion"]) for row in made["jsonl"]] == texts
    assert made["trl"] == made["jsonl"]
    assert [(row["instruction"], row["output"]) for row in made["llamafactory"]] == [
        (prompt, f"{completion}<|end|>") for prompt, completion in texts
    ]
    assert [[part["text"] for part in row["segments"]] for row in made["axolotl"]] == [
        [prompt, completion, "<|end|>"] for prompt, completion in texts
    ]


def test_tokens_are_those_of_our_own_fine_tuning(run_dir: Path, tmp_path: Path) -> None:
    prompter, samples = own(run_dir)
    wanted = [prompter.encode(history, target) for history, target in samples]
    found = rows(export(run_dir, to="jsonl", form="tokens", out=tmp_path / "tokens"))
    assert [(row["input_ids"], row["labels"]) for row in found] == [(one.input_ids, one.labels) for one in wanted]
    assert rows(export(run_dir, to="trl", form="tokens", out=tmp_path / "trl")) == found
    segments = rows(export(run_dir, to="axolotl", form="tokens", out=tmp_path / "axolotl"))
    assert [set(row) for row in segments] == [{"input_ids", "attention_mask", "labels"}] * len(wanted)


def test_messages_of_two_turns(run_dir: Path, tmp_path: Path) -> None:
    made = export(run_dir, to="trl", form="messages", out=tmp_path / "trl")
    first = rows(made)[0]
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]
    assert made.differing == 0
    assert settings(made)["assistant_only_loss"] is True
    for stack in ("llamafactory", "axolotl"):
        with pytest.raises(ConfigError, match="no form 'messages'"):
            export(run_dir, to=stack, form="messages", out=tmp_path / stack)
        assert not (tmp_path / stack).exists()


def test_llamafactory_is_given_no_column_that_it_would_train_on(run_dir: Path, tmp_path: Path) -> None:
    made = export(run_dir, to="llamafactory", out=tmp_path / "out")
    assert {tuple(row) for row in rows(made)} == {("instruction", "input", "output")}
    assert {row["input"] for row in rows(made)} == {""}
    info = json.loads((made.folder / "dataset_info.json").read_text())
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    assert info == {"dealrec": {"file_name": "train.json", "formatting": "alpaca", "columns": columns}}


def test_what_a_stack_reads_differently_is_counted_and_said(run_dir: Path, tmp_path: Path) -> None:
    made = export(run_dir, to="llamafactory", out=tmp_path / "out")
    hit = sum("{{idx}}" in row["instruction"] for row in rows(made))
    assert 0 < hit == made.differing
    assert f"{hit} of 40 samples" in made.notes[0]
    assert "--form tokens" in made.notes[0]
    provenance = json.loads((made.folder / "provenance.json").read_text())
    assert provenance["samples_read_differently"] == hit


@pytest.mark.slow
def test_tokens_that_merge_across_the_boundary_are_counted(make_run: Make, merging_llm: Path, tmp_path: Path) -> None:
    made_run = make_run(model=merging_llm, llm={"prompt": {"template": "{history} ->"}})
    assert export(made_run, to="trl", out=tmp_path / "trl").differing == 40
    assert export(made_run, to="trl", form="messages", out=tmp_path / "messages").differing == 40
    made = export(made_run, to="axolotl", out=tmp_path / "axolotl")
    assert made.differing == 0
    assert [part["text"] for part in rows(made)[0]["segments"]][::3] == ["<|begin|>", "<|end|>"]


@pytest.mark.parametrize(
    ("single", "begin"), [("<|begin|> $A <|end|>", "<|begin|>"), ("$A <|end|>", ""), ("<|begin|> $A", "<|begin|>")]
)
def test_the_begin_that_is_handed_over_has_no_end(merging_llm: Path, single: str, begin: str) -> None:
    tokenizer = load_tokenizer(str(merging_llm))
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    prompter = Prompter(tokenizer, {1: "Red", 2: "Blue"}, template="Had {history}, next ")
    sample = Sample(prompter.encode([1], 2), prompter.prompt([1]), prompter.completion(2))
    handed = Handover(Config(), "text", [sample], tokenizer)
    assert handed.begin == begin
    handed.compare("axolotl", lambda sample: handed.pieces([begin, sample.prompt], [sample.completion, handed.end]))
    assert handed.differing == 0


@pytest.mark.parametrize("stack", LLM_STACKS)
def test_the_training_file_has_the_run_s_own_settings(run_dir: Path, tmp_path: Path, stack: str) -> None:
    names = {
        "trl": "lora_r lora_alpha lora_dropout num_train_epochs per_device_train_batch_size model_name_or_path",
        "llamafactory": "lora_rank lora_alpha lora_dropout num_train_epochs per_device_train_batch_size"
        " model_name_or_path",
        "axolotl": "lora_r lora_alpha lora_dropout num_epochs micro_batch_size base_model",
    }
    config = recorded_config(run_dir, Config)
    found = settings(export(run_dir, to=stack, out=tmp_path / "out"))
    assert [found[name] for name in names[stack].split()] == [2, 16, 0.05, 3, 2, config.llm.model]
    assert (found["gradient_accumulation_steps"], found["learning_rate"], found["seed"]) == (2, 0.01, 3)
    assert found["warmup_steps"] == 3  # a tenth of 3 epochs of 10 steps
    targets = found.get("lora_target_modules") or found.get("lora_target")
    assert targets in (["q_proj", "v_proj"], "q_proj,v_proj")
    assert found["max_grad_norm"] == 1


@pytest.mark.slow
def test_the_whole_model_is_trained_if_the_run_does(make_run: Make, tmp_path: Path) -> None:
    made_run = make_run(finetune={"full": True}, data={"warm_share": 0.5}, select={"budget": 4})
    for stack in LLM_STACKS:
        made = export(made_run, to=stack, out=tmp_path / stack)
        found = settings(made)
        assert found.get("model_name_or_path", found.get("base_model")) == "model"
        files = {path.name for path in (made.folder / "model").iterdir()}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
        assert not any("lora" in name or "peft" in name for name in found)
        assert found.get("finetuning_type") == ("full" if stack == "llamafactory" else None)


@pytest.mark.slow
def test_an_adapter_to_start_from_goes_along(make_run: Make, tmp_path: Path) -> None:
    made_run = make_run(data={"warm_share": 0.5}, select={"budget": 4})
    names = {"llamafactory": "adapter_name_or_path", "axolotl": "lora_model_dir"}
    for stack in LLM_STACKS:
        made = export(made_run, to=stack, out=tmp_path / stack)
        assert (made.folder / "adapter" / "adapter_model.safetensors").exists()
        targets = settings(made).get("lora_target_modules") or settings(made)["lora_target"].split(",")
        assert targets == ["q_proj", "v_proj"]
        if stack in names:
            assert settings(made)[names[stack]] == "adapter"
        else:
            assert any("cannot start from an adapter" in note for note in made.notes)


@pytest.mark.parametrize(
    ("saved", "targets"), [(["c_proj", "c_fc"], ["c_proj", "c_fc"]), (".*c_fc", ["c_attn"]), (None, ["c_attn"])]
)
def test_the_layers_that_are_handed_over_are_those_of_the_adapter_or_the_usual(
    saved: object, targets: list[str], tmp_path: Path
) -> None:
    llm, start = CASES["GPT-2"].save(tmp_path / "llm"), None
    if saved is not None:
        start = tmp_path / "adapter"
        start.mkdir()
        (start / "adapter_config.json").write_text(json.dumps({"target_modules": saved}))
    config = Config.model_validate({"llm": {"model": str(llm)}})
    assert lora_targets(Handover(config, "text", [], None, start)) == targets
    config = Config.model_validate({"llm": {"model": str(llm), "lora": {"target_modules": ["c_fc"]}}})
    assert lora_targets(Handover(config, "text", [])) == ["c_fc"]


@pytest.mark.slow
def test_parquet_and_datasets_hold_what_json_lines_hold(run_dir: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for form in ("text", "messages", "tokens"):
        wanted = rows(export(run_dir, to="jsonl", form=form, out=tmp_path / f"jsonl-{form}"))
        parquet = export(run_dir, to="parquet", form=form, out=tmp_path / f"parquet-{form}").folder
        assert pl.read_parquet(parquet / "train.parquet").to_dicts() == wanted
        assert datasets.Dataset.from_parquet(str(parquet / "train.parquet")).to_list() == wanted
        saved = export(run_dir, to="datasets", form=form, out=tmp_path / f"datasets-{form}").folder
        assert datasets.load_from_disk(str(saved)).to_list() == wanted


def test_the_card_of_datasets(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from huggingface_hub import DatasetCard

    made = export(run_dir, to="datasets", licence="cc-by-4.0", out=tmp_path / "out")
    card = DatasetCard.load(made.folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert "# 40 of 40 training samples" in card.text
    assert "Selected by dealrec, with dealrec" in card.text
    assert "DEALRec: influence and effort" in card.text
    assert made.files["data-00000-of-00001.arrow"] in card.text
    assert str(run_dir.parent) not in card.text


def test_provenance_says_where_the_rows_come_from(run_dir: Path, tmp_path: Path) -> None:
    made = export(run_dir, to="trl", arm="random-1", out=tmp_path / "out")
    found = json.loads((made.folder / "provenance.json").read_text())
    ids = pl.read_parquet(run_dir / "select" / "random-1.parquet")[SAMPLE].sort().to_list()
    assert found["sample_ids"] == ids
    assert found["selection"]["method"] == "random"
    assert "Uniform draw" in found["selection"]["summary"]
    assert found["stages"]["select"]["settings"]["select"]["strata"] == 4
    manifest = json.loads((run_dir / "effort" / "manifest.json").read_text())
    assert found["stages"]["effort"]["fingerprint"] == manifest["fingerprint"]
    read = {file["name"]: file["sha256"] for stage in found["stages"].values() for file in stage["outside"]}
    llm = Path(recorded_config(run_dir, Config).llm.model)
    for path in (run_dir.parent / "items.parquet", llm / "tokenizer.json"):
        assert read[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, digest in found["files"].items():
        assert hashlib.sha256((made.folder / name).read_bytes()).hexdigest() == digest
    assert set(made.files) == {*found["files"], "provenance.json"}
    again = export(run_dir, to="trl", arm="random-1", out=tmp_path / "again")
    assert again.files == made.files


def test_by_default_into_the_run_directory_which_stays_one(run_dir: Path) -> None:
    assert export(run_dir, to="jsonl").folder == run_dir / "exports" / "jsonl"
    assert export(run_dir, to="jsonl", arm="random-0").folder == run_dir / "exports" / "jsonl-random-0"
    config = recorded_config(run_dir, Config)
    assert {state for _, state, _ in states(config, run_dir, stages_until(config, "select"))} == {"complete"}


def test_nothing_is_overwritten_without_force_and_nothing_foreign_ever(run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(run_dir, to="trl", out=out)
    with pytest.raises(RunDirectoryError, match="--force"):
        export(run_dir, to="jsonl", out=out)
    assert (out / "sft.yaml").exists()
    export(run_dir, to="jsonl", out=out, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["provenance.json", "train.jsonl"]
    (out / "trained").mkdir()
    (out / "trained" / "adapter.safetensors").write_text("days of work")
    with pytest.raises(RunDirectoryError, match="trained/adapter"):
        export(run_dir, to="jsonl", out=out, force=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="not an export"):
        export(run_dir, to="jsonl", out=tmp_path / "home", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="not an export"):
        export(run_dir, to="jsonl", out=tmp_path / "file")
    with pytest.raises(RunDirectoryError, match="Cannot write"):
        export(run_dir, to="jsonl", out=tmp_path / "file" / "out")
    (tmp_path / "empty").mkdir()
    assert export(run_dir, to="jsonl", out=tmp_path / "empty").samples == 40


def test_an_export_that_fails_leaves_nothing_and_what_was_there(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(run_dir, to="jsonl", out=tmp_path / "out")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(STACKS, "jsonl", fail)
    with pytest.raises(RunDirectoryError, match="No space left"):
        export(run_dir, to="jsonl", out=tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "train.jsonl").exists()


@pytest.mark.slow
def test_refusals_name_the_remedy(run_dir: Path, make_run: Make, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"to": "unsloth"}, "trl, llamafactory, axolotl"),
        ({"to": "trl", "form": "alpaca"}, "text, messages, tokens"),
        ({"to": "trl", "arm": "random-9"}, "selected, random-0, random-1"),
    ]
    for options, words in cases:
        with pytest.raises(ConfigError, match=words):
            export(run_dir, **options)
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        export(tmp_path, to="trl")
    unfinished = make_run(until="influence")
    with pytest.raises(RunDirectoryError, match=r"warmstart is not run.* --until select"):
        export(unfinished, to="trl")


@pytest.mark.slow
def test_settings_that_have_changed_since_are_not_exported(run_dir: Path, make_run: Make) -> None:
    changed = make_run(select={"budget": 4})
    path = changed / "config.json"
    config = Config.model_validate_json(path.read_bytes())
    path.write_text(config.model_copy(update={"seed": 99}).model_dump_json())
    with pytest.raises(RunDirectoryError, match="out of date"):
        export(changed, to="trl")


def test_without_the_package_datasets_its_remedy(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install"):
        export(run_dir, to="datasets", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_in_python(run_dir: Path, tmp_path: Path) -> None:
    pruned = Pruned(run_dir, recorded_config(run_dir, Config))
    with pytest.warns(UserWarning, match="long titles"):
        folder = pruned.export(tmp_path / "out", to="axolotl", arm="random-0")
    assert (folder / "axolotl.yaml").exists()


def test_on_the_command_line(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dealrec.cli import main

    def call(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr("sys.argv", ["dealrec", "export", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()
        shown = capsys.readouterr()
        return shown.out, shown.err

    out, err = call(run_dir, "--to", "trl", "--out", tmp_path / "a b", "--json")
    found = json.loads(out)
    assert (found["stack"], found["form"], found["samples"], found["differing"]) == ("trl", "text", 40, 0)
    assert set(found["files"]) == {"train.jsonl", "sft.yaml", "provenance.json"}
    assert err.startswith("note: TRL minimises")
    out, _ = call(run_dir, "--to", "trl", "--out", tmp_path / "a b", "--force")
    assert f"cd '{tmp_path}/a b' && trl sft --config sft.yaml" in out
    out, err = call(run_dir, "--to", "trl", "--out", tmp_path / "a b")
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_tiger_is_exported_as_token_ids(write_config: Callable[..., Path], tmp_path: Path, text_encoder: Path) -> None:
    from dealrec.engine.runner import run

    path = write_config(
        recommender="tiger",
        tiger={
            "codes": {"levels": 2, "codes": 4, "epochs": 5},
            "t5": {"d_model": 8, "heads": 2, "d_kv": 4, "d_ff": 8, "layers": 1},
            "max_epochs": 1,
            "text_encoder": str(text_encoder),
        },
        data={"warm_share": 0.5},
    )
    run(load(path), tmp_path / "run", stages_until(load(path), "export"), progress=Silent())
    own_lines = lines(tmp_path / "run" / "export" / "train.jsonl")
    assert rows(export(tmp_path / "run", to="jsonl")) == own_lines
    parquet = export(tmp_path / "run", to="parquet").folder / "train.parquet"
    assert pl.read_parquet(parquet).to_dicts() == own_lines
    datasets = pytest.importorskip("datasets")
    saved = export(tmp_path / "run", to="datasets").folder
    assert datasets.load_from_disk(str(saved)).to_list() == own_lines
    for stack in LLM_STACKS:
        with pytest.raises(DealrecError, match=r"recommender 'tiger'.*--to jsonl, --to parquet, --to datasets"):
            export(tmp_path / "run", to=stack)
    with pytest.raises(ConfigError, match="no form 'text'"):
        export(tmp_path / "run", to="jsonl", form="text")


@pytest.mark.parametrize(
    ("bfloat16", "sections", "weights", "mixed"),
    [
        (True, {}, "bfloat16", True),
        (True, {"llm": {"dtype": "float32"}}, "float32", False),
        (True, {"finetune": {"full": True}}, "float32", False),
        (False, {}, "float32", False),
        (False, {"llm": {"dtype": "bfloat16"}}, "bfloat16", False),
    ],
)
def test_a_stack_is_told_the_precision_of_our_own_fine_tuning(
    gpus: Callable[..., None], bfloat16: bool, sections: dict[str, Any], weights: str, mixed: bool
) -> None:
    gpus(1, bfloat16=bfloat16)
    handed: Any = SimpleNamespace(config=Config.model_validate(sections), samples=[])
    assert weights_dtype(handed) == weights
    assert common_settings(handed)["bf16"] == mixed
