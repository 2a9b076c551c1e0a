"""What can be said, in the conversation itself."""

from __future__ import annotations

from recsys.trained.conversation.scoring import ConversationModel

PHRASES = (
    ("any words", "text: what you are looking for"),
    ("more like 3, not 2", "items of the list, by number or by title"),
    ("seen 4", "an item leaves the list, and says nothing else"),
    ("{value}, no {other}", "values of a column"),
    ("older, newer than 1990", "than the middle of the list, a year, or an item (#3)"),
    ("cheaper, under $20", "the same of a price"),
    ("pages under 300", "any column of numbers by its name"),
    ("not so bright", "a text to keep away from"),
    ("something else", "other items in place of these"),
    ("more variety", "items that are less alike; less variety"),
    ("more", "the next page"),
    ("3, why 3", "what is known of an item; why it is here (in words)"),
    ("drop b, any year", "a chip is taken back; drop all"),
    ("undo, start over", "back by a line, or to the beginning"),
    ("list, chips, quit", "the list again, what holds, the end"),
    ('"war"', "in quotes: text, and nothing else"),
)
"""What is said, and what it does; a name in braces stands for a value of the items."""


def write_help(model: ConversationModel) -> list[str]:
    """The phrases that this model understands, a line each."""
    columns = model.columns
    values = next(iter(columns.values.values()), None)
    most = [] if values is None else sorted(values.rows, key=lambda v: -len(values.rows[v]))
    lines = []
    for phrase, meaning in PHRASES:
        needs = {"price": "cheaper", "time": "older"}
        if any(phrase.startswith(w) and not columns.find_role(r) for r, w in needs.items()):
            continue
        if phrase.startswith("pages") and columns.find_role("length") is None:
            continue
        if not model.reads_texts and ("text" in meaning):
            continue
        if "{" in phrase:
            if len(most) < 2:
                continue
            phrase = phrase.format(value=most[0], other=most[1])
        lines.append(f"  {phrase:<24}{meaning}")
    lines.append(f"  columns: {', '.join(columns.names)}")
    return lines
