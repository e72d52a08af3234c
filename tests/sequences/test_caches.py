"""The name by which a model takes keys and values."""

import pytest
from torch import Tensor, nn

from dealrec.sequences import cache_keyword


class Before(nn.Module):
    def forward(self, input_ids: Tensor, past_key_values: object = None) -> None: ...


class Since(nn.Module):
    def forward(self, input_ids: Tensor, cache: object = None, **kwargs: object) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(Before(), "past_key_values"), (Since(), "cache")])
def test_it_is_that_of_the_model_s_forward(model: nn.Module, name: str) -> None:
    assert cache_keyword(model) == name
