"""What items are about: their titles as sentence embeddings."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def embed_texts(encoder: Any, texts: Sequence[str], *, batch_size: int = 32) -> Tensor:
    """Sentence embeddings, pooled as the encoder's own modules say, at length 1: [n, D], float32, on the CPU.

    encoder: a SentenceTransformer, as `load_text_encoder` makes it; what is beyond its max_seq_length is cut.
    batch_size: texts alike in length that go through it together. Length 1 whatever the modules say of it, as the
    loss of the codes depends on the scale, while what texts share is in the direction.
    """
    embeddings: Tensor = encoder.encode(
        list(texts),
        batch_size=batch_size,
        show_progress_bar=False,
        convert_to_tensor=True,
        normalize_embeddings=True,
    )
    return embeddings.float().cpu()
