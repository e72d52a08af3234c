"""SHA-256 of files. That of a large file is kept: while it stands as it is, no later command reads it again."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from dealrec.errors import DataError

LARGE = 2**25  # bytes; what is smaller is read again by every process
SETTLED = 2 * 10**9  # nanoseconds; a file younger than the clock of a file system is fine may change unseen
MOST = 10_000  # files that are remembered
_known: dict[str, str] = {}  # to this process
clock = time.time_ns


def file_hash(path: Path, *, kept: bool = True) -> str:
    """SHA-256 of a file. Raises DataError if it cannot be read.

    A file of the same device, inode, size, and times of its content and of its entry is not read a second time, unless
    what is kept is not wanted. One that changed less than two seconds ago, or in the future, is always read.
    """
    try:
        stat = path.stat()
        key = f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
        settled = clock() - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED
        large = stat.st_size >= LARGE
        if kept and settled and key not in _known and large:
            _known.update(_kept())
        if kept and settled and key in _known:
            return _known[key]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})", "Check the path and its permissions.") from None
    if settled:
        _known[key] = digest
        if large:
            _keep(key, digest)
    return digest


def _place() -> Path:
    return user_cache_path("dealrec") / "hashes.json"


def _kept() -> dict[str, str]:
    try:
        return {str(key): str(digest) for key, digest in json.loads(_place().read_bytes()).items()}
    except (OSError, ValueError, AttributeError):  # none yet, or damaged: files are read again
        return {}


def _keep(key: str, digest: str) -> None:
    """Remember it. What two processes write at once may be lost, and is then read again; so where nothing can be."""
    newest = [*(_kept() | {key: digest}).items()][-MOST:]
    staging = _place().with_name(f"hashes-{os.getpid()}.tmp")
    with suppress(OSError):
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.write_text(json.dumps(dict(newest)))
        staging.replace(_place())
