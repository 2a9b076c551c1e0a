"""Contract tests to inherit: a choice of one's own passes what every shipped choice does.

In a test module of the package that holds the choice:

    from recsys.testing import TuningContract

    class TestMine(TuningContract):
        choice = "my_package.my_tuning"

pytest and the `dev` extra are needed here, and nowhere else in recsys. Every test makes its own
small shop and a tiny random encoder, and takes about a second.
"""

import pytest

for _name in ("architectures", "contract", "objectives", "pretrainings", "sources", "tunings"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")  # what differs is shown, as in tests

from recsys.testing.architectures import ArchitectureContract  # noqa: E402
from recsys.testing.contract import Contract  # noqa: E402
from recsys.testing.objectives import ObjectiveContract  # noqa: E402
from recsys.testing.pretrainings import PretrainingContract  # noqa: E402
from recsys.testing.shop import make_shop_words, write_encoder, write_shop  # noqa: E402
from recsys.testing.sources import SourceContract  # noqa: E402
from recsys.testing.tunings import TuningContract  # noqa: E402

__all__ = [
    "ArchitectureContract",
    "Contract",
    "ObjectiveContract",
    "PretrainingContract",
    "SourceContract",
    "TuningContract",
    "make_shop_words",
    "write_encoder",
    "write_shop",
]
