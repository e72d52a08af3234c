"""What exact ranks cost with TIGER: likely prefixes followed, against scoring every item, and against beam search.

    python benchmarks/target_ranks.py [--items 10000] [--users 4] [--epochs 2] [--out target_ranks.json]

Items have random codes in three levels of 64, and users walk from an item to a neighbour. The model is taken untrained,
which is the worst case as all ids are about equally likely, and after some epochs. The slow twin scores every item by
teacher forcing. Ratios are of processor time in the same process; ranks may differ where likelihoods tie in single
precision, and how many do is told.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from dealrec.recommenders.tiger import (
    SemanticIds,
    last_positions,
    make_semantic_ids,
    make_trie,
    new_model,
    positions,
    recommend,
    target_ranks,
    train,
)
from dealrec.recommenders.tiger.training import batch

SIZES: dict[str, Any] = {"d_model": 64, "heads": 2, "d_kv": 32, "d_ff": 256, "layers": 2, "dropout": 0.0}
CODES, LEVELS, LENGTH, BEAMS, PART = 64, 3, 11, 20, 256


def main() -> None:
    """Measure an untrained and a trained model, and show both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=2_000, help="to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(CODES, (options.items, LEVELS), generator=draw)
    ids = make_semantic_ids(codes, codes_per_level=CODES)
    starts = torch.rand(options.sequences, generator=draw).square() * options.items  # some items are more popular
    walks = ((starts.long().unsqueeze(1) + torch.arange(LENGTH)) % options.items).tolist()
    model = new_model(ids.vocab_size, **SIZES)
    users = last_positions(walks[: options.users])
    rows = [{"model": "untrained", **measured(model, ids, users)}]
    train(model, ids, positions(walks[options.users :]), None, max_epochs=options.epochs, warmup_steps=50)
    rows.append({"model": f"{options.epochs} epochs", **measured(model, ids, users)})
    result = {**vars(options), "out": None, "torch": torch.__version__, "machine": platform.machine(), "rows": rows}
    Console().print_json(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measured(model: Any, ids: SemanticIds, users: Any) -> dict[str, Any]:
    """Seconds of processor time a user by each way, and the ranks."""
    trie, inputs = make_trie(ids), batch(users, ids, torch.arange(len(users)), device=torch.device("cpu"))
    made: dict[str, Any] = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    targets = users.target_rows.tolist()
    fast, ranks = timed(lambda: target_ranks(model, trie, **made, targets=targets))
    slow, twins = timed(lambda: scored_one_by_one(model, ids, made, targets))
    beams, _ = timed(lambda: recommend(model, trie, **made, k=BEAMS, beams=BEAMS))
    n = len(users)
    times = {"fast": fast / n, "slow": slow / n, "beam_search": beams / n, "slow_over_fast": slow / fast}
    return {**times, "fast_over_beam_search": fast / beams, "ranks": ranks, "ranks_of_the_slow_twin": twins}


@torch.inference_mode()
def scored_one_by_one(model: Any, ids: SemanticIds, made: dict[str, Tensor], targets: list[int]) -> list[int]:
    """The slow twin: every item by teacher forcing, whatever its prefix is shared with."""
    ranks = []
    for user, target in enumerate(targets):
        scores = []
        for tokens in ids.tokens.split(PART):
            of_user = {name: part[user : user + 1].expand(len(tokens), -1) for name, part in made.items()}
            likely = model(**of_user, labels=tokens).logits.log_softmax(2)
            scores.append(likely.gather(2, tokens.unsqueeze(2)).sum((1, 2)))
        ranks.append(1 + int((torch.cat(scores) > scores[target // PART][target % PART]).sum()))
    return ranks


def timed(work: Callable[[], list[Any]]) -> tuple[float, list[Any]]:
    """Seconds of processor time, and what came out."""
    started = time.process_time()
    outcome = work()
    return time.process_time() - started, outcome


if __name__ == "__main__":
    main()
