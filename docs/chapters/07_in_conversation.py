# %% [markdown]
# # In conversation
#
# A list is an answer to someone who may not have known what to ask. This chapter lets them answer
# back: they say what is wrong with a list, and get a better one. No generative model takes part:
# what is said moves a query vector, is a filter over columns, or both. The chapter runs in a minute
# on one core, needs no network but this machine's own, and asserts what it claims:
# `python docs/chapters/07_in_conversation.py`.
#
# The shop is that of the chapters before, and this time its table says more of a product than the
# title: material, room, and price.

# %%
import csv
import random
from pathlib import Path

import shop

shop.write(Path(), users=300, skew=1.0)
with Path("items.csv").open() as file:
    rows = [(row["id"], row["title"], *row["title"].split(", ")) for row in csv.DictReader(file)]
rng = random.Random(0)
with Path("items.csv").open("w", newline="") as file:
    out = csv.writer(file)
    out.writerow(["id", "title", "material", "room", "price"])
    for item, title, thing, room in rows:
        (material,) = (m for m in shop.MATERIALS if thing.lower().startswith(m))
        out.writerow([item, title, material, room, f"{rng.uniform(5, 90):.2f}"])
SHOP = (
    "data.source=tables data.source.interactions=events.csv data.source.items=items.csv"
    " data.source.user=customer data.source.item=product data.source.items_id=id"
    """ data.source.item_text="'{title}'" """
)
print(f"{shop.fit(f'experiment=zero_shot {SHOP}'):.1f} nDCG@10, in percent")

# %% [markdown]
# ## Say it
#
# In a terminal this is `python -m recsys.chat run=last`. Here the same lines are said in Python.
# Chips below the list are what holds so far, and how many products fit.

# %%
import recsys
from recsys.chat.lines import format_turn

conversation = recsys.load("last").converse(k=4)


def say(line):
    """Says a line, prints what it leads to, and gives the columns of what is listed."""
    turn = conversation.say(line)
    print(f"> {line}", *format_turn(turn, 100, 160), sep="\n")
    return conversation.model.items.filter(
        conversation.model.items["item"].is_in([each.item for each in conversation.items])
    )


wood = say("something wooden to sit on")

# %% [markdown]
# A like and a dislike move the query; a value, or a bound on a number, is a filter. "cheaper" is
# cheaper than the middle of the list.

# %%
liked = conversation.items[0].item
before = sorted(float(price) for price in wood["price"])
cheaper = say("more like 1, cheaper")
assert liked not in list(cheaper["item"])
assert max(float(price) for price in cheaper["price"]) < (before[1] + before[2]) / 2

# %%
kept = say("no living room")
assert "living room" not in list(kept["room"])

# %% [markdown]
# Why is the first one there? What each part of the conversation adds to its score, and what it
# fits.

# %%
say("why 1")
parts = conversation.items[0].parts
assert abs(sum(value for _, value in parts) - conversation.items[0].score) < 1e-4

# %% [markdown]
# ## Take it back
#
# Each chip has a letter. Undo goes back by a line that changed something.

# %%
before = conversation.state.critiques
say("under $1")
assert not conversation.items
say("undo")
assert conversation.state.critiques == before
say("drop a")
assert conversation.state.critiques == before[1:]

# %% [markdown]
# People have words of their own. A material beside words of opinion is heard as what it is; what is
# not understood as anything else is text, and stands as such among the chips, where it can be seen.

# %%
without = say("could you leave out the leather?")
assert "leather" not in list(without["material"])
say("my aunt comes to tea")
assert conversation.state.list_texts() == ["my aunt comes to tea"]

# %% [markdown]
# ## The same over HTTP
#
# The service holds no conversation: each request has all that was said, and the last line is
# answered. The page for people is at `/chat`.

# %%
shop.run("python -m recsys.export run=last to=bundle format=bundle")
LINES = ["something wooden to sit on", "more like 1, cheaper", "no living room"]
again = recsys.load("last").converse(k=4)
with shop.serve("bundle") as address:
    for count, line in enumerate(LINES, 1):
        turn = shop.ask(f"{address}/converse", {"lines": LINES[:count], "k": 4})
        own = again.say(line)
        assert [each["item"] for each in turn["items"]] == [each.item for each in own.items]
print(*(chip["text"] for chip in turn["chips"]), sep="\n")

# %% [markdown]
# ## Does it help?
#
# Whether a conversation finds things sooner than reading on is a question of its own. `seekers=`
# lets scripted people look for one product each; what they say of a list comes from its columns and
# words, one thing in ten is wrong, and all are shown equally many products.

# %%
shop.run("python -m recsys.chat run=last seekers=60 k=3")

# %% [markdown]
# `plain critiques` are put in words that are understood; `critiques` in words that people might
# use, of which some are taken as text. What lies between the two rows is the price of not being
# understood, and the last line says how often that was. In a shop of 160 products reading on is a
# strong rival, and sixty seekers leave wide intervals: look at your own catalog.
#
# ## Now on your data
#
# <!-- not run: it waits for what is typed -->
# ```bash
# python -m recsys.fit experiment=zero_shot
# python -m recsys.chat run=last transcript=monday.jsonl
# python -m recsys.chat run=last seekers=100
# ```
