"""How a run reads texts: encoder and tuning, tokens of items and users, and what is kept."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Sequence

import torch

from recsys.assembly.augmentation import check_texts_are_read
from recsys.assembly.device import select_device
from recsys.assembly.prompts import LONGEST, make_pieces, make_prompt_texts
from recsys.config.compose import RunConfig
from recsys.config.schema import EncoderOptions, PromptOptions, TuningConfig
from recsys.data.augmentation.fields import make_field_variants
from recsys.data.augmentation.texts import TrainingTexts
from recsys.data.augmentation.words import build_word_numbers
from recsys.data.batches import query_texts
from recsys.data.batches.catalog import Catalog, Tokenize
from recsys.data.batches.user_texts import UserTexts
from recsys.data.context import ContextFeatures
from recsys.data.moments import find_query_column, keep_last_words
from recsys.data.prompts.texts import PromptTexts
from recsys.data.tables import Tables
from recsys.encoders.cache.frozen_layers import FrozenLayerCache
from recsys.encoders.cache.text_vectors import TextVectorCache
from recsys.encoders.cache.vectors import FrozenVectorCache
from recsys.encoders.cut import ModelSplitError
from recsys.encoders.encoder import Encoder
from recsys.encoders.language_model.kept_states import KeepOptions
from recsys.encoders.packing.enabling import enable_packing
from recsys.encoders.passages import TextSpans
from recsys.encoders.pretrained.load import PretrainedEncoder, load_pretrained
from recsys.encoders.pretrained.tokenizer import check_vocabulary
from recsys.encoders.weights.precision import hold_in_bf16
from recsys.recommender.components import TextComponents
from recsys.recommender.optim import set_dropout
from recsys.runtime.progress import print_status
from recsys.runtime.ranks import get_rank
from recsys.runtime.store import Store
from recsys.types import Tuned


def load_encoding(
    run: RunConfig,
    items: Sequence[str],
    tables: Tables,
    context: ContextFeatures,
    fitted: Sequence[str] | None = None,
) -> tuple[TextComponents, Tokenize]:
    """Encoder, tuning and tokens; also how a free text is tokenised.

    Args:
        run: The configuration.
        items: Text of every item.
        tables: The data set.
        context: What may be said of a query.
        fitted: Texts of the items of the fit, where others are to be ranked: what the store keeps
            is of these. None: they are the same.
    """
    options = run.encoder
    asked = run.architecture.prompt
    longest = None if asked is None else LONGEST
    loaded, tuned = load_tuned(options, run.regularization.dropout, run.tuning, longest)
    encoder = loaded.encoder
    if run.trainer.precision == "bf16-true":
        hold_in_bf16(encoder.model)
    texts = _TextTokenizer(run, loaded)
    catalog = texts.build_item_catalog(items, texts.item_prompt, fitted)
    check_vocabulary(catalog, "item", loaded.tokenizer, get_rank() == 0)
    training = None
    if run.data.augment.changes_texts:
        training = texts.build_training_texts(tables, texts.item_prompt)
    user_texts, prompts = None, None
    if asked is not None:
        prompts = texts.build_prompts(asked, items, tables, context, fitted)
    elif run.architecture.reads_user_texts:
        user_texts = texts.build_user_texts(items, tables, context, fitted)
    prefix, vectors = _build_caches(run, encoder, tuned, catalog, texts.store)
    pooled = "table" in run.architecture.gives  # else a text has no vector
    keeps = options.cache and pooled and user_texts is not None and not tuned.trained
    encoding = TextComponents(
        catalog=catalog,
        encoder=encoder,
        tuned=tuned,
        user_texts=user_texts,
        prompts=prompts,
        keeps=KeepOptions(options.cache_gb, options.cache_dtype) if options.cache else None,
        prefix=prefix,
        vectors=vectors,
        user_vectors=TextVectorCache(encoder, options.cache_gb) if keeps else None,
        training_texts=training,
        following=loaded.following,
        files=loaded.files,
        spans=texts.make_spans(),
    )
    return encoding, texts.tokenize_queries


def load_tuned(
    options: EncoderOptions,
    dropout: float | None,
    tuning: TuningConfig | None,
    longest: int | None = None,
) -> tuple[PretrainedEncoder, Tuned]:
    """A pretrained encoder, and what a tuning method did to it.

    Args:
        options: Which model, and how its states become vectors.
        dropout: Of the layers that train; None: as the model has it.
        tuning: The `Config` of the method.
        longest: Longest text where the options name none; None: as the model's folder has it.

    Raises:
        ConfigError: The model cannot be used, or the method does not fit it.
    """
    loaded = load_encoder(options, longest)
    set_dropout(loaded.encoder.model, dropout)
    tuned: Tuned = importlib.import_module(type(tuning).__module__).apply(loaded.encoder, tuning)
    line = enable_packing(loaded.encoder, options.packing)
    if line:
        print_status(line)
    return loaded, tuned


def load_encoder(options: EncoderOptions, longest: int | None = None) -> PretrainedEncoder:
    """A pretrained encoder as its folder and the options have it.

    Args:
        options: Which model, and how its states become vectors.
        longest: As in `load_tuned`.

    Raises:
        ConfigError: The model cannot be used.
    """
    print_status(f"loading the encoder: {options.model}")
    return load_pretrained(
        options.model,
        options.revision,
        options.sha256,
        pooling=options.pooling,
        max_length=options.max_length,
        query_prompt=options.query_prompt,
        item_prompt=options.item_prompt,
        chunk_tokens=options.chunk_tokens,
        checkpoint_chunks=options.checkpoint_chunks,
        attention=options.attention,
        longest=longest,
        dtype=options.dtype,
        quantize=options.quantize,
        width=options.width,
    )


def build_catalog(
    loaded: PretrainedEncoder,
    texts: Sequence[str],
    prompt: str,
    max_tokens: int,
    empty: bool = True,
) -> Catalog:
    """Tokens of texts behind a prompt, tokenised now or read from the store.

    Args:
        loaded: Has the tokenizer.
        texts: The texts.
        prompt: The prompt.
        max_tokens: Longer texts are cut after so many tokens, those of the prompt not counted.
        empty: Whether the prompt stands before an empty text too.
    """
    whole = [prompt + t if t or empty else t for t in texts] if prompt else texts
    most = count_kept(loaded, prompt, max_tokens)
    return Catalog.from_texts(whole, loaded.tokenize, compute_key(loaded), Store(), most)


def compute_key(loaded: PretrainedEncoder) -> str:
    """Fingerprint of the tokenizer: other tokens mean another one."""
    return hashlib.sha256(loaded.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def count_kept(loaded: PretrainedEncoder, prompt: str, max_tokens: int) -> int:
    """Tokens of a text behind a prompt that are kept, those of the prompt included."""
    return max_tokens + (len(loaded.tokenize([prompt])[0]) if prompt else 0)


_WHOLE = 2**31 - 1
"""Tokens that no text has, for those that are cut where they are read."""


class _TextTokenizer:
    """Tokens of a run's texts, with the prompts that stand before them.

    Where an architecture reads user and item in one sequence there is no prompt: they were made for
    texts that pass the encoder on their own.

    Args:
        run: The configuration.
        loaded: Encoder, tokenizer and what is followed; it is told once.
    """

    def __init__(self, run: RunConfig, loaded: PretrainedEncoder) -> None:
        self._run, self._loaded = run, loaded
        self.store, self._key = Store(), compute_key(loaded)
        own, alone = loaded.following, run.architecture.reads_item_vectors
        self.item_prompt = own.item_prompt if alone else ""
        self.query_prompt = own.query_prompt if alone else ""
        # What is said of a query comes before all else, and the prompt before that.
        self._latest = find_query_column(run.data) is not None
        said = run.architecture.reads_context_texts or self._latest
        self._apart = run.architecture.reads_user_texts and said
        self._led_by = "" if self._apart else self.query_prompt
        but = ""
        if not alone:
            but = "; here user and item are one sequence, without prompts and pooling"
        elif "table" not in run.architecture.gives:
            but = "; here token states are compared, without pooling"
        if loaded.line and get_rank() == 0:
            print(loaded.line + but, file=sys.stderr)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Raw token ids of each text."""
        return self._loaded.tokenize(texts)

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Raw token ids of texts that stand for a user, behind their prompt."""
        return self.tokenize([self._led_by + text for text in texts])

    def make_spans(self) -> TextSpans:
        """Where the tokens of these texts stand in them."""
        return TextSpans(self._loaded.find_spans, self.item_prompt, self._led_by)

    def build_catalog(self, texts: Sequence[str], prompt: str, empty: bool = True) -> Catalog:
        """Tokens of texts behind a prompt, as the function of that name."""
        return build_catalog(self._loaded, texts, prompt, self._run.data.max_tokens, empty)

    def build_item_catalog(
        self, texts: Sequence[str], prompt: str, fitted: Sequence[str] | None
    ) -> Catalog:
        """Tokens of items behind a prompt; of those that the fit did not know, in memory."""
        if fitted is None:
            return self.build_catalog(texts, prompt)
        most = count_kept(self._loaded, prompt, self._run.data.max_tokens)
        known, now = ([prompt + text for text in each] for each in (fitted, texts))
        return self.build_catalog(fitted, prompt).revise(known, now, self._loaded.tokenize, most)

    def build_training_texts(self, tables: Tables, prompt: str) -> TrainingTexts:
        """The item texts of which each epoch leaves something out, behind a prompt that stays.

        Args:
            tables: The items, with the columns that their texts were made of.
            prompt: The prompt.

        Raises:
            ConfigError: Fields are to be left out, and the texts have none that can be.
        """
        run, options = self._run, self._run.data.augment
        texts: Sequence[str] = tables.items["text"].to_list()
        rows, words = None, None
        if options.drop_fields:
            source = run.data.source
            made = make_field_variants(tables.items, source.item_template, source.text_lists)
            texts, rows = made.texts, made.rows
        catalog = self.build_catalog(texts, prompt)
        if options.drop_words:
            behind = [prompt + text for text in texts]
            how = (
                self._loaded.find_spans,
                self._key,
                self.store,
                count_kept(self._loaded, prompt, run.data.max_tokens),
            )
            words = build_word_numbers(behind, len(prompt), *how)
        return TrainingTexts(
            catalog,
            run.seed,
            drop_words=options.drop_words,
            words=words,
            drop_fields=options.drop_fields,
            rows=rows,
        )

    def build_user_texts(
        self,
        items: Sequence[str],
        tables: Tables,
        context: ContextFeatures,
        fitted: Sequence[str] | None,
    ) -> UserTexts:
        """Texts of users, which are composed of profile and titles.

        Args:
            items: Text of each item.
            tables: The users, and the items as `build_training_texts` has them.
            context: Contextual features that may be part of a query's text.
            fitted: As in `load_encoding`.
        """
        profiles = tables.users["text"].to_list()
        titles = self.build_item_catalog(items, "", fitted)
        bare = self.build_catalog(profiles, "")
        check_vocabulary(bare, "user", self._loaded.tokenizer, get_rank() == 0)
        led = self._led_by
        own = self.build_catalog(profiles, led, empty=False) if led else bare
        longest = self._run.data.max_tokens
        pieces = query_texts.make_context_texts(self._run, context)
        said = {n: [ids[:longest] for ids in self.tokenize(of)] for n, of in pieces.items()}
        between = tuple(self.tokenize([";"])[0])
        prompt = tuple(self.tokenize([self.query_prompt])[0]) if self.query_prompt else ()
        length = self._loaded.encoder.max_length
        training = None
        if self._run.data.augment.changes_texts:
            training = self.build_training_texts(tables, "")
        latest = self._count_latest(len(prompt)) if self._latest else None
        moments = None
        if context.moments is not None and latest is not None:
            moments = self._build_moments(context.moments.texts, latest, "")
        return UserTexts(
            titles,
            own,
            between,
            length,
            said,
            prompt,
            training,
            moments,
            self._apart,
            latest,
        )

    def _count_latest(self, prompt: int) -> int:
        """Tokens that are kept of what a user said, where it ends.

        Args:
            prompt: Tokens of the prompt before it.
        """
        encoder = self._loaded.encoder
        specials = encoder.specials
        room = encoder.max_length - len(specials.prefix) - len(specials.suffix) - prompt
        if not self._run.architecture.reads_item_vectors:  # an item stands in the same sequence
            room -= len(specials.get_separators()) + self._run.data.max_tokens
        return max(room, 1)

    def _build_moments(self, texts: Sequence[str], latest: int, lead: str) -> Catalog:
        """Tokens of what users said, of long ones those of the last words.

        Args:
            texts: By code.
            latest: Tokens that are read of each.
            lead: What stands before each that says something.
        """
        # No word has less than a token: the rest of a long text is never read.
        ends = [keep_last_words(text, latest) for text in texts]
        led = [lead + text if text else "" for text in ends]
        return Catalog.from_texts(led, self.tokenize, self._key, self.store, _WHOLE)

    def build_prompts(
        self,
        options: PromptOptions,
        items: Sequence[str],
        tables: Tables,
        context: ContextFeatures,
        fitted: Sequence[str] | None,
    ) -> PromptTexts:
        """Prompts of queries and items.

        Args:
            options: What the architecture says of them.
            items: Text of each item.
            tables: The users.
            context: Contextual features that may be part of a prompt.
            fitted: As in `load_encoding`.
        """
        loaded, profiles = self._loaded, tables.users["text"].to_list()
        bare = self.build_catalog(profiles, "")
        check_vocabulary(bare, "user", loaded.tokenizer, get_rank() == 0)

        def count_longest(lead: str) -> int:
            known = self.build_catalog(items if fitted is None else fitted, lead)
            return max(known.count_tokens(torch.arange(len(known))))

        def build_moments(lead: str) -> Catalog:
            assert context.moments is not None, "only then it is asked for"
            return self._build_moments(context.moments.texts, loaded.encoder.max_length, lead)

        return make_prompt_texts(
            make_pieces(
                options,
                tuple(context.values),
                loaded.files.spec,
                loaded.tokenizer,
                self.tokenize,
                loaded.encoder.specials,
            ),
            self.tokenize,
            lambda lead: self.build_item_catalog(items, lead, fitted),
            lambda lead: self.build_catalog(profiles, lead, empty=False),
            context,
            loaded.encoder.max_length,
            count_longest,
            None if context.moments is None else build_moments,
            self._latest,
        )


def _build_caches(
    run: RunConfig, encoder: Encoder, tuned: Tuned, catalog: Catalog, store: Store
) -> tuple[FrozenLayerCache | None, FrozenVectorCache | None]:
    """What is not computed again: states below the lowest trained layer, or frozen vectors."""
    options, first = run.encoder, get_rank() == 0
    whole, part = not tuned.trained, 0 < encoder.lowest_trained < encoder.depth
    if not (options.cache and run.architecture.reads_item_vectors and (whole or part)):
        return None, None
    check_texts_are_read(run)
    prefix, vectors, report = None, None, None
    size = FrozenLayerCache.compute_size_gb(encoder, catalog, options.cache_dtype)
    # Token states are read where there is no vector an item, also those of a frozen encoder.
    pooled = whole and "table" in run.architecture.gives
    if pooled:
        size = FrozenVectorCache.compute_size_gb(encoder, catalog)
    line = (
        f"what the frozen layers give would take {size:.1f} GB, more than "
        f"encoder.cache_gb={options.cache_gb:g}: it is not kept"
    )
    if size <= options.cache_gb and pooled:
        vectors = FrozenVectorCache.build(
            encoder, catalog, store, device=select_device(run), show=first
        )
        report = vectors.report
    elif size <= options.cache_gb:
        try:
            prefix = FrozenLayerCache.build(
                encoder,
                catalog,
                store,
                dtype=options.cache_dtype,
                place=options.cache_place,
                device=select_device(run),
                show=first,
            )
            report = prefix.report
        except ModelSplitError as error:
            line = f"{error}: the layers below the lowest trained one are computed in every step"
    if first and (report is None or report.built or report.dtype == "fp16"):
        print(line if report is None else report.describe(), file=sys.stderr)
    return prefix, vectors
