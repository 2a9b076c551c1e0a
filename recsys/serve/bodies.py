"""What requests hold and what comes back: the types behind the page of documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)


def check_signs(text: str) -> str:
    """A text as it is, unless it holds half of a sign, which JSON can say and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(check_signs)]
# Lengths stand before the check of signs, as else pydantic counts "items after validation".
Id = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(check_signs)]
"""An id, as the data has it, or a name of a column."""
Moment = Annotated[str, Field(max_length=64), AfterValidator(check_signs)]
Value = Annotated[str, Field(max_length=512), AfterValidator(check_signs)]
Expression = Annotated[str, Field(max_length=2_000), AfterValidator(check_signs)]


def check_cell(value: Any, check: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401
    """A value of a column; one sentence says what it may be, where each kind has its own refusal.

    Raises:
        ValueError: It is of no such kind.
    """
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_signs(text)
    try:
        return check(value)
    except ValidationError:
        raise ValueError(
            "give a text of at most 65,536 characters, a finite number, true, false, null, or a "
            "list of at most 1,000 texts of at most 512 characters"
        ) from None


Cell: TypeAlias = Annotated[
    Annotated[str, Field(max_length=65_536)]
    | bool
    | Annotated[int, Field(ge=-(2**63), lt=2**63)]
    | float
    | Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=1_000)],
    WrapValidator(check_cell),
]
"""What a column of an item may hold."""


class Body(BaseModel):
    """A request; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Setting(Body):
    """Who asks, and when."""

    user: Id | None = Field(None, description="Id of a user.", examples=["196"])
    history: list[Id] | None = Field(
        None, min_length=1, description="Ids of items that someone had, oldest first."
    )
    at: Moment | None = Field(
        None,
        description="The moment (UTC), such as 2024-05-01T12:00; now if it is left out.",
    )
    context: dict[Id, Value] = Field(
        {}, description="Value by column, of a model with context.", max_length=64
    )


class Ask(Setting):
    """Who or what is asked for: one of user, history and text."""

    text: Text | None = Field(None, description="What is looked for.", examples=["space robots"])

    @model_validator(mode="after")
    def check_that_one_is_given(self) -> Ask:
        """Raises where not exactly one is given, or a text is empty."""
        if sum(each is not None for each in (self.user, self.history, self.text)) != 1:
            raise ValueError("give one of user, history and text")
        if self.text is not None and not self.text.strip():
            raise ValueError("the text is empty; give what is looked for")
        return self


class RecommendBody(Ask):
    """A request for recommendations."""

    k: int = Field(10, ge=1, strict=True, description="How many items.")
    where: Expression | None = Field(
        None,
        description="Which items, by their columns: comparisons with quoted texts or numbers.",
        examples=["year >= 1990 and genres contains 'Comedy'"],
    )
    exclude_seen: bool = Field(
        True, strict=True, description="Whether what someone had is left out."
    )
    columns: list[Id] = Field(
        [], max_length=32, description="Further columns of the items to give."
    )


class ConverseBody(Setting):
    """A line of a conversation, with all that was said before it."""

    lines: list[Text] = Field(
        [],
        description="All that was said, the oldest first; the last line is answered. None: the "
        "conversation is opened.",
        examples=[["space robots", "more like 3, but older"]],
    )
    k: int = Field(10, ge=1, strict=True, description="Items of a list, and of each further page.")
    listed: list[Id] | None = Field(
        None,
        description="Ids on the list that the last line speaks of, as state.listed of the answer "
        "before has them; 409 where it is no longer that list.",
    )

    @model_validator(mode="after")
    def check_that_not_both_are_given(self) -> ConverseBody:
        """Raises where a user and a history are given."""
        if self.user is not None and self.history is not None:
            raise ValueError("give one of user and history, or none")
        return self


class ExplainBody(Ask):
    """A request for the reasons of a score."""

    item: Id = Field(description="The item whose score is explained.")


class Share(BaseModel):
    """What an item of the history adds to a score."""

    item: str
    title: str
    value: float
    share: float
    disliked: bool = Field(description="Whether it is read as what the user did not like.")


class Reasons(BaseModel):
    """Why an item has its score."""

    item: str
    title: str
    score: float
    rank: int | None
    method: str
    because: str = Field(description="What speaks most for the item, in one line; may be empty.")
    history: list[Share]
    notes: list[str] = Field([], description="What of the question counts as unknown.")


class Suggestion(BaseModel):
    """A recommended item."""

    rank: int
    item: str
    score: float
    title: str
    columns: dict[str, Any] = Field({}, description="Values of the columns that were asked for.")


class Suggestions(BaseModel):
    """Recommended items, the best first."""

    model: str = Field(description="The model that answered.")
    items: list[Suggestion]
    notes: list[str] = Field([], description="What of the question counts as unknown.")


class ListedRow(BaseModel):
    """An item of a conversation's list."""

    number: int = Field(description="By which it is spoken of, from 1.")
    item: str
    text: str
    score: float
    parts: list[tuple[str, float]] = Field(description="What each part adds to the score.")
    facts: list[tuple[str, str]] = Field(
        description="Column and value, for filters that its text does not show."
    )


class ChipRow(BaseModel):
    """Something that holds; "drop" and its letter take it back."""

    letter: str
    kind: str
    text: str


class ConversationTurn(BaseModel):
    """What a line of a conversation led to."""

    model: str = Field(description="The model that answered.")
    at: str = Field(description="The moment of the conversation; send it with its next line.")
    catalog: int = Field(description="How many items there are.")
    number: int
    said: str
    message: str
    lines: list[str] = Field(description="What was asked for: an explanation, help.")
    items: list[ListedRow] = Field(
        description="The list, or its next page; none where it is as it was."
    )
    chips: list[ChipRow]
    fitting: int = Field(description="How many items fit.")
    state: dict[str, Any] = Field(description="Where the conversation is: critiques, ids, focus.")
    undone: bool
    ended: bool
    notes: list[str] = Field([], description="What of the question counts as unknown.")


class FeedbackEvent(Body):
    """What a user did."""

    user: Id
    item: Id
    event: Literal["like", "dislike", "view", "buy"] = "like"


class FeedbackBody(Body):
    """Events that are kept all or none."""

    events: list[FeedbackEvent] = Field(min_length=1)


class ForgetBody(Body):
    """Users of whom nothing is to be kept."""

    users: list[Id] = Field(min_length=1, description="Their ids.")


class Forgotten(BaseModel):
    """How many events were taken out, also on the disk."""

    forgotten: int


class NewItem(Body):
    """An item by its text, or by the columns that the model's texts are made of."""

    item: Id
    text: Text | None = Field(None, min_length=1, description="The whole text.")
    columns: dict[Id, Cell | None] = Field(
        {}, max_length=64, description="Value by column, such as available_from."
    )

    @model_validator(mode="after")
    def check_that_something_is_said(self) -> NewItem:
        """Raises where nothing is said of the item, or a column has the name of a field."""
        odd = [name for name in ("item", "text") if name in self.columns]
        if odd:
            raise ValueError(f"{odd[0]} is no further column; give it beside columns")
        if self.text is None and not self.columns:
            raise ValueError("give the text of the item, or the columns that texts are made of")
        if self.text is not None and not self.text.strip():
            raise ValueError(
                f"the text of '{self.item}' is empty; give what the item is, or the columns that "
                "texts are made of"
            )
        return self


class ItemsBody(Body):
    """Items that are new or have changed, that are not to be recommended, or may be again."""

    add: list[NewItem] = Field(
        [], description="They are ranked by their texts; one that is there gets this text."
    )
    remove: list[Id] = Field([], description="Ids; unknown ones are kept for a later model.")
    restore: list[Id] = []

    @model_validator(mode="after")
    def check_that_some_are_given(self) -> ItemsBody:
        """Raises where nothing is to change."""
        if not self.add and not self.remove and not self.restore:
            raise ValueError("give items in add, or ids in remove or restore")
        return self


class ItemCounts(BaseModel):
    """How many items were added or changed, and how many are removed now."""

    added: int
    removed: int
    unknown: list[str] = Field(
        [],
        description="Ids to remove or restore of which nothing is known; a removal is kept for a "
        "later model.",
    )


class Kept(BaseModel):
    """How much was kept, on the disk."""

    kept: int


class Health(BaseModel):
    """The state of the service."""

    status: Literal["ok", "draining"]
    model: str
    version: int = Field(description="Raised each time the model is loaded.")
    feedback: int = Field(description="Events that are kept.")
    waiting: int = Field(description="Queries that wait for the model.")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str


_OBJECT = "give an object in braces"
_REFUSALS = {
    "bool_type": "give true or false",
    "dict_type": _OBJECT,
    "extra_forbidden": "there is no such key; leave it out",
    "greater_than_equal": "give a number from {ge}",
    "int_type": "give a whole number",
    "list_type": "give a list in brackets",
    "literal_error": "give {expected}",
    "missing": "it is missing; give it",
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "string_too_long": "give at most {max_length} characters",
    "string_too_short": "give at least {min_length} character",
    "string_type": "give a text in quotes",
    "too_long": "give at most {max_length} items",
    "too_short": "give at least {min_length} item",
    "value_error": "{error}",
}
"""What to do about each refusal of pydantic's, which speaks of types and not to who sends JSON."""


def describe_refusal(error: Mapping[str, Any]) -> str:
    """Where a body is wrong, and what to change.

    Args:
        error: Of those that pydantic lists.
    """
    place, more = list(error["loc"][1:]), ""
    if place and place[-1] == "[key]":
        place, more = place[:-2], ", name of a column"
    plain = _REFUSALS.get(error["type"])
    sentence = error["msg"] if plain is None else plain.format(**error.get("ctx", {}))
    return f"{'.'.join(map(str, place)) or 'the body'}{more}: {sentence}"


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body is no JSON.",
        401: "The key is missing or wrong.",
        404: "The user or the path is unknown.",
        405: "The path takes another method.",
        408: "The body did not come in time.",
        413: "The body is too large.",
        415: "The body is not application/json.",
        422: "The request makes no sense; the sentence says what to change.",
        429: "The service is busy; try again after Retry-After seconds.",
        507: "The disk is full; nothing was kept.",
    }.items()
}

OUTDATED: dict[str, Any] = {
    "model": Problem,
    "description": "The lines before lead to another list than the one in listed.",
}
