"""An explanation as a notebook shows it."""

from __future__ import annotations

from recsys.trained.explanations.page import render_body
from recsys.trained.explanations.parts import ExplainedScore


class Explanation(ExplainedScore):
    """Why an item has its score; a notebook shows it as the page does."""

    def _repr_html_(self) -> str:
        return render_body(self)
