"""Why an item stands on the list: what each part of the conversation adds to its score."""

from __future__ import annotations

from recsys.errors import ConfigError
from recsys.printable import escape_line
from recsys.trained.conversation.critiques import State
from recsys.trained.conversation.scoring import ConversationModel, Part
from recsys.trained.conversation.turns import ListedItem
from recsys.trained.conversation.wording import describe, get_title, join_words, shorten

_MOST, _WORDS = 3, 5  # items of a history, and words, that are named


def explain_item(model: ConversationModel, state: State, listed: ListedItem) -> list[str]:
    """A line for the item, one for each part of its score, and one for the filters it fits.

    Args:
        model: That ranked it.
        state: For which it did.
        listed: The item.
    """
    queries = {part.kind: part for part in model.list_parts(state)}
    lines = [f"{listed.number}  {escape_line(listed.text)}"]
    lines.append(f"   score {listed.score:.2f}, the sum of")
    lines += [
        f"   {value:+6.2f}  {_describe_part(model, state, queries[kind], listed.item)}"
        for kind, value in listed.parts
    ]
    filters = [describe(each, model) for each in state.list_filters()]
    if filters:
        lines.append(f"   fits    {join_words(filters)}")
    return lines


def list_words(model: ConversationModel, state: State, listed: ListedItem) -> list[str]:
    """The words that speak most for an item, of its text and of what was said.

    Args:
        model: That ranked it.
        state: For which it did.
        listed: The item.

    Returns:
        A line a text; none where nothing was said, or the model's scores have no such parts.
    """
    texts = [part.query for part in model.list_parts(state) if part.kind == "text"]
    if not texts or texts[0] is None:
        return []
    try:
        out = model.answering.explainer.explain(
            texts[0], listed.item, model.at, model.context, tokens=True
        )
    except ConfigError:  # the model reads no words, or not in a way that is taken apart
        return []
    lines = []
    for text in (text for reading in out.readings or () for text in reading.texts):
        best = sorted(text.words, key=lambda word: -abs(word.share))[:_WORDS]
        shown = ", ".join(f"{escape_line(w.text)} ({100 * w.share:+.0f}%)" for w in best)
        lines.append(f"   {'its text' if text.kind == 'item' else 'what you said'}: {shown}")
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
        f"{'disliked ' if each.disliked else ''}{shorten(get_title(model, each.item))} "
        f"({100 * each.share:+.0f}%)"
        for each in out.history
    ]
    return join_words(named, _MOST) if named else "nothing that the model knows"
