"""Tiny random models of each family: of those that are usual, and of some whose layers differ."""

import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLNetConfig,
    XLNetModel,
)

from recsys.encoders.encoder import Encoder, SpecialTokens
from recsys.types import Ragged

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


WHOLE = {**SIZES, "max_position_embeddings": 40, "pad_token_id": 0}
FAMILIES = {
    "bert": lambda: BertModel(BertConfig(**WHOLE), add_pooling_layer=False),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            vocab_size=50,
            dim=32,
            n_layers=3,
            n_heads=4,
            hidden_dim=48,
            max_position_embeddings=40,
        )
    ),
    "roberta": lambda: RobertaModel(RobertaConfig(**WHOLE), add_pooling_layer=False),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(**WHOLE, global_attn_every_n_layers=2, local_attention=8)
    ),
    "llama": lambda: LlamaModel(LlamaConfig(**WHOLE)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**WHOLE, num_key_value_heads=2, head_dim=8)),
}
SPECIALS = SpecialTokens(prefix=(1,), separators=(2,), suffix=(2,), pad=0)


def tiny(family: str, pooling: str = "mean", budget: int = 24) -> Encoder:
    torch.manual_seed(0)
    return Encoder(FAMILIES[family](), SPECIALS, pooling, 20, budget)


def texts(*sizes: int) -> Ragged:
    generator = torch.Generator().manual_seed(1)
    return Ragged(torch.randint(3, 50, (sum(sizes),), generator=generator), sizes)


def mpnet() -> MPNetModel:
    return MPNetModel(MPNetConfig(**SIZES, max_position_embeddings=42), add_pooling_layer=False)


def albert() -> AlbertModel:
    return AlbertModel(AlbertConfig(**SIZES, embedding_size=16), add_pooling_layer=False)


def xlnet() -> XLNetModel:
    return XLNetModel(XLNetConfig(vocab_size=50, d_model=32, n_layer=3, n_head=4, d_inner=48))


def electra() -> ElectraModel:
    return ElectraModel(ElectraConfig(**SIZES, embedding_size=16))


def deberta() -> DebertaV2Model:
    config = DebertaV2Config(
        **SIZES,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        conv_kernel_size=3,
    )
    return DebertaV2Model(config)


OTHERS = {
    "mpnet": mpnet,
    "albert": albert,
    "xlnet": xlnet,
    "electra": electra,
    "deberta": deberta,
}
