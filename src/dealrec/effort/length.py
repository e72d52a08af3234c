"""Effort and the number of label tokens.

A sample's loss is the mean over its L label tokens, so its gradient is g = (1/L) sum_t g_t. Were the tokens' gradients
of one size s and orthogonal, ||g|| would be s L^(-1/2): long targets look easy, however hard their tokens are. Were
they parallel, ||g|| would be s, whatever L. In general ||g|| = s L^(-b), where b between 0 and 1/2 says how alike the
tokens of a sample pull, and ||g|| L^b is free of length. The exponent can be given (0: the paper's mean; 1/2:
orthogonal tokens; 1: the gradient of the summed loss) or fitted to the samples themselves.
"""

from torch import Tensor


def correct_length(norms: Tensor, tokens: Tensor, *, exponent: float) -> Tensor:
    """norms * tokens^exponent: [n], float64.

    norms: gradient norms of the mean loss per token, [n]. tokens: label tokens of each sample, [n], at least 1.

    >>> import torch
    >>> correct_length(torch.tensor([2.0, 1.0]), torch.tensor([1, 4]), exponent=0.5).tolist()
    [2.0, 2.0]
    """
    _require_counts(norms, tokens)
    return norms.double() * tokens.double() ** exponent


def fitted_exponent(norms: Tensor, tokens: Tensor) -> float:
    """b of norm ~ s tokens^(-b), by least squares on the logarithms; 0 where all samples have one length.

    `correct_length` with it leaves a score whose logarithm is uncorrelated with that of the length. Samples whose
    norm is 0 say nothing about b and are left out.
    """
    _require_counts(norms, tokens)
    used = norms > 0
    x, y = tokens[used].double().log(), norms[used].double().log()
    if len(x) < 2 or bool((x == x[0]).all()):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(-(x @ y) / (x @ x))


def _require_counts(norms: Tensor, tokens: Tensor) -> None:
    if norms.shape != tokens.shape:
        raise ValueError(f"{list(norms.shape)} norms, but {list(tokens.shape)} token counts")
    if len(tokens) and int(tokens.min()) < 1:
        raise ValueError("every sample has at least one label token")
