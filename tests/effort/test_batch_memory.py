"""Batches within a budget of memory: the fit, the choice, and the measured peak of what was chosen."""

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dealrec.config import Config
from dealrec.effort.memory import SLACK, PeakMemory, Size, batch_size_of, fit_peak, largest_batches, probes
from dealrec.engine.stage import Context, Silent
from dealrec.errors import ConfigError
from dealrec.sequences import Encoded, plan_batches
from dealrec.stages import effort as scoring

MEMORY = PeakMemory(fixed=1000.0, per_token=10.0, per_logit=100.0)


def sample(length: int, *, labelled: int) -> Encoded:
    tokens = list(range(1, length + 1))
    return Encoded(tokens, [-100] * (length - labelled) + tokens[length - labelled :])


def test_the_size_counts_padding_and_each_column_with_a_label() -> None:
    # Labels at places 3, 4 and 5, 6, 7: five columns for two samples of eight tokens each.
    assert batch_size_of([sample(5, labelled=2), sample(8, labelled=3)]) == Size(tokens=16, logits=2 * 5)


def test_the_first_token_of_a_decoder_is_predicted_from_nothing() -> None:
    assert batch_size_of([sample(4, labelled=4)]) == Size(tokens=4, logits=3)
    assert batch_size_of([Encoded([1, 2], [3, 4, 5])]) == Size(tokens=2, logits=3)


@pytest.mark.parametrize("longest", [sample(60, labelled=7), Encoded(list(range(1, 41)), [5, 6, 7, 8])])
def test_the_probes_tell_the_three_numbers_apart(longest: Encoded) -> None:
    sizes = [batch_size_of(batch) for batch in probes([sample(9, labelled=2), longest])]
    found = fit_peak(sizes, [round(MEMORY.of(size)) for size in sizes])
    assert (found.fixed, found.per_token, found.per_logit) == pytest.approx((1000, 10, 100), rel=1e-3)


def test_no_number_is_negative_where_the_measurements_are_noisy() -> None:
    sizes = [Size(10, 10), Size(40, 40), Size(20, 100)]
    found = fit_peak(sizes, [1000, 990, 1010])
    assert min(found.fixed, found.per_token, found.per_logit) >= 0


def test_the_largest_batches_that_fit() -> None:
    shard = [sample(10, labelled=1)] * 100
    # A sample adds 10 * 10 + 100 = 200 bytes. With 192 tokens a batch holds 19 of them, with 256 it would hold 25.
    wanted = 1000 + SLACK * 19 * 200
    tokens, expected = largest_batches([shard], MEMORY, budget=wanted + 1)
    assert tokens == 192
    assert expected == pytest.approx(wanted)
    assert largest_batches([shard], MEMORY, budget=wanted - 1)[0] == 128


def test_a_spread_of_label_columns_counts() -> None:
    alike, spread = [sample(20, labelled=2)] * 40, [sample(20 - i % 12, labelled=2) for i in range(40)]
    assert largest_batches([spread], MEMORY, budget=9000)[0] < largest_batches([alike], MEMORY, budget=9000)[0]


def test_every_batch_of_every_shard_fits() -> None:
    shards = [[sample(4 + (7 * i) % 30, labelled=1 + i % 4) for i in range(k, k + 50)] for k in (0, 3)]
    tokens, expected = largest_batches(shards, MEMORY, budget=30_000)
    for shard in shards:
        for batch in plan_batches([len(one.input_ids) for one in shard], batch_tokens=tokens):
            assert MEMORY.of(batch_size_of([shard[i] for i in batch])) <= expected <= 30_000


def test_where_nothing_fits_the_expected_peak_says_so() -> None:
    tokens, expected = largest_batches([[sample(10, labelled=1)]], MEMORY, budget=500)
    assert tokens == 1
    assert expected > 500


def test_a_budget_beyond_all_samples_ends_in_one_batch() -> None:
    shard = [sample(10, labelled=1)] * 7
    tokens, _ = largest_batches([shard], MEMORY, budget=10**12)
    assert len(plan_batches([10] * 7, batch_tokens=tokens)) == 1


class Saying(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def context(folder: Path, **effort: Any) -> Context:
    return Context("effort", Config.model_validate({"effort": effort}), Saying(), folder, folder, ())


@pytest.fixture(scope="module")
def recommender() -> Any:
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return SimpleNamespace(model=LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).eval(), pad_id=0)


SHARDS = [[sample(20 + i, labelled=3) for i in range(5)]]


def test_without_a_budget_the_settings_say_how_many_tokens(recommender: Any, tmp_path: Path) -> None:
    assert scoring.batch_tokens_for(context(tmp_path, batch_tokens=77), recommender, SHARDS) == 77


def test_the_choice_is_told_and_kept_for_a_run_that_is_resumed(
    recommender: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([0, 1000 * 2**20, 1300 * 2**20, 1200 * 2**20])  # the first is not looked at
    monkeypatch.setattr(scoring, "peak_memory_of", lambda _work, **_: next(peaks))
    first = context(tmp_path, batch_memory=1500)
    chosen = scoring.batch_tokens_for(first, recommender, SHARDS)
    assert first.facts["batch_tokens"] == chosen > 1
    assert isinstance(first.progress, Saying)
    assert f"batches of {chosen:,} tokens" in first.progress.said[0]
    # Nothing is left to measure with: the second answer comes from the file.
    assert scoring.batch_tokens_for(context(tmp_path, batch_memory=1500), recommender, SHARDS) == chosen


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux alone")
@pytest.mark.slow
def test_a_budget_below_one_sample_is_refused(recommender: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"effort.batch_memory is 1 MiB, but a single sample takes"):
        scoring.batch_tokens_for(context(tmp_path, batch_memory=1), recommender, SHARDS)


MEASURED = """
    import tempfile
    from pathlib import Path
    from types import SimpleNamespace

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from dealrec.config import Config
    from dealrec.effort import norms_and_losses
    from dealrec.sequences import Encoded, collate, plan_batches
    from dealrec.engine.measure import peak_memory_of
    from dealrec.stages.effort import MIB, batch_tokens_for
    from dealrec.engine.stage import Context, Silent

    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4000, **sizes)).eval()
    globs = ["*.q_proj.weight", "*.v_proj.weight"]
    samples = []
    for i in range(64):
        tokens = torch.randint(1, 4000, (90 + i % 30,)).tolist()
        samples.append(Encoded(tokens, [-100] * (len(tokens) - 5 - i % 6) + tokens[-5 - i % 6 :]))

    def peak(batch_tokens):
        plan = plan_batches([len(sample.input_ids) for sample in samples], batch_tokens=batch_tokens)
        batches = [collate([samples[i] for i in batch], pad_id=0) for batch in plan]
        return peak_memory_of(lambda: norms_and_losses(model, batches, parameters=globs), device=model.device)

    peak(1)
    budget = peak(1) // MIB + 150
    config = Config.model_validate({"effort": {"batch_memory": budget, "parameters": globs}})
    out = Path(tempfile.mkdtemp())
    context = Context("effort", config, Silent(), out, out, ())
    chosen = batch_tokens_for(context, SimpleNamespace(model=model, pad_id=0), [samples])
    print(chosen, peak(chosen) / MIB, budget, peak(64 * 120) / MIB)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux alone")
@pytest.mark.slow
def test_the_measured_peak_of_what_was_chosen_is_within_the_budget() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED)], capture_output=True, text=True, check=True, timeout=600
    )
    chosen, peak, budget, of_one_batch = map(float, done.stdout.split())
    assert chosen > 120  # more than one sample
    assert peak <= 1.05 * budget
    assert of_one_batch > budget  # the budget did bind
