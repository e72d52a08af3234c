"""The embeddings of a catalogue on disk, in blocks, so that no more than one is held."""

from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from dealrec.recommenders.protocol import Watch

BLOCK = 4096  # items; of 4,096 numbers each, 64 MB


class Blocks:
    """Embeddings [b, D] block by block, in the order of the catalogue, each read when its turn comes."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[Tensor]:
        return (load_file(path)["items"] for path in self.paths)


def write_blocks(
    folder: Path, embed: Callable[[list[int]], Tensor], *, items: int, block: int = BLOCK, watch: Watch = iter
) -> Blocks:
    """Embeddings of the rows 0 ... items - 1, a file a block. What an interrupted call has written is kept.

    embed: the embeddings of some rows. watch: shows progress.
    """
    folder.mkdir(exist_ok=True)
    paths = []
    for rows in watch([list(range(start, min(start + block, items))) for start in range(0, items, block)]):
        path = folder / f"{rows[0]:09d}-{rows[-1]:09d}.safetensors"
        if not path.exists():
            staging = path.with_suffix(".tmp")
            save_file({"items": embed(rows)}, staging)
            staging.rename(path)
        paths.append(path)
    return Blocks(paths)
