"""What the name of a column says about its role, from 0 (nothing) to 1 (this is how it is called)."""

import re
import unicodedata
from functools import cache
from typing import Literal, get_args

Role = Literal["user", "item", "timestamp", "rating", "split", "title", "category"]
ROLES: tuple[Role, ...] = get_args(Role)


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ID = _set("id ids key code no nr num number idx index uuid guid hash sha1 token pk")
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
_TITLES = _set("title name titel titre título titulo nombre nom headline label название 标题 名称 タイトル")
_PROSE = _set("description desc text summary detail subtitle")  # may stand in for a title

_BY: dict[Role, frozenset[str]] = {  # what a role is called by
    "user": _USERS,
    "item": _ITEMS,
    "timestamp": _set(
        "timestamp time datetime date ts t unix unixtime utc dat when created zeit zeitpunkt datum fecha heure время"
        " 时间 日時 시간"
    ),
    "rating": _set("rating overall star stars score ratings grade rate vote bewertung оценка 评分 評価"),
    "split": _set("split part subset fold partition set phase"),
    "title": _TITLES,
    "category": _set(
        "category categories genre genres department section aisle class group kind type tag tags kategorie catégorie"
        " categoría категория 类别 カテゴリ"
    ),
}
_BESIDE: dict[Role, frozenset[str]] = {"user": _ID, "item": _ID, "title": _ITEMS | _ID}  # words that change nothing
_AGAINST: dict[Role, frozenset[str]] = {  # words with which it is something else
    "user": _TITLES,
    "item": _TITLES,
    "timestamp": _set(
        "release released birth updated update duration playtime join joined registered registration signup since end"
        " zone spent"
    ),
    "rating": _set("count number num avg average mean total helpful sentiment"),
    "title": _set(
        "type group category class brand department section index garment colour color author user reviewer artist city"
        " state first last store seller publisher developer appearance perceived file genre short original"
    ),
    "category": _ID,
}
_GLUED = re.compile(f"({'|'.join(sorted(_USERS | _ITEMS))})({'|'.join(sorted({*_ID, 'name', 'title'}))})?s?")


def words(name: str) -> list[str]:
    """The words of a name in small letters, without the mark of a repeated name; what is glued to a noun is cut off.

    >>> words("unixReviewTime"), words("Book-Title"), words("author.steamid"), words("t_dat"), words("users")
    (['unix', 'review', 'time'], ['book', 'title'], ['author', 'steam', 'id'], ['t', 'dat'], ['user'])
    """
    name = re.sub(r"_duplicated_\d+$", "", unicodedata.normalize("NFKC", name))
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    parts = [part for part in re.split(r"[\W_]+", name.casefold()) if part]
    glued = [_GLUED.fullmatch(part) for part in parts]
    pieces = (match.groups() if match else [part] for part, match in zip(parts, glued, strict=True))
    return [word for piece in pieces for word in piece if word]


@cache
def name_score(role: Role, name: str) -> float:
    """How much the name speaks for the role, in [0, 1]; 0.5 or more where it has a word for it and none against it.

    >>> name_score("user", "reviewerID"), name_score("item", "parent_asin"), name_score("title", "product_type_name")
    (1.0, 0.65, 0.1)
    """
    parts, by, beside = words(name), _BY[role], _BESIDE.get(role, frozenset())
    known = [part in by for part in parts if part in by or part not in beside]
    if not any(known):
        weak = (role == "item" and parts == ["id"]) or (role == "title" and not _PROSE.isdisjoint(parts))
        return 0.2 if weak else 0.0
    if not _AGAINST.get(role, frozenset()).isdisjoint(parts):
        return 0.1
    # A title goes before a name, and a user before a session.
    second = (role == "title" and "name" in parts) or (role == "user" and "session" in parts)
    return (1.0 if all(known) else 0.5 + 0.1 * known[-1] + 0.1 * sum(known) / len(known)) - 0.05 * second


def rival_score(role: Role, name: str) -> float:
    """How much the name speaks for another role."""
    return max(name_score(other, name) for other in rivals(role))


def rivals(role: Role) -> list[Role]:
    """The roles that a column cannot have beside this one; it may be item and title."""
    return [other for other in ROLES if other != role and {role, other} != {"item", "title"}]


def is_id(name: str) -> bool:
    """Whether the name says that the values are ids, of whatever."""
    return any(part in _ID or part.endswith("id") for part in words(name)[-1:])
