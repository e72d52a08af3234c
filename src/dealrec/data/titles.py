"""The items table: one clean title for each item id."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import polars as pl

from dealrec import columns
from dealrec.data.values import missing

# Line breaks and other control characters, and the invisible ones that join, split or turn round the text.
_CONTROL = r"[\p{Cc}\x{61C}\x{180E}\x{200B}-\x{200F}\x{2028}-\x{202E}\x{2060}-\x{206F}\x{FEFF}]"
_LONG = 1000
_UNTITLED = "untitled"
# Those that end in a semicolon: browsers read some without, and would see one in "Salt&parsley".
_ENTITY = r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"


def clean(titles: pl.Series) -> pl.Series:
    r"""Put a space for control characters and for runs of white space, and strip both ends.

    >>> clean(pl.Series(["Doom\r\n II ", "a\u200bb\u2028c"])).to_list()
    ['Doom II', 'a b c']
    """
    return titles.str.replace_all(_CONTROL, " ").str.replace_all(r"\s+", " ").str.strip_chars()


def decode_entities(titles: pl.Series) -> pl.Series:
    """Put the characters that HTML entities stand for in their place, also where they were escaped twice.

    >>> decode_entities(pl.Series(["Salt &amp; Pepper", "&amp;quot;Alien&amp;quot;", "AT&T; R&D", None])).to_list()
    ['Salt & Pepper', '"Alien"', 'AT&T; R&D', None]
    """
    escaped = titles.str.contains(_ENTITY).fill_null(False)
    if not escaped.any():
        return titles
    decoded = titles.filter(escaped).map_elements(_decode, return_dtype=pl.String)
    return titles.clone().scatter(escaped.arg_true(), decoded)


def _decode(title: str) -> str:
    previous = None
    while previous != title:
        previous, title = title, re.sub(_ENTITY, lambda entity: html.unescape(entity[0]), title)
    return title


def item_table(ids: pl.Series, titles: pl.Series, *, warn: Callable[[str], None]) -> pl.DataFrame:
    """Return item_id and title, one row for each id in file order; an untitled item has its id as title.

    Untitled is one whose title is blank or spells out that there is none, such as NULL.
    Warns, with counts, of repeated ids (the first title is kept), titles with HTML entities, which are decoded, titles
    with control characters, items without a title, items that share a title, and titles over 1,000 characters.
    """
    raw = pl.DataFrame({columns.ITEM: ids, columns.TITLE: titles, _UNTITLED: missing(titles)})
    any_title = pl.col(columns.TITLE).first()
    first_title = pl.col(columns.TITLE).filter(~pl.col(_UNTITLED)).first()
    items = raw.group_by(columns.ITEM, maintain_order=True).agg(pl.coalesce(first_title, any_title))
    decoded = decode_entities(items[columns.TITLE])
    escaped = (decoded != items[columns.TITLE]).fill_null(False)
    control = decoded.str.contains(_CONTROL).fill_null(False)
    title = clean(decoded)
    blank = missing(title)
    words = title.filter(blank & (title != "").fill_null(False))
    note = f", {len(words):,} of them with a word for it such as {words[0]!r}" if len(words) else ""
    names = clean(items[columns.ITEM].cast(pl.String))
    items = items.with_columns(title.zip_with(~blank, names).alias(columns.TITLE))
    count = f"of {items.height:,} items"
    for number, message in (
        (
            raw.height - items.height,
            f"of {raw.height:,} rows of the items table repeat an item id; the first title counts",
        ),
        (escaped.sum(), f"{count} had HTML entities such as &amp; in the title; they are decoded"),
        (control.sum(), f"{count} had control characters or line breaks in the title; a space is put in their place"),
        (blank.sum(), f"{count} have no title{note}; the item id stands in for it"),
        (items[columns.TITLE].is_duplicated().sum(), f"{count} share their title with another item"),
        (
            (items[columns.TITLE].str.len_chars() > _LONG).sum(),
            f"{count} have a title over {_LONG:,} characters; prompts cut it",
        ),
    ):
        if number:
            warn(f"{number:,} {message}")
    return items
