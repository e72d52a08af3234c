"""What a machine refuses, by whichever library met it: room on the disk, and memory."""

import errno
from collections.abc import Iterator

from dealrec.errors import first_line

LESS_MEMORY = "Use smaller batches (micro_batch_size, batch_tokens) or fewer workers, and run again"
_REFUSALS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
    errno.EROFS: "Read-only file system",
}
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def no_space(error: BaseException) -> str | None:
    """Why the disk refused, if that is what is at the bottom of `error`; not every library keeps the errno."""
    for cause in _causes(error):
        number = getattr(cause, "errno", None)
        for code, reason in _REFUSALS.items():
            if number == code or reason in str(cause) or f"os error {int(code)})" in str(cause):
                return reason
    return None


def no_memory(error: BaseException) -> str | None:
    """What an allocator said, if that is what is at the bottom of `error`: of Python, of torch, or of a GPU."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return f"out of memory ({first_line(cause)})" if str(cause) else "out of memory"
        if isinstance(cause, RuntimeError | OSError) and any(words in str(cause) for words in _NO_MEMORY):
            return f"out of memory ({first_line(cause).partition('. GPU')[0].strip('. ')})"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those that it was raised from or while handling, to the first of them."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
