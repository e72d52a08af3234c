"""Tables and lines of rich, as they are."""

from typing import Any

from rich.console import Console
from rich.text import Text

from dealrec.formats import harmless


class PlainConsole(Console):
    """Takes texts as they are, without markup, emoji codes and highlighting, and shows no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console` has it."""
        return super().render_str(harmless(text), **options)
