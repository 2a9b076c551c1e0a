"""The paths of the service."""

from __future__ import annotations

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

import recsys
from recsys import printable
from recsys.errors import DiskFullError, RecsysError, UnknownIdError
from recsys.serve.batching import BusyError
from recsys.serve.bodies import (
    OUTDATED,
    RESPONSES,
    ConversationTurn,
    ConverseBody,
    ExplainBody,
    FeedbackBody,
    ForgetBody,
    Forgotten,
    Health,
    ItemCounts,
    ItemsBody,
    Kept,
    Reasons,
    RecommendBody,
    Suggestion,
    Suggestions,
    describe_refusal,
)
from recsys.serve.conversations import OutdatedListError
from recsys.serve.limits import Gate
from recsys.serve.service import Service

PAGE = Path(__file__).parent / "page"
_STATIC = {
    "/": ("index.html", "text/html"),
    "/chat": ("chat.html", "text/html"),
    "/chat.js": ("chat.js", "text/javascript"),
    "/page.js": ("page.js", "text/javascript"),
    "/shared.js": ("shared.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


def make_app(service: Service) -> Gate:
    """The service as an ASGI application.

    Args:
        service: What answers; it is closed with the application.
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.close()

    app = FastAPI(
        title="recsys",
        version=recsys.__version__,
        description="Recommendations of a trained model.",
        lifespan=live,
        docs_url=None,  # its page would load scripts of another site
        redoc_url=None,
    )
    gate = Gate(app, service.options, service.metrics)
    _add_errors(app)
    _add_page(app)
    _add_paths(app, service, gate)
    return gate


def _add_paths(app: FastAPI, service: Service, gate: Gate) -> None:
    @app.post("/recommend", responses=RESPONSES)
    async def recommend(body: RecommendBody) -> Suggestions:
        """The best items for a user, a history or a text."""
        said = await service.recommend(body)
        items = [Suggestion.model_validate(row) for row in said.rows]
        return Suggestions(model=said.model, items=items, notes=list(said.notes))

    @app.post("/explain", responses=RESPONSES)
    async def explain(body: ExplainBody) -> Reasons:
        """Why an item has its score."""
        said = await service.explain(body)
        (reasons,) = said.rows
        return Reasons.model_validate({**reasons, "notes": list(said.notes)})

    @app.post("/converse", responses={**RESPONSES, 409: OUTDATED})
    async def converse(body: ConverseBody) -> ConversationTurn:
        """What a line of a conversation leads to; each request holds all lines so far."""
        said = await service.converse(body)
        (turn,) = said.rows
        known = {**turn, "model": said.model, "notes": list(said.notes)}
        return ConversationTurn.model_validate(known)

    @app.post("/feedback", responses=RESPONSES)
    async def feedback(body: FeedbackBody) -> Kept:
        """Keeps what users did; they are on the disk when the answer comes."""
        return Kept(kept=await service.keep_feedback(body))

    @app.post("/forget", responses=RESPONSES)
    async def forget(body: ForgetBody) -> Forgotten:
        """Takes all feedback of users out; it is gone from the disk when the answer comes."""
        return Forgotten(forgotten=await service.forget(body))

    @app.post("/items", responses=RESPONSES)
    async def items(body: ItemsBody) -> ItemCounts:
        """Adds or changes items, removes them, restores them; on the disk when answered."""
        unknown = await service.change_items(body)
        added, removed = len(service.items.added), len(service.items.removed)
        return ItemCounts(added=added, removed=removed, unknown=unknown)

    @app.post("/reload", responses=RESPONSES)
    async def reload() -> Health:
        """Loads the model of the folder anew, while the old one answers."""
        await service.reload()
        return _describe_health(service, gate)

    @app.get("/health")
    async def health() -> Health:
        """Whether the service takes requests."""
        return _describe_health(service, gate)

    @app.get("/metrics", response_class=Response, responses={401: RESPONSES[401]})
    async def metrics() -> Response:
        """Counts and times, as Prometheus reads them."""
        return Response(service.metrics.format(), media_type=CONTENT_TYPE_LATEST)


def _describe_health(service: Service, gate: Gate) -> Health:
    loaded = service.holder.current
    return Health(
        status="draining" if gate.draining else "ok",
        model=loaded.answering.name,
        version=loaded.version,
        feedback=service.feedback.count,
        waiting=len(service.batcher),
    )


def _add_page(app: FastAPI) -> None:
    for path, (name, kind) in _STATIC.items():
        response = Response((PAGE / name).read_bytes(), media_type=f"{kind}; charset=utf-8")
        app.add_route(path, _make_static(response), methods=["GET"], include_in_schema=False)

    async def docs(request: Request) -> Response:
        return HTMLResponse(render_docs(app.openapi()))

    app.add_route("/docs", docs, methods=["GET"], include_in_schema=False)


def _make_static(response: Response) -> Any:  # noqa: ANN401
    async def answer(request: Request) -> Response:
        return response

    return answer


def _add_errors(app: FastAPI) -> None:
    """Each refusal is `{"error": "one sentence"}`."""

    def refuse(status: int, sentence: str, **headers: str) -> JSONResponse:
        return JSONResponse({"error": sentence}, status, headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return refuse(400, "the body is no JSON.")
        sentence = describe_refusal(first)
        return refuse(422, printable.escape_line(sentence).encode(errors="replace").decode())

    @app.exception_handler(RecsysError)
    async def refuse_query(request: Request, error: RecsysError) -> JSONResponse:
        if isinstance(error, UnknownIdError):  # without the nearest one, which is someone else
            return refuse(404 if error.kind == "user" else 422, error.plain)
        if isinstance(error, OutdatedListError):
            return refuse(409, str(error))
        return refuse(507 if isinstance(error, DiskFullError) else 422, str(error))

    @app.exception_handler(BusyError)
    async def refuse_for_now(request: Request, error: BusyError) -> JSONResponse:
        return refuse(429, "the service is busy; try again.", **{"Retry-After": "1"})

    @app.exception_handler(Exception)
    async def hide_failure(request: Request, error: Exception) -> JSONResponse:
        return refuse(500, "the service failed; where stands in its log.")

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> JSONResponse:
        return refuse(error.status_code, str(error.detail), **dict(error.headers or {}))


def render_docs(schema: dict[str, Any]) -> str:
    """A page of all paths, made of the service's OpenAPI schema; it needs no script."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            answers = "".join(
                f"<li><code>{html.escape(code)}</code> {html.escape(each['description'])}</li>"
                for code, each in about["responses"].items()
            )
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = str(body.get("schema", {}).get("$ref", "")).rpartition("/")[2]
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(about.get('description', ''))}</p>"
                f"{_render_fields(schema['components']['schemas'], name)}<ul>{answers}</ul>"
            )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>recsys: paths</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="/page.css"><main><h1>Paths</h1>'
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a></p>'
        f"{''.join(parts)}</main></html>"
    )


def _render_fields(schemas: dict[str, Any], name: str) -> str:
    """The fields of a body, and of the objects in it."""
    if name not in schemas:
        return ""
    rows, nested = [], []
    for field, about in schemas[name].get("properties", {}).items():
        inner = str(about.get("items", {}).get("$ref", "")).rpartition("/")[2]
        nested += [inner] if inner else []
        kinds = [each.get("type", "") for each in about.get("anyOf", [about])]
        words = [field, " or ".join(kinds), str(about.get("description", ""))]
        rows.append("".join(f"<td>{html.escape(word)}</td>" for word in words))
    table = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<p>{html.escape(name)}</p><table>{table}</table>" + "".join(
        _render_fields(schemas, each) for each in nested
    )
