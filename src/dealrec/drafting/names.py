"""What the name of a column says about its role, from 0 (nothing) to 1 (this is how it is called)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

Role = Literal["user", "item", "timestamp", "rating", "split", "title", "category"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ID = _set("id ids key code no nr num number idx index uuid guid hash token pk")
_USERS = _set(
    "user customer cust reviewer member visitor session account buyer client profile steam household player viewer"
    " listener reader subscriber person author usr shopper student learner patron guest msno uid sid device fan"
    " nutzer benutzer kunde kunden usuario cliente utilisateur пользователь 用户 ユーザー 사용자"
)
_ITEMS = _set(
    "item asin article product prod sku movie film book isbn track song artist album game app business biz aid news"
    " video doc document listing recipe course beer anime place poi gmap restaurant post photo ad offer good goods"
    " content stock hotel event show episode program podcast repo job upc ean gtin mid pid iid vid artikel produkt"
    " produit producto artículo articulo товар 商品 物品 アイテム 상품"
)
_TIMES = _set(
    "timestamp time datetime date ts t unixtime utc dat when zeit zeitpunkt datum fecha heure время 时间 日時 시간"
)
_RATINGS = _set("rating overall star stars score ratings grade rate vote bewertung оценка 评分 評価")
_TITLES = _set("title name titel titre título titulo nombre nom headline label название 标题 名称 タイトル")
_CATEGORIES = _set(
    "category categories genre genres department section aisle class group kind type tag tags kategorie catégorie"
    " categoría категория 类别 カテゴリ"
)
_SPLITS = _set("split part subset fold partition set phase")
_PROSE = _set("description desc text summary detail subtitle")

# Words beside which the others mean something else: when a film came out, what group a product is of.
_NOT_TIMES = _set("release released birth updated update duration playtime join joined since end zone spent")
_NOT_RATINGS = _set("count number num avg average mean total helpful sentiment")
_NOT_TITLES = _set(
    "type group category class brand department section index garment colour color author user reviewer artist city"
    " state first last store seller publisher developer appearance perceived file genre short original"
)


def words(name: str) -> list[str]:
    """The words of a name, in small letters; a trailing repetition mark of the reader is left out.

    >>> words("unixReviewTime"), words("Book-Title"), words("author.steamid"), words("t_dat")
    (['unix', 'review', 'time'], ['book', 'title'], ['author', 'steamid'], ['t', 'dat'])
    """
    name = re.sub(r"_duplicated_\d+$", "", unicodedata.normalize("NFKC", name))
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def name_score(role: Role, name: str) -> float:
    """How much the name speaks for the role, in [0, 1].

    >>> name_score("user", "reviewerID"), name_score("item", "parent_asin"), name_score("title", "product_type_name")
    (1.0, 0.7, 0.1)
    """
    parts = words(name)
    if not parts:
        return 0.0
    score = _SCORES[role](parts)
    return score - 0.05 if "_duplicated_" in name and score else score


def is_id(name: str) -> bool:
    """Whether the name says that the values are ids, of whatever."""
    last = words(name)[-1:]
    return bool(_ID & set(last)) or any(part.endswith("id") for part in last)


def _id_score(parts: list[str], nouns: frozenset[str]) -> float:
    if "name" in parts or "title" in parts:
        return 0.2 if nouns & set(parts) else 0.0
    stems = [_without_id(part) for part in parts if part not in _ID]
    known = [stem in nouns for stem in stems]
    if stems and all(known):
        return 1.0
    if any(known):
        return 0.7 if known[-1] else 0.4
    return 0.3 if parts == ["id"] and nouns is _ITEMS else 0.0


def _without_id(part: str) -> str:
    """`movieid` is a movie's id; a plural is of the same thing."""
    for ending in ("id", "ids", "nr", "no", "code", "sha1", "hash"):
        stem = part.removesuffix(ending)
        if stem != part and stem in _USERS | _ITEMS:
            return stem
    return part[:-1] if part.endswith("s") and part[:-1] in _USERS | _ITEMS else part


def _time(parts: list[str]) -> float:
    known = [part in _TIMES for part in parts]
    if not any(known) and not {"created", "unix"} & set(parts):
        return 0.0
    if _NOT_TIMES & set(parts):
        return 0.1
    return 1.0 if all(known) else 0.9 if {"unix", "created", "event", "timestamp"} & set(parts) else 0.7


def _rating(parts: list[str]) -> float:
    if not _RATINGS & set(parts):
        return 0.0
    return 0.1 if _NOT_RATINGS & set(parts) else 1.0 if len(parts) == 1 else 0.7


def _title(parts: list[str]) -> float:
    named = set(parts) - _ID
    if not _TITLES & named:
        glued = any(part.removesuffix("name").removesuffix("title") in _ITEMS and part not in _ITEMS for part in parts)
        return 0.95 if glued else 0.2 if _PROSE & named else 0.0
    if _NOT_TITLES & named:
        return 0.1
    title = 0.05 if {"title", "titel", "titre"} & named else 0.0  # a title and a name: the title
    return (0.95 if named <= _TITLES | _ITEMS else 0.6) + title


def _category(parts: list[str]) -> float:
    if not _CATEGORIES & set(parts) or _ID & set(parts):
        return 0.0
    return 1.0 if len(parts) == 1 else 0.8 if parts[-1] in _CATEGORIES else 0.6


_SCORES: dict[Role, Callable[[list[str]], float]] = {
    # A session is a user only where there is no better one.
    "user": lambda parts: _id_score(parts, _USERS) - (0.1 if "session" in parts else 0.0),
    "item": lambda parts: _id_score(parts, _ITEMS),
    "timestamp": _time,
    "rating": _rating,
    "split": lambda parts: float(not _SPLITS.isdisjoint(parts)),
    "title": _title,
    "category": _category,
}
