"""What a method of selection is, and how one is called."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import polars as pl
import torch
from torch import Tensor

from dealrec.columns import OF_DATA, OF_RECOMMENDER, OF_SURROGATE, OF_TEXT, REASON, SAMPLE, SCORE
from dealrec.errors import ConfigError, DealrecError

SIGNALS = OF_DATA + OF_TEXT + OF_SURROGATE + OF_RECOMMENDER


@dataclass(frozen=True)
class Method:
    """A way to select samples.

    select: (signals, budget, generator, **options) -> sample_id, score, reason. signals: the columns that it reads
    beside sample_id. summary: one line, with the paper. options: with their defaults. of_validation: it selects among
    the validation samples. option_signals: what it reads besides, by option and value.
    """

    name: str
    select: Callable[..., pl.DataFrame]
    signals: tuple[str, ...]
    summary: str
    options: Mapping[str, Any]
    of_validation: bool = False
    option_signals: Mapping[str, Mapping[Any, tuple[str, ...]]] = field(default_factory=dict)

    def reads(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The signals that it reads with these options."""
        values = {**self.options, **options}
        more = (by_value.get(values.get(name), ()) for name, by_value in self.option_signals.items())
        return tuple(dict.fromkeys([*self.signals, *chain.from_iterable(more)]))


def method_of(name: str, module: Any) -> Method:
    """A module's method: its function `select`, its `SIGNALS`, and what it says of itself in its first line.

    Its `OPTION_SIGNALS`, if any, says which it reads besides: {option: {value: signals}}.

    Raises ConfigError where the module has another form, or asks for a signal that there is not.
    """
    select, signals = getattr(module, "select", None), getattr(module, "SIGNALS", None)
    if not callable(select) or not isinstance(signals, tuple | list):
        lacks = "a function select(signals, budget, generator)" if not callable(select) else "a tuple SIGNALS"
        raise ConfigError(f"The method {name} lacks {lacks}", "docs/guides/baseline.md has an example.")
    option_signals = getattr(module, "OPTION_SIGNALS", {})
    more = chain.from_iterable(names for by_value in option_signals.values() for names in by_value.values())
    for signal in (*signals, *more):
        if signal not in SIGNALS:
            near = nearest(str(signal), SIGNALS)
            hint = f"Did you mean {near}?" if near else f"There are: {', '.join(SIGNALS)}."
            raise ConfigError(f"The method {name} reads a signal {signal!r} that there is not", hint)
    parameters = inspect.signature(select).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "valid"}
    summary = (inspect.getdoc(module) or "").partition("\n")[0]
    of_validation = getattr(module, "CANDIDATES", "train") == "valid"
    return Method(name, select, tuple(signals), summary, options, of_validation, option_signals)


def chosen(
    method: Method,
    signals: pl.DataFrame,
    budget: int,
    generator: torch.Generator,
    *,
    options: Mapping[str, Any] | None = None,
    valid: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """What a method selects: sample_id, score, reason; exactly min(budget, n) rows.

    signals: sample_id and the method's signals, a row a candidate. valid: the same of the validation samples, of those
    signals that follow from the data or the titles; handed over where the function asks for it. Raises ConfigError for
    an option that the method has not, and DealrecError, which names the method, where it fails or returns something
    else.
    """
    given = dict(options or {})
    for name in given:
        if name not in method.options:
            known = f"It has: {', '.join(method.options)}." if method.options else "It has none."
            raise ConfigError(f"The method {method.name} has no option {name!r}", known)
    if "valid" in inspect.signature(method.select).parameters:
        given["valid"] = valid
    wanted = min(budget, len(signals))
    try:
        rows = method.select(signals, wanted, generator, **given)
    except DealrecError as error:
        raise type(error)(f"{method.name}: {error.cause}", error.remedy) from error
    except Exception as error:  # whatever a user's code raises
        raise DealrecError(
            f"The method {method.name} failed with {type(error).__name__}: {error}", "Mend it, or choose another."
        ) from error
    return _checked(method.name, rows, signals, wanted)


def _checked(name: str, rows: Any, signals: pl.DataFrame, wanted: int) -> pl.DataFrame:
    """The rows, typed. Raises DealrecError for what is no selection of the candidates."""
    missing = [column for column in (SAMPLE, SCORE, REASON) if column not in getattr(rows, "columns", ())]
    if missing:
        raise _fault(name, f"returned no table with {', '.join(missing)}")
    types = {SAMPLE: pl.Int64, SCORE: pl.Float64, REASON: pl.String}
    try:
        table: pl.DataFrame = rows.select(pl.col(column).cast(kind) for column, kind in types.items())
    except pl.exceptions.PolarsError:
        raise _fault(name, "returned columns of other types than integers, numbers and texts") from None
    foreign = table.join(signals, on=SAMPLE, how="anti")[SAMPLE]
    if len(foreign):
        raise _fault(name, f"returned ids that are no candidates, such as {foreign[0]}")
    if table[SAMPLE].n_unique() < len(table):
        raise _fault(name, f"returned an id twice, {table.filter(pl.col(SAMPLE).is_duplicated())[SAMPLE][0]}")
    if len(table) != wanted:
        raise _fault(name, f"returned {len(table):,} samples instead of {wanted:,}")
    if not table[SCORE].is_finite().all() or table[SCORE].null_count():
        raise _fault(name, "returned a score that is NaN, infinite or null")
    return table


def _fault(name: str, what: str) -> DealrecError:
    return DealrecError(f"The method {name} {what}", "Mend it, or choose another: dealrec methods.")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that may have been meant."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return near[0] if near else None


def selection(signals: pl.DataFrame, rows: Tensor, scores: Tensor, reason: str | list[str]) -> pl.DataFrame:
    """The rows of a table of signals as a method returns them. scores: [n], of all rows of the table."""
    reasons = [reason] * len(rows) if isinstance(reason, str) else reason
    columns_ = {SCORE: scores[rows].double().numpy(), REASON: pl.Series(reasons, dtype=pl.String)}
    return pl.DataFrame({SAMPLE: signals[SAMPLE].gather(rows.numpy()), **columns_})


def top(scores: Tensor, budget: int) -> Tensor:
    """Indices of the highest scores, the best first; of equal ones the lower index first."""
    return scores.double().argsort(descending=True, stable=True)[:budget]
