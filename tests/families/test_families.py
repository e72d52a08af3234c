"""The whole path with an LLM of each family: validate, scores, fine-tuning, reload, evaluation, every export.

What is found stands in docs/families.md, a row a case, and has to stand there as it is found: make families.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig

from dealrec.config.files import load
from dealrec.data.catalogue import pairs
from dealrec.engine.run_directory import read_table
from dealrec.engine.runner import run
from dealrec.engine.stage import Context, Silent
from dealrec.exporting import Exported, export
from dealrec.exporting.folder import FORMS, STACKS, TRAINERS
from dealrec.recommenders.bigrec import BIGRec
from dealrec.recommenders.bigrec.checks import has_learnt_positions
from dealrec.recommenders.bigrec.generation import title_of
from dealrec.sequences import collate, sequence_losses
from dealrec.stages.pipeline import stages_until
from dealrec.stages.recommenders import bigrec
from tests.conftest import Cli, write_small_config
from tests.families.made import CASES, Case

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
WRITE = "DEALREC_WRITE_FAMILIES"
NOT_MADE = {("llamafactory", "messages"), ("axolotl", "messages")}  # which the stacks cannot be given
COLUMNS = ("tied", "pad", "BOS", "EOS", "chat", "shards", "fused", "window", "limit", "learnt", "result", "text")
RULE = "|---" * (len(COLUMNS) + 1) + "|\n"
FUSED = {"c_attn", "query_key_value", "qkv_proj"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_whole_path_and_the_row_of_the_table(name: str, cli: Cli, tmp_path: Path) -> None:
    case = CASES[name]
    folder = case.save(tmp_path / "llm")
    path = written_config(tmp_path / "config", folder, case)
    status, _, said = cli("validate", path)
    if status:
        assert status == 2
        assert not (tmp_path / "run").exists()
        cells = features(case, folder) | {"result": said.splitlines()[-1].removeprefix("error: ")}
    else:
        run(load(path), tmp_path / "run", stages_until(load(path), "evaluate"), progress=Silent())
        cells = features(case, folder) | {"result": "yes"} | told(tmp_path / "run", folder)
    require_row(name, {**cells, "result": cells["result"].replace(f" {str(folder)!r}", "")})


def written_config(folder: Path, llm: Path, case: Case) -> Path:
    """Settings under which every signal of an LLM is taken but alignment, prompts longer than the windows."""
    targets = {} if case.targets is None else {"target_modules": case.targets}
    return write_small_config(
        folder,
        llm,
        users=16,
        llm={
            "model": str(llm),
            "lora": {"r": 2, **targets},
            "prompt": {"max_items": 3, "template": "Bought: {history}\nNext:\n", **case.prompt},
        },
        select={"budget": 6, "strata": 4, "random_arms": 0, "arms": {"drop": {"method": "loss-drop"}}},
        finetune={"epochs": 1, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01, "full": case.full},
    )


def features(case: Case, folder: Path) -> dict[str, str]:
    """What of the model and its tokenizer the path has to cope with, as it is found in them."""
    tokenizer = case.words.made()
    plain, full = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    model = loaded(folder)
    settings = model.config.get_text_config().to_dict()
    ends = {module_name.rpartition(".")[2] for module_name, _ in model.named_modules()}
    head = model.get_output_embeddings()
    there = {
        "tied": head is not None and head.weight is model.get_input_embeddings().weight,
        "pad": tokenizer.pad_token_id is not None,
        "BOS": full[0] != plain[0],
        "EOS": full[-1] != plain[-1],
        "chat": case.prompt.get("chat", False),
        "shards": len(list(folder.glob("model-*.safetensors"))) > 1,
        "fused": bool(ends & FUSED),
        "window": isinstance(settings.get("sliding_window"), int) and settings.get("use_sliding_window", True),
        "limit": has_learnt_positions(model),
    }
    return {key: "yes" if value else "" for key, value in there.items()}


def loaded(folder: Path) -> Any:
    """The model, of whatever kind it is."""
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder)


def told(run_dir: Path, folder: Path) -> dict[str, str]:
    """Check what the run left, and what is to be said of it in the table."""
    config = load(run_dir.parent / "config" / "config.yaml")
    context = Context("test", config, Silent(), run_dir, run_dir, ("data", "warmstart"))
    require_efforts(context)
    drops = pl.read_parquet(run_dir / "loss_drop" / "scores.parquet")
    assert drops["loss_drop"].is_finite().all()
    assert drops["loss_drop"].abs().min() > 0  # type: ignore[operator]
    require_evaluated(context)
    learnt = (
        sorted(json.loads((run_dir / "finetune" / "selected" / "adapter_config.json").read_text())["target_modules"])
        if not config.finetune.full
        else ["all"]
    )
    return {
        "learnt": ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in learnt)),
        "text": require_exports(run_dir, context),
    }


def require_efforts(context: Context) -> None:
    """Norms and losses of the stage are those of autograd, one sample at a time."""
    details = pl.read_parquet(context.run_dir / "effort" / "details.parquet").sort("sample_id")
    table = read_table(context.run_dir / "data" / "samples-train.parquet").join(details, on="sample_id")
    recommender = bigrec.start(context)
    recommender.model.eval()
    chosen = [value for value in recommender.model.parameters() if value.requires_grad]
    norms, losses = [], []
    for history, target in pairs(table):
        batch = collate([recommender.encode(history, target)], pad_id=recommender.pad_id)
        loss = sequence_losses(recommender.model, batch)[0]
        norms.append(norm(torch.autograd.grad(loss, chosen, allow_unused=True)))
        losses.append(float(loss.detach()))
    assert table["norm"].to_list() == pytest.approx(norms, rel=2e-4)
    assert table["loss"].to_list() == pytest.approx(losses, rel=1e-4)
    assert min(norms) > 0


def norm(gradients: tuple[Tensor | None, ...]) -> float:
    return float(sum(value.double().square().sum() for value in gradients if value is not None) ** 0.5)


def require_evaluated(context: Context) -> None:
    """What was fine-tuned, loaded again, answers one prompt at a time as the run found for all together."""
    users, base = (
        pl.read_parquet(context.run_dir / "evaluate" / arm / "per_user.parquet") for arm in ("selected", "base")
    )
    assert users["loss"].drop_nulls().is_finite().all()
    assert users["loss"].to_list() != base["loss"].to_list()
    recommender = bigrec.fine_tuned(context, context.run_dir / "finetune" / "selected")
    test = read_table(context.run_dir / "data" / "samples-test.parquet").join(users, on="user_id")
    losses, titles = [], []
    for history, target in pairs(test):
        sample = recommender.encode(history, target)
        with torch.no_grad():
            losses.append(float(sequence_losses(recommender.model, collate([sample], pad_id=recommender.pad_id))[0]))
        titles.append(written(recommender, recommender.prompter.encode_prompt(history)))
    assert test["loss"].to_list() == pytest.approx(losses, rel=1e-3)
    ranked = test["generated"].is_not_null()
    assert ranked.sum() == context.config.evaluate.ranking_users
    assert test["generated"].filter(ranked).to_list() == [
        title for title, there in zip(titles, ranked, strict=True) if there
    ]


def written(recommender: BIGRec, prompt: list[int]) -> str:
    """What transformers itself generates after one prompt, without a cache of ours and without padding."""
    tokenizer, settings = recommender.tokenizer, {"num_beams": 2, "do_sample": False, "max_new_tokens": 6}
    ids, ends = torch.tensor([prompt]), {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": recommender.pad_id}
    config = GenerationConfig(early_stopping=True, **settings, **ends)
    row = recommender.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)[0]
    return title_of(tokenizer.decode(row[len(prompt) :], skip_special_tokens=True))


def require_exports(run_dir: Path, context: Context) -> str:
    """Every stack in every form; of how many of which samples the text is read as other tokens, in words."""
    made = {
        (stack, form): export(run_dir, to=stack, form=form, out=run_dir.parent / f"{stack}-{form}")
        for stack in STACKS
        for form in FORMS
        if (stack, form) not in NOT_MADE
    }
    own = [{"input_ids": s.tokens.input_ids, "labels": s.tokens.labels} for s in encoded(context)]
    assert rows(made["jsonl", "tokens"]) == rows(made["trl", "tokens"]) == own
    differing = [stack for stack in TRAINERS if made[stack, "text"].differing]
    assert made["trl", "messages"].differing == 0 or "trl" in differing
    assert all(each.differing == 0 for (_, form), each in made.items() if form == "tokens")
    names = {"trl": "TRL", "llamafactory": "LLaMA-Factory", "axolotl": "axolotl"}
    return "not for " + ", ".join(names[stack] for stack in differing) if differing else "yes"


def encoded(context: Context) -> list[Any]:
    chosen = pl.read_parquet(context.run_dir / "select" / "selected.parquet").sort("rank")
    samples = read_table(context.run_dir / "data" / "samples-train.parquet")
    return bigrec.encoded(context, chosen.join(samples, on="sample_id", how="left", maintain_order="left"))


def rows(made: Exported) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made.folder / "train.jsonl").read_text().splitlines()]


def require_row(name: str, cells: Mapping[str, str]) -> None:
    """The row stands in the page; with DEALREC_WRITE_FAMILIES it is put there."""
    page, line = PAGE.read_text(), f"| {name} | " + " | ".join(cells.get(key, "") for key in COLUMNS) + " |"
    if os.environ.get(WRITE):
        before, rule, after = page.partition(RULE)
        table, _, rest = after.partition("\n\n")
        lines = {case_of(each): each for each in table.splitlines()} | {name: line}
        PAGE.write_text(before + rule + "\n".join(lines[case] for case in CASES if case in lines) + f"\n\n{rest}")
    else:
        assert line in page.splitlines(), "write it anew with: make families"


def case_of(line: str) -> str:
    return line.removeprefix("| ").partition(" | ")[0]


def test_the_table_has_the_cases_and_no_others() -> None:
    table = PAGE.read_text().partition(RULE)[2].partition("\n\n")[0]
    assert [case_of(line) for line in table.splitlines()] == list(CASES)
