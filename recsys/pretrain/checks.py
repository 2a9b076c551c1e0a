"""Which settings of a pretraining go together: checked before data is read and torch loaded."""

from __future__ import annotations

from recsys.config.choices import get_choice_name
from recsys.config.pretraining import PretrainConfig
from recsys.errors import ConfigError
from recsys.training.phases import EVERY_STEP

_QUERIES = (
    "data.queries",
    "data.queries_per_user",
    "data.targets",
    "data.negatives",
    "data.hard_from",
    "data.hard_top",
    "data.hard_skip",
    "data.hard_share",
    "data.max_history",
)
_CACHES = ("encoder.cache", "encoder.cache_gb", "encoder.cache_dtype", "encoder.cache_place")


def check_pretraining(run: PretrainConfig) -> None:
    """Refuses what makes no sense.

    Raises:
        ConfigError: Nothing would train, the result could not be kept, or a key asks for what only
            a run with a recommender has.
    """
    method, trainer = get_choice_name(run.tuning), run.trainer
    if run.tuning.moves == "nothing":
        raise ConfigError(
            f"tuning={method} trains nothing of the encoder, and a pretraining leaves nothing "
            "else; set tuning to full, lora or another method."
        )
    if run.encoder.pooling == "attention":
        raise ConfigError(
            "encoder.pooling=attention learns weights that no encoder folder can hold; set it to "
            "auto, mean or another one for the pretraining."
        )
    if trainer.max_steps == 0:
        raise ConfigError("trainer.max_steps=0 trains nothing; set it to 1 or more, or to null.")
    if trainer.processes > 1:
        key, count = max(("devices", trainer.devices), ("nodes", trainer.nodes), key=lambda x: x[1])
        raise ConfigError(
            f"trainer.{key}={count}: a pretraining runs in one process so far; set it to 1."
        )
    if trainer.precision == "bf16-true":
        raise ConfigError(
            "trainer.precision=bf16-true would round every step of a pretraining, whose weights "
            "are written in fp32; set it to bf16-mixed."
        )
    if trainer.shards:
        raise ConfigError(
            "trainer.strategy=fsdp: a pretraining runs in one process so far; leave it out."
        )
    if trainer.batch_tokens is not None:
        raise ConfigError(
            "trainer.batch_tokens counts the texts of users' queries, which a pretraining does not "
            "have; leave it out and set trainer.batch_size."
        )
    if trainer.encoder_updates != EVERY_STEP:
        raise ConfigError(
            f"trainer.encoder_updates={trainer.encoder_updates} trains a table of items in "
            "between, which a pretraining does not have; leave it out."
        )
    if run.pretraining.contrasts and trainer.batch_size < 2:
        raise ConfigError(
            f"trainer.batch_size={trainer.batch_size} leaves no other text to tell one from; set "
            "it to 2 or more."
        )
    run.pretraining.check(run)


def find_inactive_settings(run: PretrainConfig) -> list[str]:
    """A sentence for each key that was set and changes nothing in a pretraining."""
    because = {
        **dict.fromkeys(_QUERIES, "a pretraining has no queries"),
        **dict.fromkeys(_CACHES, "what is read differs in each step, and nothing is kept"),
        "data.user_reviews": "no text of a user is read",
        "data.augment": "what is left out of texts is the affair of pretraining=NAME",
        "optimizer.table_lr": "there is no item table",
    }
    if run.tuning.moves != "encoder":
        because["optimizer.encoder_lr"] = "no pretrained weight trains"
    if not run.pretraining.pools:
        because["encoder.pooling"] = (
            f"{get_choice_name(run.pretraining)} reads token states; it is kept in the folder"
        )
    if not run.pretraining.reads_events:
        because["data.train_users"] = "no event is read"
    out = []
    for key, why in because.items():
        group, _, name = key.partition(".")
        options = getattr(run, group)
        if getattr(options, name) != getattr(type(options)(), name):
            out.append(f"{key} changes nothing in training: {why}.")
    return out
