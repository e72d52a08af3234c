"""HTML entities in titles are decoded before anything else is made of them, and counted."""

import polars as pl
import pytest

from dealrec.data.titles import decode_entities, item_table


@pytest.mark.parametrize(
    ("title", "decoded"),
    [
        ("Brand &amp; Sons", "Brand & Sons"),
        ("&quot;Alien&quot; &#8211; Director&#x27;s Cut", '"Alien" \u2013 Director\'s Cut'),
        ("Caf&eacute;", "Café"),
        ("R&amp;amp;D", "R&D"),  # escaped twice
        ("AT&T; R&D; Salt&parsley &copy 2020", "AT&T; R&D; Salt&parsley &copy 2020"),  # none of these is one
        ("& ; &; &#; &#x;", "& ; &; &#; &#x;"),
        ("", ""),
        (None, None),
    ],
)
def test_entities_are_decoded(title: str | None, decoded: str | None) -> None:
    titles = pl.Series([title, "Plain", title], dtype=pl.String)
    assert decode_entities(titles).to_list() == [decoded, "Plain", decoded]
    assert titles.to_list() == [title, "Plain", title]


def test_what_they_stand_for_is_cleaned_and_compared_as_any_title() -> None:
    said: list[str] = []
    titles = pl.Series(["Salt &amp; Pepper", "Salt & Pepper", "a&#10;b", "&nbsp;", None])
    items = item_table(pl.Series(["a&amp;b", "b", "c", "d", "e"]), titles, warn=said.append)
    assert items["title"].to_list() == ["Salt & Pepper", "Salt & Pepper", "a b", "d", "e"]
    assert items["item_id"].to_list()[0] == "a&amp;b"  # an id is no text
    assert said == [
        "3 of 5 items had HTML entities such as &amp; in the title; they are decoded",
        "1 of 5 items had control characters or line breaks in the title; a space is put in their place",
        "2 of 5 items have no title; the item id stands in for it",
        "2 of 5 items share their title with another item",
    ]


def test_of_an_item_in_several_rows_the_first_title_is_kept_wherever_it_is() -> None:
    """As in a log with titles in it, of which some rows have none."""
    ids, titles = ["a", "b", "a", "c", "a", "b"], [None, "NULL", "Alien", " ", "Aliens", ""]
    items = item_table(pl.Series(ids), pl.Series(titles), warn=lambda _: None)
    assert items.rows() == [("a", "Alien"), ("b", "b"), ("c", "c")]
