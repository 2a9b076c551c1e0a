"""Tiny random models of families whose layers are not what the library calls layers, and others."""

from transformers import (
    AlbertConfig,
    AlbertModel,
    DebertaV2Config,
    DebertaV2Model,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    XLNetConfig,
    XLNetModel,
)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


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
