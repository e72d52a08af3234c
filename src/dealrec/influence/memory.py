"""Memory of one batch's derivatives, found by taking them: what a formula cannot know of a model it has not seen."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dealrec.influence.hvp import Batch, Params, PerSampleLoss, batch_hessian_vector


def batch_memory(per_sample_loss: PerSampleLoss, params: Params, batch: Batch) -> int:
    """Peak bytes of one Hessian-vector product over `batch`, the batch itself and the parameters apart.

    A forward-mode pass needs less. Buffers inside an operation are not seen.
    """
    live = _LiveStorages()
    with live:
        batch_hessian_vector(per_sample_loss, params, batch, dict(params))
    return live.peak


class _LiveStorages(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, for as long as each lives."""

    def __init__(self) -> None:
        super().__init__()
        self.current: int = 0
        self.peak: int = 0
        self.storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        inputs = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(outputs):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage(), inputs)
        return outputs

    def _count(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        key = storage._cdata
        if key in self.storages or key in inputs:  # a view or an update in place
            return
        size = storage.nbytes()
        self.storages.add(key)
        self.current += size
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self.storages.discard(key)
        self.current -= size
