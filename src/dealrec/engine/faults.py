"""What a machine refuses, by whichever library met it: room on the disk, and memory."""

import errno

from dealrec.errors import first_line

LESS_MEMORY = "Use smaller batches (micro_batch_size, batch_tokens) or fewer workers, and run again"
_REFUSALS = {
    errno.ENOSPC: "No space left on device",
    errno.EDQUOT: "Disk quota exceeded",
    errno.EFBIG: "File too large",
    errno.EROFS: "Read-only file system",
}
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def no_space(error: BaseException | None) -> str | None:
    """Why the disk refused, if that is what is at the bottom of `error`; not every library keeps the errno."""
    while error is not None:
        number = getattr(error, "errno", None)
        for code, reason in _REFUSALS.items():
            if number == code or reason in str(error) or f"os error {int(code)})" in str(error):
                return reason
        error = error.__cause__ or error.__context__
    return None


def no_memory(error: BaseException | None) -> str | None:
    """What an allocator said, if that is what is at the bottom of `error`: of Python, of torch, or of a GPU."""
    while error is not None:
        if isinstance(error, MemoryError):
            return f"out of memory ({first_line(error)})" if str(error) else "out of memory"
        if isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _NO_MEMORY):
            return f"out of memory ({first_line(error).partition('. GPU')[0].strip('. ')})"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
