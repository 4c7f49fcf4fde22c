"""Help texts with examples, laid out as written."""

from __future__ import annotations


def examples(text: str) -> str:
    """The examples of a command as the end of its help.

    Args:
        text: one example per line; a line that begins with `#` says what the next one does.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    # click fills paragraphs unless they begin with this mark.
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
