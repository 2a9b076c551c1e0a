"""A decoder that answers prompts: what it reads, where it starts, and what is refused."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

import recsys
from recsys.assembly import build
from recsys.config.compose import compose
from recsys.data.prompts.template import DEFAULT
from recsys.errors import ConfigError
from recsys.fit.__main__ import main
from recsys.testing.objectives import LABELLED
from recsys.testing.shop import make_decoder_words, write_decoder
from recsys.trained.explanations.page import render_page
from recsys.trained.explanations.terminal import format_explanation
from recsys.trained.queries import Query

LISTS = ["evaluation.protocol=candidates", "evaluation.candidates=9", "evaluation.max_cases=12"]
PROMPT = ["architecture=prompt", "objective=bce", *LISTS]
LIKES = ["data.source.rating=stars", "data.positive_from=3"]
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] | trim }} [EOS]\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def decoder(tiny_decoder):
    return tiny_decoder


@pytest.fixture(scope="session")
def instructed(tmp_path_factory):
    """The same with a chat template, and a head of its own."""
    folder = write_decoder(tmp_path_factory.mktemp("instructed"), tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def words_of(shop_words, folder, *more):
    return [*shop_words, *make_decoder_words(folder), *PROMPT, *more]


def score_by_hand(folder, texts):
    """Logit of Yes less that of No behind each text, by the whole model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])
    out = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        out.append(logits[yes] - logits[no])
    return torch.stack(out)


def list_titles(made, places):
    return [made.parts.texts[row] for row in places]


def write_by_hand(made, batch):
    """The default template of the first query with each of its candidates."""
    rows = batch.plan.items
    likes = list_titles(made, rows[batch.history[0][batch.history[0] >= 0]])
    dislikes = list_titles(made, rows[batch.disliked[0][batch.disliked[0] >= 0]])
    titles = list_titles(made, rows[batch.candidates[0]])
    return [write_prompt(likes, dislikes, title) for title in titles]


def write_prompt(likes, dislikes, title):
    head = f"The user liked, the latest last: {'; '.join(likes)}\n" if likes else ""
    if dislikes:
        head += f"The user disliked, the latest last: {'; '.join(dislikes)}\n"
    return f"{head}Would the user like this next: {title}? Answer Yes or No.\nAnswer:"


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("chats", [False, True])
def test_it_starts_as_the_language_model_is(shop_words, decoder, instructed, chats, share):
    """Frozen and untrained, its scores are those of the model that reads the prompt as a text."""
    folder = instructed if chats else decoder
    more = [*LIKES, "tuning=frozen", f"architecture.share_prefix={share}", "data.split=time"]
    made = build.assemble(compose(words_of(shop_words, folder, *more)))
    for batch in made.datamodule.test_dataloader():
        texts = write_by_hand(made, batch)
        if chats:
            texts = [f"<|user|> {text} [EOS]\n<|assistant|>\n" for text in texts]
        with torch.no_grad():
            scores = made.recommender.eval()(batch).scores
        assert scores.std() > 0.05
        torch.testing.assert_close(scores[0], score_by_hand(folder, texts), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chats", [False, True])
def test_in_bf16_it_answers_nearly_as_in_fp32(shop_words, decoder, instructed, chats):
    """The head's rows stand in the file in fp32, or in the table in bf16: neither is another."""
    words = words_of(shop_words, instructed if chats else decoder, "tuning=frozen")
    scores = []
    for dtype in ("fp32", "bf16"):
        made = build.assemble(compose([*words, f"encoder.dtype={dtype}"]))
        with torch.no_grad():
            scores.append(made.recommender.eval()(next(iter(made.datamodule.test_dataloader()))))
    assert scores[1].scores.dtype == torch.float32
    error = (scores[0].scores - scores[1].scores).abs().mean()
    spread = scores[0].scores.std()
    assert 0 < error < 0.1 * spread


ROLES = (
    "{% for m in messages %}<s>{{m['role']}}: {{m['content']}}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{m['role']}}\n{{m['content']}}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
JUDGE = "{likes}\n\nYou judge films.\n\n{dislikes} not.\n\nWould they like {candidate}? Yes or No:"
SAID = {
    DEFAULT: "Would the user like this next: {}? Answer Yes or No.\nAnswer:",
    JUDGE: "\nYou judge films.\n\n\nWould they like {}? Yes or No:",
    "You judge.\n\n \nWould they like{candidate}?": "You judge.\n\n \nWould they like{}?",
    "{candidate}?": "{}?",
}
"""Templates, and what they say of an item to someone unknown."""


def write_chatting(folder, chat):
    """A decoder whose tokens are of bytes: the word behind a blank is another than without."""
    write_decoder(folder, vocab_size=700)
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    corpus = [f"user: {JUDGE} {DEFAULT} red lamp blue chair Yes No.\n\nYes\nNo"] * 9
    trainer = trainers.BpeTrainer(
        vocab_size=690,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("chat", [ROLES, CHATML])
def test_a_chat_is_tokenised_as_the_whole_text_is(shop_words, tmp_path, chat):
    """Header, template and footer, whichever lines are left out."""
    folder = tmp_path / "chatting"
    tokenizer = write_chatting(folder, chat)
    words = words_of(shop_words, folder, *LIKES, "data.positive_from=5", "encoder.max_length=128")
    for template, said in SAID.items():
        made = build.assemble(compose([*words, f"architecture.template={json.dumps(template)}"]))
        nobody = made.examples.make_serving_batch(torch.empty(0, dtype=torch.long).numpy())
        check_chat(made, tokenizer, nobody, said.format(made.parts.texts[5]), torch.tensor([5]))
    made = build.assemble(compose(words))
    batch = next(b for b in made.datamodule.test_dataloader() if (b.disliked[0] >= 0).any())
    said = write_by_hand(made, batch)[0]
    check_chat(made, tokenizer, batch, said, batch.plan.items[batch.candidates[0, :1]])


def check_chat(made, tokenizer, batch, said, row):
    """Compares the token ids of a batch's first prompt with those of the message in one."""
    start, *_ = made.encoding.prompts.compose_prefixes(batch).split()
    (end,) = made.encoding.prompts.gather_suffixes(row).split()
    message = [{"role": "user", "content": said}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    want = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [*start.tolist(), *end.tolist()] == want


def test_dislikes_are_read_where_the_data_has_them(shop_words, decoder):
    made = build.assemble(compose(words_of(shop_words, decoder, *LIKES)))
    examples = made.examples
    batch = next(iter(made.datamodule.test_dataloader()))
    split = examples.split
    had = 0
    for query, case in enumerate(batch.case.tolist()):
        user = int(batch.users[query])
        before = range(split.offsets[user], case)
        want = [int(split.item[e]) for e in before if not split.label[e]][-examples.max_history :]
        got = batch.plan.items[batch.disliked[query][batch.disliked[query] >= 0]].tolist()
        assert got == want
        had += len(want)
    assert had
    none = build.assemble(compose(words_of(shop_words, decoder)))
    assert not next(iter(none.datamodule.test_dataloader())).disliked.numel()
    plain = "architecture.template='{likes} like {candidate}?'"
    without = build.assemble(compose(words_of(shop_words, decoder, plain)))
    assert next(iter(without.datamodule.test_dataloader())).disliked is None


def test_the_oldest_titles_go_where_the_prompt_is_too_long(shop_words, decoder):
    own = words_of(shop_words, decoder, "architecture.template='user {likes} like {candidate}?'")
    titles = [[torch.tensor(x)] for x in (3, 8, 21)]
    said = []
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    for longest in (128, 12):
        made = build.assemble(compose([*own, f"encoder.max_length={longest}"]))
        batch = made.examples.make_serving_batch(torch.tensor([3, 8, 21]).numpy())
        (ids,) = made.encoding.prompts.compose_prefixes(batch).split()
        said.append(tokenizer.decode(ids))
        titles = list_titles(made, [3, 8, 21])
    assert said[0] == f"user {titles[0]} [UNK] {titles[1]} [UNK] {titles[2]} like"
    assert said[1] == f"user {titles[1]} [UNK] {titles[2]} like"


@pytest.mark.parametrize("objective", ["bce", "sampled_softmax", "bpr"])
def test_the_command_trains_with_every_objective_of_scores(
    shop_words, decoder, tmp_path, objective
):
    own = [w for w in words_of(shop_words, decoder, *LIKES) if not w.startswith("objective=")]
    own += [f"objective={objective}", "objective.negatives=3", "trainer.epochs=1"]
    assert main([*own, "tuning=lora", "tuning.layers=2"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["test"]["ndcg@10"] > 0
    assert result["floors"]["zero-shot"]["ndcg@10"] > 0


def test_a_bundle_answers_as_its_run_does(shop_words, instructed, tmp_path):
    """Its encoder is the bare model: the two rows of the head are files of the bundle."""
    own = words_of(shop_words, instructed, *LIKES, "tuning=lora", "trainer.epochs=1")
    assert main(own) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = recsys.load(folder)
    run.export(tmp_path / "bundle", format="bundle")
    bundle = recsys.open_bundle(tmp_path / "bundle")
    for asked in (
        {"users": ["u3", "u4"]},
        {"histories": [["003", "021"]]},
        {"texts": ["red lamp"]},
    ):
        one, other = (each.recommend(**asked, k=4, candidates=9) for each in (run, bundle))
        assert one["item"].to_list() == other["item"].to_list()
        assert one["score"].to_list() == pytest.approx(other["score"].to_list(), abs=1e-5)
        assert one["score"].n_unique() > 2


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["architecture.template='{likes} {genre} {candidate}?'"],
            r"'\{genre\}', which is unknown",
        ),
        (["architecture.template='{likes}'"], r"must name \{candidate\}.*0 times"),
        (["architecture.template='{candidate} {likes}?'"], r"\{likes\} behind \{candidate\}"),
        (["architecture.template='{likes} {candidate'"], "cannot be read"),
        (["architecture.template='{likes!r} {candidate}?'"], "has a format"),
        (["architecture.template='{likes} {candidate}'"], "ends with"),
        (["architecture.yes='red lamp'"], r"architecture.yes: 'red lamp' is 2 tokens"),
        (["architecture.no=Yes"], "not two words"),
        (["encoder.max_length=129"], "has 128 positions"),
        (["encoder.max_length=20"], "leaves no room for a history"),
        (["evaluation.protocol=catalog"], "protocol=candidates"),
        (["encoder.attention=bidirectional"], "attention=bidirectional lets tokens see"),
        (["data.queries=all"], "data.queries=all would cost"),
        (["tuning=frozen", "architecture.residual=false"], "nothing would train"),
        (["architecture.context=[nothing]"], "no column 'nothing'"),
        (["data.augment.drop_words=0.1"], "reads them whole"),
        (["data.augment.crop=0.5"], "what a user liked, and not"),
    ],
)
def test_bad_input_is_one_sentence(shop_words, decoder, more, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build.assemble(compose(words_of(shop_words, decoder, *more)))


def test_a_model_without_a_head_is_refused_before_data_is_read(
    shop_words, tiny_bert, decoder, instructed, tmp_path, monkeypatch
):
    monkeypatch.setattr("recsys.assembly.build.PreparedData.prepare", None)
    with pytest.raises(ConfigError, match="family bert, which has no head"):
        build.assemble(compose([*shop_words, *PROMPT, f"encoder.model={tiny_bert}"]))
    bare = AutoModelForCausalLM.from_pretrained(instructed).model
    bare.save_pretrained(tmp_path / "bare")
    AutoTokenizer.from_pretrained(instructed).save_pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"lm_head.weight is not among its weights"):
        build.assemble(compose(words_of(shop_words, tmp_path / "bare")))
    with pytest.raises(ConfigError, match="is 2 tokens"):
        build.assemble(compose(words_of(shop_words, decoder, "architecture.no='not red'")))


def test_a_line_of_which_nothing_is_known_is_left_out(situated_words, decoder):
    lines = ["About: {user}", "Liked: {likes}", "On {device} at {weekday}", "Now: {context}"]
    lines.append("Like {candidate}?")
    template = json.dumps("\n".join(lines))
    more = [f"architecture.template={template}", "architecture.context=[device,weekday]"]
    made = build.assemble(compose(words_of(situated_words, decoder, *more)))
    prompts = made.encoding.prompts
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    seen = []
    texts, tokenize = [], prompts._tokenize
    prompts._tokenize = lambda new: texts.extend(new) or tokenize(new)
    for batch in made.datamodule.train_dataloader():
        seen += [len(x) for x in prompts.compose_prefixes(batch).split()]
    # All that is not of the template was tokenised before, and each text of it is once.
    assert len(texts) == len(set(texts))
    assert {word for text in texts for word in text.split()} <= set(
        template[1:-1].replace("\\n", " ").split()
    )
    assert len(set(seen)) > 1
    nobody = made.examples.make_serving_batch(torch.empty(0, dtype=torch.long).numpy())
    (ids,) = prompts.compose_prefixes(nobody).split()
    assert tokenizer.decode(ids) == "[UNK]" or tokenizer.decode(ids).split() == ["[UNK]"]


def test_kept_states_change_no_figure_and_cost_less(shop_words, decoder, tmp_path):
    """Observed labels come again in each epoch, the lists of a validation in the next one."""
    own = words_of(shop_words, decoder, *LABELLED, "tuning=lora", "tuning.layers=2")
    own += ["objective.negatives=0", "trainer.epochs=3", "data.queries=last"]
    found = []
    for cache in ("true", "false"):
        out = tmp_path / cache
        assert main([*own, f"encoder.cache={cache}", f"output={out}"]) == 0
        (path,) = out.glob("*/result.json")
        found.append(json.loads(path.read_text()))
    kept, plain = found
    assert kept["test"] == pytest.approx(plain["test"], abs=1e-4)
    assert kept["cost"]["tokens"] == plain["cost"]["tokens"]
    assert kept["cost"]["train_flops"] < 0.9 * plain["cost"]["train_flops"]


def test_it_ranks_what_another_run_proposes_and_learns_from_its_best(shop_words, decoder, tmp_path):
    first = tmp_path / "first"
    assert main([*shop_words, "architecture=item_knn", f"output={first}"]) == 0
    (run,) = first.iterdir()
    own = words_of(shop_words, decoder, "tuning=lora", "trainer.epochs=1", "objective.negatives=4")
    own += ["data.negatives=hard", f"data.hard_from={run}", "data.hard_top=9"]
    assert main([*own, f"evaluation.candidates_from={run}"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    answers = recsys.load(folder).recommend(users=["u3"], k=3, retriever=recsys.load(run))
    assert answers["score"].n_unique() == 3


def test_each_word_of_a_prompt_has_its_part_in_the_score(situated_words, decoder, tmp_path):
    """Words of the template are none of the user's or the item's."""
    lines = ["{device} {user}", "liked {likes} [ {dislikes} ]", "{context}", "like {candidate} ?"]
    template = json.dumps("\n".join(lines))
    own = [f"architecture.template={template}", "architecture.context=[device]"]
    own += [*LIKES, "tuning=lora", "trainer.max_steps=2"]
    assert main(words_of(situated_words, decoder, *own)) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = recsys.load(folder)
    for query in ({"user": "u3"}, {"history": ["017", "003"]}, {"text": "red lamp"}):
        asked = {**query, "context": {"device": "phone"}}
        why = run.explain("000", **asked, tokens=True)
        (reading,) = why.readings
        assert reading.score == pytest.approx(why.score, rel=1e-4, abs=1e-4)
        words = sum(text.value for text in reading.texts)
        assert words == pytest.approx(reading.score - reading.baseline, rel=0.02, abs=1e-4)
        said = [(text.kind, [word.text for word in text.words]) for text in reading.texts]
        assert ("item", ["red", "lamp"]) in said
        assert ("context", ["phone"]) in said
        assert ("context", ["device:", "phone"]) in said
        if "history" in query:
            assert [kind for kind, _ in said].count("title") == 2
        if "text" in query:
            assert ("text", ["red", "lamp"]) in said


def test_what_was_disliked_has_its_part_and_is_called_so(shop_words, decoder, tmp_path):
    """Each part is by how much the score falls where the prompt does not name that title."""
    own = [*LIKES, "tuning=frozen", "trainer.max_steps=0"]
    assert main(words_of(shop_words, decoder, *own)) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    run = recsys.load(folder)
    why = run.explain("000", user="u3")
    batch = run.suggester.prepare(Query(user="u3"), "000", "now", {}).batch
    rows, texts = batch.plan.items, run.suggester.model.recommender.parts.texts
    liked, disliked = (
        [texts[row] for row in rows[of[0][of[0] >= 0]]] for of in (batch.history, batch.disliked)
    )
    assert liked
    assert {part.title for part in why.history if part.disliked} == set(disliked) - set(liked)
    assert len(disliked) > 1
    variants = [[x for x in disliked if x != part.title] for part in why.history]
    variants = [
        write_prompt([x for x in liked if x != part.title], kept, texts[0])
        for part, kept in zip(why.history, variants, strict=True)
    ]
    score, *others = score_by_hand(decoder, [write_prompt(liked, disliked, texts[0]), *variants])
    assert why.score == pytest.approx(float(score), abs=1e-4)
    drops = [float(score - other) for other in others]
    assert [part.value for part in why.history] == pytest.approx(drops, abs=1e-4)
    assert min(abs(part.value) for part in why.history) > 1e-3
    assert sum(abs(part.share) for part in why.history) == pytest.approx(1)
    assert dict(why.to_frame().select("item", "disliked").iter_rows()) == {
        part.item: part.disliked for part in why.history
    }
    said = "\n".join(format_explanation(why, most=99))
    page = render_page(why)
    for part in why.history:
        assert (f"disliked: {part.title}" in said) == part.disliked
        assert (f"disliked:</span> {part.title}" in page) == part.disliked


def test_a_tokenizer_that_knows_single_texts_alone_reads_prompts(shop_words, tmp_path, capsys):
    """Its special token stands once, at the beginning; a model that reads pairs is refused."""
    folder = write_decoder(tmp_path / "single", tie_word_embeddings=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[EOS] $A", special_tokens=[("[EOS]", 2)]
    )
    tokenizer.save_pretrained(folder)
    made = build.assemble(compose(words_of(shop_words, folder, *LIKES, "tuning=frozen")))
    batch = next(iter(made.datamodule.test_dataloader()))
    start, *_ = made.encoding.prompts.compose_prefixes(batch).split()
    assert [place for place, id in enumerate(start.tolist()) if id == 2] == [0]
    with torch.no_grad():
        scores = made.recommender.eval()(batch).scores
    texts = [f"[EOS] {text}" for text in write_by_hand(made, batch)]
    torch.testing.assert_close(scores[0], score_by_hand(folder, texts), atol=1e-5, rtol=1e-5)
    pairs = ["architecture=cross_encoder", "objective=bce", "tuning=frozen", *LISTS]
    assert main([*shop_words, *make_decoder_words(folder), *pairs]) == 2
    assert f"the tokenizer of {folder} does not put the special" in capsys.readouterr().err
