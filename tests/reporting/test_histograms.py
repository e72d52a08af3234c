"""Histograms by hand arithmetic, and on values that break naive ones."""

import math

import pytest

from dealrec.reporting.histogram import Histogram, draw, histogram, summary


def test_counts_by_hand() -> None:
    # Edges 0, 1, 2, 3, 4: each bar holds its lower edge, and the last one its upper edge too.
    found = histogram([0, 0.5, 1, 2.5, 3, 4], [1, 4], bins=4)
    assert found == Histogram(0.0, 4.0, (2, 1, 1, 2), (0, 1, 0, 1))


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0], [5e-324, 0.0]])
def test_values_without_a_range_make_one_bar(values: list[float]) -> None:
    found = histogram(values, values[:1], bins=8)
    assert found is not None
    assert found.counts == (len(values),)
    assert found.marked == (1,)
    assert "<rect" in draw(found, name="x", ends=("3", "3"))


def test_no_values_make_no_histogram() -> None:
    assert histogram([]) is None
    assert histogram([math.nan, math.inf]) is None
    assert summary([]) is None


def test_a_range_beyond_the_largest_double() -> None:
    found = histogram([-1.7e308, 0.0, 1.7e308], bins=2)
    assert found is not None
    assert found.counts == (1, 2)


def test_the_summary_leaves_out_what_is_not_finite() -> None:
    found = summary([4.0, math.nan, 1.0, 2.0, -math.inf, 3.0])
    assert found is not None
    assert (found.n, found.low, found.median, found.high) == (4, 1.0, (2.0 + 3.0) / 2, 4.0)


def test_the_drawing_says_what_it_shows_and_escapes_its_labels() -> None:
    shown = Histogram(0.0, 1.0, (4, 0, 1), (1, 0, 0))
    drawing = draw(shown, name="<i>&", ends=("<0>", "1"))
    assert 'role="img"' in drawing
    assert "<title>Histogram of &lt;i&gt;&amp;: 5 values from &lt;0&gt; to 1, 1 of them selected" in drawing
    assert drawing.count("<rect") == 2 + 1  # an empty bar is not drawn
    assert "<i>" not in drawing
    assert "&lt;0&gt;</text>" in drawing


def test_heights_are_in_proportion() -> None:
    drawing = draw(Histogram(0.0, 1.0, (4, 2), (0, 0)), name="x", ends=("0", "1"))
    heights = [
        float(part.split('"')[1]) for part in drawing.split("<rect")[1:] for part in [part.partition("height=")[2]]
    ]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.1)
