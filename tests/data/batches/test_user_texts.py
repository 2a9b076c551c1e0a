"""What a template makes of rows with gaps: no mark of the template is left without its value."""

import itertools

import polars as pl
import pytest

from recsys.data.readers.templates import fill_template
from recsys.data.sources import amazon, jsonl

AMAZON = "{title}. {brand}. {categories}. {features} {description}"


def filled(template, **values):
    frame = pl.DataFrame({n: [v] for n, v in values.items()}, dict.fromkeys(values, pl.String))
    return fill_template(frame, template)[0]


def test_the_stops_of_missing_fields_go_in_every_combination():
    for brand, categories, features, description in itertools.product(*((None, x) for x in "BCFD")):
        end = " ".join(v for v in (features, description) if v)
        want = ". ".join(v for v in ("Car 0", brand, categories, end) if v)
        found = filled(
            AMAZON,
            title="Car 0",
            brand=brand,
            categories=categories,
            features=features,
            description=description,
        )
        assert found == want


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("{a}. {b}. {c}", ("Cafe 0", None, "Bern"), "Cafe 0. Bern"),
        ("{a} ({b}). {c}", ("Heat", "1995", None), "Heat (1995)"),
        ("{a} ({b}). {c}", ("Heat", None, None), "Heat"),
        ("{a} ({b}). {c}", ("Heat", None, "Crime"), "Heat. Crime"),
        ("{a}. {b}", (None, "Crime", ""), "Crime"),
        ("{a}. {b}.", ("Heat", None, ""), "Heat."),
        ("{a} - {b}", ("Heat", None, ""), "Heat"),
        ("{a} - {b} - {c}", ("Heat", None, "Crime"), "Heat - Crime"),
        ("{a} \u2013 {b}", (None, "Crime", ""), "Crime"),
        ("{a}, {b}, {c}", ("24", None, "clerk"), "24, clerk"),
        ("{a}. {b}", (None, None, ""), ""),
        # a value's own marks stay
        ("{a} {b}", ("Acme Inc.", None, ""), "Acme Inc."),
        ("{a}. {b}", ("Acme Inc.", None, ""), "Acme Inc."),
        ("{a}, {b}", ("one,", None, ""), "one,"),
        ("{a} -{b}", ("x", "-5", ""), "x --5"),
        ("{a}. {b} {c}", ("Car", None, "Red"), "Car. Red"),
        # complete rows are as they were written
        ("{a}. {b}. {c}", ("Mr.", ". x", "y,"), "Mr.. . x. y,"),
    ],
)
def test_what_is_the_templates_goes_and_what_is_a_values_stays(template, values, text):
    assert filled(template, **dict(zip("abc", values, strict=True))) == text


def test_the_default_templates_are_those_that_were_tried():
    assert amazon.Config().item_text == AMAZON
    assert jsonl.Config().item_text == "{name}. {categories}. {city}"
