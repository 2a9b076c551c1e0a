"""A metric's name is checked before anything is loaded."""

import pytest

from recsys.config.compose import compose
from recsys.errors import ConfigError
from recsys.metrics.names import check_monitor, list_metrics


@pytest.mark.parametrize(
    ("words", "monitor"),
    [
        ([], "mrr"),
        (["evaluation.k=[3]"], "hr@3"),
        (["evaluation.protocol=candidates"], "auc"),
        (["evaluation.protocol=impressions"], "ndcg@5"),
        (["evaluation.protocol=sampled", "evaluation.sampled_negatives=7"], "ndcg@10"),
        (["evaluation.protocol=sampled", "evaluation.sampled_negatives=7"], "balanced/ndcg@10"),
        ([], "balanced/ndcg@10"),
        ([], "cold/hr@10"),
    ],
)
def test_what_a_protocol_has_decides(words, monitor):
    check_monitor(compose([*words, f"evaluation.monitor={monitor}"]).evaluation)


@pytest.mark.parametrize("monitor", ["auc", "ndcg@5", "ndgc@10", "val/ndcg@10", "loss"])
def test_what_it_has_not_is_told(monitor):
    with pytest.raises(ConfigError, match=f"evaluation.monitor: '{monitor}' is not a metric"):
        check_monitor(compose([f"evaluation.monitor={monitor}"]).evaluation)


def test_a_sampled_protocol_labels_the_metric_and_not_the_cases():
    words = ["evaluation.protocol=sampled", "evaluation.sampled_negatives=7"]
    options = compose([*words, "evaluation.monitor=balanced/ndcg@10"]).evaluation
    assert options.monitor == "balanced/sampled7-ndcg@10"
    assert options.metric == "sampled7-ndcg@10"


def test_a_label_stands_before_each_name():
    assert list_metrics("sampled", (3,), "sampled7-")[0] == "sampled7-hr@3"
