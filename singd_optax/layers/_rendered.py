"""Text that a notebook shows as tables."""

import html
from collections.abc import Sequence
from typing import NamedTuple, Self


class Part(NamedTuple):
    """One table.

    Attributes:
      caption: The line above it, or "".
      rows: The first one is the header.
    """

    caption: str
    rows: list[list[str]]


class Table(str):
    """A string, aligned for a terminal, that also knows itself as HTML.

    Attributes:
      parts: The tables that it shows.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Self:
        """All of them, one below the other.

        >>> Table.of([Part("One layer", [["layer", "K"], ["head", "4 B"]])])
        One layer
          layer  K
          head   4 B
        """
        blocks = ([*([part.caption] if part.caption else []), *_align(part.rows)] for part in parts)
        table = cls("\n\n".join("\n".join(lines) for lines in blocks))
        table.parts = tuple(parts)
        return table

    def __repr__(self) -> str:
        """As it is printed."""
        return str(self)

    def _repr_html_(self) -> str:
        return "".join(map(_html, self.parts))


def _align(rows: list[list[str]]) -> list[str]:
    """Rows of a table as lines, with columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _html(part: Part) -> str:
    lines = [f"<p>{html.escape(part.caption)}</p>"] if part.caption else []
    lines.append("<table>")
    for index, row in enumerate(part.rows):
        kind = "td" if index else "th"
        cells = (f'<{kind} style="text-align: left">{html.escape(c)}</{kind}>' for c in row)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</table>\n"])
