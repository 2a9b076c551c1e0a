"""Why an item stands on the list: what each part of the conversation adds to its score."""

from __future__ import annotations

from recsys.errors import ConfigError
from recsys.printable import escape_line
from recsys.trained.conversation.critiques import State
from recsys.trained.conversation.scoring import ConversationModel, Part
from recsys.trained.conversation.turns import ListedItem
from recsys.trained.conversation.wording import describe, get_title, join_words, shorten

_MOST = 3  # items of a history that are named


def explain_item(model: ConversationModel, state: State, listed: ListedItem) -> list[str]:
    """A line for the item, one for each part of its score, and one for the filters it fits.

    Args:
        model: That ranked it.
        state: For which it did.
        listed: The item.
    """
    row = model.rows[listed.item]
    weighed = model.weigh_parts(state, row)
    total = sum(value for _, value in weighed)
    lines = [f"{listed.number}  {escape_line(listed.text)}", f"   score {total:.2f}, the sum of"]
    lines += [
        f"   {value:+6.2f}  {_describe_part(model, state, part, listed.item)}"
        for part, value in weighed
    ]
    filters = [describe(each, model) for each in state.list_filters()]
    if filters:
        lines.append(f"   fits    {join_words(filters)}")
    return lines


def _describe_part(model: ConversationModel, state: State, part: Part, item: str) -> str:
    """What a part of a score is of."""
    if part.kind == "text":
        return join_words([f'"{shorten(text)}"' for text in state.list_texts()])
    if part.kind == "avoided":
        return "not " + join_words([f'"{shorten(text)}"' for text in state.list_avoided()])
    if part.kind == "popularity":
        return "how popular it is: nothing was said yet that items are compared with"
    assert part.query is not None
    history = part.query.history or ()
    name = part.kind if part.kind != "profile" else "what you had before"
    if len(history) == 1:
        return f"{name}: {shorten(get_title(model, history[0]))}"
    return f"{name}: {_name_history(model, part, item)}"


def _name_history(model: ConversationModel, part: Part, item: str) -> str:
    """The items of a history that speak most for an item, with their shares."""
    query = part.query
    assert query is not None
    try:
        out = model.answering.explainer.explain(query, item, model.at, model.context)
    except ConfigError:  # the model's scores are not taken apart
        return join_words([shorten(get_title(model, had)) for had in query.history or ()], _MOST)
    named = [
        f"{shorten(get_title(model, each.item))} ({100 * each.share:+.0f}%)" for each in out.history
    ]
    return join_words(named, _MOST) if named else "nothing that the model knows"
