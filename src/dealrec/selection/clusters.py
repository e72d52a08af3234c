"""Clusters of vectors, by k-means."""

import warnings

import torch
from torch import Tensor


def clusters_of(vectors: Tensor, number: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """k-means into at most `number` clusters: of each vector its cluster [n] and its distance from their mean [n].

    vectors: [n, d]. By mini-batches (Sculley, WWW 2010), which follow from the generator.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    model = MiniBatchKMeans(min(number, len(vectors)), random_state=seed, n_init=1)
    vectors = vectors.double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters: some stay empty
        labels = torch.from_numpy(model.fit_predict(vectors.numpy())).long()
    sums = vectors.new_zeros(model.n_clusters, vectors.shape[1]).index_add(0, labels, vectors)
    means = sums / labels.bincount(minlength=model.n_clusters).clamp_min(1).unsqueeze(1)
    return labels, (vectors - means[labels]).norm(dim=1)
