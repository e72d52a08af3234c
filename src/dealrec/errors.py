"""What can go wrong, and what to do about it.

Every error that a user can mend carries a cause and a remedy; the command line prints them on one
line and exits with status 2. Anything else is a fault of ours and exits with status 1.
"""

from collections.abc import Sequence

from dealrec.formats import harmless


def first_line(error: BaseException) -> str:
    """What an error of another's says, in a line: the first, and the second where the first announces it."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    return f"{first} {rest[0].strip()}" if rest and first.endswith(":") else first


class DealrecError(Exception):
    """Base of the errors that a user can mend.

    They name what stands in files and settings, so what a terminal would act on is escaped; one_line: line ends too.
    """

    one_line = False

    def __init__(self, cause: str, remedy: str) -> None:
        self.cause, self.remedy = (harmless(text, one_line=self.one_line) for text in (cause, remedy))
        super().__init__(self.cause, self.remedy)

    def __str__(self) -> str:
        return f"{self.cause.rstrip('.')}. {self.remedy}"


class ConfigError(DealrecError):
    """A setting is unknown, of the wrong type or outside its range."""

    one_line = True


class DataError(DealrecError):
    """An input file is missing, unreadable, or does not hold what the settings promise."""

    one_line = True


class ModelError(DealrecError):
    """A model cannot be loaded, or cannot be used for what was asked."""

    one_line = True


class NotConverged(DealrecError):
    """A solver ended with a residual above its tolerance, or met a matrix it cannot handle."""


class NonFinite(DealrecError):
    """NaN or infinity where a score or a loss was expected; positions: where, in the order of the batches."""

    def __init__(self, cause: str, remedy: str, *, positions: Sequence[int] = ()) -> None:
        super().__init__(cause, remedy)
        self.positions = tuple(positions)

    def naming(self, ids: Sequence[object]) -> "NonFinite":
        """The same error with the ids of the first samples; ids: of all samples, in the order of the batches."""
        if not self.positions:
            return self
        first = ", ".join(str(ids[place]) for place in self.positions[:5])
        return NonFinite(f"{self.cause} (sample_id {first})", self.remedy)


class RunDirectoryError(DealrecError):
    """The run directory is in use, incomplete, or cannot be written to."""

    one_line = True
