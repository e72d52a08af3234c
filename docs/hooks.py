"""What mkdocs calls while it builds the site: equations become MathML."""

import html
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.DOTALL)

FONT = "STIXTwoMath-Regular.ttf"  # few Linux machines have a font with the measures that equations need


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Put the font of the equations beside the style that names it."""
    package = find_spec("ziamath")  # not imported: it would read the font
    if package is None or package.origin is None:
        raise PluginError("ziamath, which has the font of the equations, is not installed: pip install '.[docs]'")
    path = Path(package.origin).parent / "fonts" / FONT
    files.append(File.generated(config, f"assets/{FONT}", abs_src_path=str(path)))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Write the equations that arithmatex has marked as MathML, which needs neither scripts nor network."""
    return MARKED.sub(_as_mathml, content)


def _as_mathml(match: re.Match[str]) -> str:
    tag, bracket, latex = match.groups()
    display = "block" if bracket == "[" else "inline"
    written = convert(html.unescape(latex).strip(), display=display)
    if "\\" in written or ">&<" in written:  # what the converter does not know it leaves as it is
        raise PluginError(f"not all of this equation becomes MathML: {latex.strip()}")
    for bar in ("&#x02016;", "&#x0007C;"):  # norms and sizes: a bar with an index would be shorter than its partner
        written = written.replace(f"<mo>{bar}</mo>", f'<mo stretchy="false">{bar}</mo>')
    return f'<{tag} class="equation">{written}</{tag}>'
