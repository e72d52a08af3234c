"""Speed of exact gradient norms of single samples: ratios of two things timed in one run.

    python benchmarks/effort.py [--samples 32] [--loop 6] [--threads 2] [--peer] [--out effort.json]

SmolLM2-135M (fetched once, or a local model by --model) with LoRA of rank 8 on q_proj and v_proj, on random tokens as
long as the demo's prompts: about 150, of which 4 to 16 are labels, in batches of at most --batch-tokens. Timed:
- norms over all adapters against a plain batched forward and backward pass over the same batches;
- norms over the adapters of the last layers against a plain forward pass;
- norms over all adapters against a loop of batches of one (on --loop samples, scaled up), against
  torch.func.vmap(grad), and with --peer against Opacus' ghost clipping in an environment of its own.
Both sides of a ratio take turns; a time is the fastest of --repeats. Ratios of processor time are given beside those of
wall time: other programs on the machine disturb them less. All ways must give the same norms.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peers import Failed, Peer, environment, run  # type: ignore[import-not-found]
from platformdirs import user_cache_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import functional_call, grad, vmap
from transformers import AutoModelForCausalLM

from dealrec.demo.assets import SMOLLM, fetch
from dealrec.effort import gradient_norms
from dealrec.engine.stage import Silent
from dealrec.sequences import Encoded, collate, plan_batches, sequence_losses

Batches = list[dict[str, Tensor]]
HERE = Path(__file__).resolve().parent / "peers"
OPACUS = f"opacus==1.6.0 transformers=={transformers.__version__} peft=={peft.__version__}"


@dataclass(frozen=True)
class Timed:
    """The fastest of several runs, and what the last one gave."""

    wall: float
    processor: float
    result: Any


def main() -> None:
    """Time everything and show the ratios."""
    options = arguments()
    torch.set_num_threads(options.threads)
    folder = options.model or fetch(progress=Silent()) / SMOLLM
    model = adapted(folder)
    batches = drawn_batches(options.samples, batch_tokens=options.batch_tokens, vocabulary=model.config.vocab_size)
    result: dict[str, Any] = {
        "samples": options.samples,
        "tokens": sum(int(batch["attention_mask"].sum()) for batch in batches),
        "threads": options.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "machine": platform.machine(),
        "rows": [],
    }
    rows: list[dict[str, Any]] = result["rows"]
    norms = all_adapters(model, batches, rows, repeats=options.repeats)
    last_layers(model, batches, rows, layers=options.layers, repeats=options.repeats)
    loop(model, batches, rows, norms, count=options.loop)
    vmapped(folder, batches, rows, norms)
    if options.peer:
        opacus(folder, batches, rows, norms, options)
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, default=1536)
    parser.add_argument("--layers", type=int, default=2, help="how many layers count as the last ones")
    parser.add_argument("--loop", type=int, default=6, help="samples that the loop is timed on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a directory in Hugging Face format")
    parser.add_argument("--peer", action="store_true", help="compare with Opacus")
    parser.add_argument("--cache", type=Path, default=Path(user_cache_dir("dealrec")) / "peers")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def adapted(folder: Path, *, attention: str = "sdpa") -> Any:
    """The model with a random adapter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    settings = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return peft.get_peft_model(model, settings).eval()


def drawn_batches(samples: int, *, batch_tokens: int, vocabulary: int) -> Batches:
    """Random tokens, of the demo's lengths."""
    generator = torch.Generator().manual_seed(1)
    lengths = (torch.randn(samples, generator=generator) * 25 + 150).long().clamp(60, 250).tolist()
    labels = torch.randint(4, 17, (samples,), generator=generator).tolist()
    encoded = []
    for length, labelled in zip(lengths, labels, strict=True):
        tokens = torch.randint(1, vocabulary, (length,), generator=generator).tolist()
        encoded.append(Encoded(tokens, [-100] * (length - labelled) + tokens[length - labelled :]))
    plan = plan_batches(lengths, batch_tokens=batch_tokens)
    return [collate([encoded[i] for i in index], pad_id=0) for index in plan]


def all_adapters(model: Any, batches: Batches, rows: list[dict[str, Any]], *, repeats: int) -> Timed:
    """Norms against a forward and backward pass."""
    ours, theirs = in_turns(lambda: gradient_norms(model, batches), lambda: passes(model, batches), repeats)
    rows.append(row("all adapters", "forward and backward pass", ours, theirs, cost=True))
    return ours


def last_layers(model: Any, batches: Batches, rows: list[dict[str, Any]], *, layers: int, repeats: int) -> None:
    """Norms against a forward pass."""
    depth = model.config.num_hidden_layers
    globs = [f"*.layers.{i}.*lora_*" for i in range(depth - layers, depth)]
    ours, theirs = in_turns(
        lambda: gradient_norms(model, batches, parameters=globs), lambda: forward_passes(model, batches), repeats
    )
    rows.append(row(f"last {layers} layers", "forward pass", ours, theirs, cost=True))


def loop(model: Any, batches: Batches, rows: list[dict[str, Any]], ours: Timed, *, count: int) -> None:
    """A plain backward pass a sample, on some samples from all over the plan."""
    singles = [single(batch, i) for batch in batches for i in range(len(batch["labels"]))]
    some = list(range(0, len(singles), max(1, len(singles) // count)))
    plain = timed(lambda: torch.stack([one_norm(model, singles[i]) for i in some]))
    tokens = [batch["labels"].numel() for batch in singles]
    scale = sum(tokens) / sum(tokens[i] for i in some)
    scaled = Timed(plain.wall * scale, plain.processor * scale, plain.result)
    rows.append(
        row("all adapters", "loop of batches of one", ours, scaled, difference(plain.result, ours.result[some]))
    )


def vmapped(folder: Path, batches: Batches, rows: list[dict[str, Any]], ours: Timed) -> None:
    """torch.func: per-sample gradients written out. It needs attention that is not fused."""
    model = adapted(folder, attention="eager")
    params = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def loss(params: dict[str, Tensor], ids: Tensor, mask: Tensor, labels: Tensor, columns: Tensor) -> Tensor:
        # A mask of four dimensions is taken as it is; one of two is looked into, which vmap cannot do.
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril() & mask.bool()
        masked = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
        inputs = {"input_ids": ids.unsqueeze(0), "attention_mask": masked, "use_cache": False}
        logits = functional_call(model, params, (), inputs | {"logits_to_keep": columns}).logits[0]
        own = labels[1:].index_select(0, columns)
        losses = torch.nn.functional.cross_entropy(logits, own.clamp_min(0), reduction="none")
        return (losses * (own >= 0)).sum() / (own >= 0).sum()

    def norms() -> Tensor:
        norms_of_batches = []
        for batch in batches:
            columns = (batch["labels"][:, 1:] >= 0).any(0).nonzero().flatten()
            gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0, None))(
                params, batch["input_ids"], batch["attention_mask"], batch["labels"], columns
            )
            norms_of_batches.append(
                torch.stack([value.flatten(1).square().sum(1) for value in gradients.values()]).sum(0).sqrt()
            )
        return torch.cat(norms_of_batches)

    try:
        theirs = timed(norms)
    except (RuntimeError, ValueError, TypeError) as error:
        rows.append({"what": "all adapters", "against": "torch.func.vmap(grad)", "error": str(error).split("\n")[0]})
        return
    rows.append(row("all adapters", "torch.func.vmap(grad)", ours, theirs, difference(theirs.result, ours.result)))


def opacus(
    folder: Path, batches: Batches, rows: list[dict[str, Any]], ours: Timed, options: argparse.Namespace
) -> None:
    """Ghost clipping on the same model and batches, in a process of its own."""
    peer = Peer("opacus", OPACUS, "ghost clipping", "", "")
    with tempfile.TemporaryDirectory() as scratch:
        task, stem = Path(scratch) / "task.pt", Path(scratch) / "result"
        adapter = {name: value for name, value in adapted(folder).state_dict().items() if "lora_" in name}
        torch.save({"batches": batches, "adapter": adapter}, task)
        try:
            python = environment(peer, options.cache)
            run(python, HERE / "run_opacus.py", folder, task, stem, options.repeats, threads=options.threads)
        except Failed as error:
            rows.append({"what": "all adapters", "against": "Opacus", "error": str(error)})
            return
        facts, norms = json.loads(stem.with_suffix(".json").read_text()), torch.load(stem.with_suffix(".pt"))
    theirs = Timed(facts["seconds"], facts["processor_seconds"], norms)
    rows.append(
        row("all adapters", f"Opacus {facts['version']} ghost clipping", ours, theirs, difference(norms, ours.result))
    )


def passes(model: Any, batches: Batches) -> None:
    """Forward and backward over all batches, the adapter's gradients accumulated."""
    model.zero_grad()
    for batch in batches:
        sequence_losses(model, batch).sum().backward()


def forward_passes(model: Any, batches: Batches) -> None:
    """The losses alone."""
    with torch.no_grad():
        for batch in batches:
            sequence_losses(model, batch)


def one_norm(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The norm of one sample's gradient, from the gradient."""
    chosen = [value for value in model.parameters() if value.requires_grad]
    gradients = torch.autograd.grad(sequence_losses(model, batch)[0], chosen)
    return torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()


def single(batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """One sample of a batch, without padding."""
    length = int(batch["attention_mask"][index].sum())
    return {name: value[index : index + 1, :length] for name, value in batch.items()}


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> tuple[Timed, Timed]:
    """Both timed, one after the other again and again, so that a busy machine disturbs both."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return fastest(first), fastest(second)


def fastest(runs: list[Timed]) -> Timed:
    """The least of each."""
    return Timed(min(r.wall for r in runs), min(r.processor for r in runs), runs[-1].result)


def timed(work: Callable[[], Any]) -> Timed:
    """One run."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return Timed(time.perf_counter() - wall, time.process_time() - processor, result)


def difference(theirs: Tensor, ours: Tensor) -> float:
    """The largest, by the norm."""
    return float(((theirs - ours).abs() / ours).max())


def row(
    what: str, against: str, ours: Timed, theirs: Timed, difference: float | None = None, *, cost: bool = False
) -> dict[str, Any]:
    """cost: our time by theirs; else theirs by ours."""
    pairs = {"wall": (theirs.wall, ours.wall), "processor": (theirs.processor, ours.processor)}
    ratios = {name: b / a if cost else a / b for name, (a, b) in pairs.items()}
    measured = "cost relative to it" if cost else "times faster"
    seconds = {"seconds": ours.wall, "their_seconds": theirs.wall}
    return {"what": what, "against": against, "measured": measured, **ratios, **seconds, "difference": difference}


def show(result: dict[str, Any]) -> None:
    """Every ratio in a row."""
    title = f"{result['samples']} samples, {result['tokens']:,} tokens, {result['threads']} threads"
    table = Table("norms over", "against", "measured", "wall", "processor", "largest difference", title=title)
    for row in result["rows"]:
        if "error" in row:
            table.add_row(row["what"], row["against"], f"failed: {row['error']}", *"---")
            continue
        apart = "-" if row["difference"] is None else f"{row['difference']:.1e}"
        table.add_row(
            row["what"],
            row["against"],
            row["measured"],
            f"{row['wall']:.2f}",
            f"{row['processor']:.2f}",
            apart,
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
