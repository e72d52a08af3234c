"""Pages from their templates: one file with style and script inside, which runs no other script and loads nothing."""

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from dealrec.formats import correlation, cut, number, percent

TITLE_WIDTH = 60


def render(name: str, content: dict[str, Any]) -> str:
    """The page of a template; everything that is put in is escaped."""
    script = _source("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "correlation": correlation}
    environment.filters["short"] = lambda text: cut(text, TITLE_WIDTH)
    own = {"style": Markup(_source("page.css")), "script": Markup(script), "script_hash": digest}
    return environment.get_template(name).render(content | own)


def _source(name: str) -> str:
    return resources.files("dealrec.reporting").joinpath(name).read_text(encoding="utf-8")
