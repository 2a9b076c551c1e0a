# %% [markdown]
# # What to say next
#
# Someone describes what they look for, gets a suggestion, says what is wrong with it. What should
# be suggested at each turn? This chapter writes dialogues as a shop's chat could have kept them,
# measures what rules that count and what reads would have answered, under a stated protocol, and
# puts one of them to use. It runs in a minute or two on one core, needs no network, and asserts
# what it claims: `python docs/chapters/06_dialogues.py`.
#
# A dialogue is a line of JSON. In this shop a customer asks for a material, an assistant names a
# product or two, the customer says for which room it is to be.

# %%
import csv
import json
import random
from pathlib import Path

import shop

shop.write(Path(), users=0)
with Path("items.csv").open() as file:
    titles = {row["id"]: row["title"] for row in csv.DictReader(file)}
rng = random.Random(0)
dialogues = []
for number in range(400):
    material, room = rng.choice(shop.MATERIALS), rng.choice(list(shop.ROOMS))
    fit = [i for i, title in titles.items() if title.lower().startswith(material)]
    both = [i for i in fit if titles[i].endswith(room)]
    first = rng.choice([i for i in fit if i not in both])
    last = rng.sample(both, 2)
    again = [first] if number % 4 == 0 else []
    turns = [
        ("customer", f"Hello! I would like something of {material}.", []),
        ("assistant", f"How about this: {titles[first]}?", [first]),
        ("customer", f"Nice, but not there. It is for the {room}.", []),
        ("assistant", " or ".join(titles[i] for i in (*again, *last)) + "?", [*again, *last]),
        ("customer", "The last one, thank you!", []),
    ]
    fields = ("speaker", "text", "items")
    turns = [dict(zip(fields, turn, strict=True)) for turn in turns]
    dialogues.append({"dialogue": f"d{number:03d}", "turns": turns})
Path("chats.jsonl").write_text("".join(json.dumps(each) + "\n" for each in dialogues))
print(json.dumps(dialogues[0], indent=1)[:420], "...")

# %% [markdown]
# ## What is counted
#
# Each product of an assistant's turn is a case, and the query is the dialogue before that turn,
# with the products that were named in it as its history. What was named before is counted apart:
# a rule that copies finds it every time, and nobody is helped by that. Whole dialogues are held
# out, here the last tenth for testing; a split by turn is an error.

# %%
CHATS = (
    "data.source=dialogues data.source.path=chats.jsonl data.source.items=items.csv"
    " data.source.item=id evaluation.k=[1,5] evaluation.monitor=hr@5"
)
shop.run(f"python -m recsys.fit experiment=copying {CHATS} output=first")

# %% [markdown]
# Copying finds all that was named before and, of what was not, no more than popularity does. The
# figures of systems that count both together are mostly figures of copying.
#
# ## Rules that count, and one that reads
#
# Products that are named together, neighbours among training dialogues by their words, and the
# words of the dialogue against those of the products:

# %%
import recsys

WAYS = {
    "popularity": "experiment=popularity",
    "copying": "experiment=copying",
    "co-mention": "experiment=co_mention",
    "neighbours": "experiment=query_knn",
    "words": "experiment=tfidf architecture.user=text",
    "titles of what was named": "experiment=tfidf architecture.user=text data.query_column=none",
}
found, folders = {}, {}
for name, words in WAYS.items():
    output = Path("runs", name.replace(" ", "_"))
    shop.measure(f"{words} {CHATS} evaluation.k=[5,10] output={output}")
    (folders[name],) = output.iterdir()
    found[name] = recsys.load(folders[name]).metrics
    new, old = (100 * found[name][f"{part}hr@5"] for part in ("", "repeated/"))
    print(f"{name:<26} R@5 new {new:5.1f}  repeated {old:5.1f}")
assert found["copying"]["repeated/hr@5"] == 1
assert found["words"]["hr@5"] > 2 * found["popularity"]["hr@5"]
assert found["neighbours"]["hr@5"] > found["words"]["hr@5"]
assert found["words"]["hr@5"] > found["titles of what was named"]["hr@5"]

# %% [markdown]
# What was said tells more than what was named: the room is in no title of what was named before.
# Neighbours do best here, as whoever asked alike was shown alike. A model that is tuned reads the
# same text with `architecture.user=text`.
#
# ## Ask it
#
# A text stands in the place of the dialogue:

# %%
ASK = "I would like something of walnut. It is for the garden."
shop.run(f'python -m recsys.recommend run={folders["words"]} text="{ASK}" k=3')
best = recsys.load(folders["words"]).recommend(texts=[ASK], k=3)["title"]
assert all("Walnut" in title and "garden" in title for title in best)

# %% [markdown]
# [The chat](../chat.md) asks a run turn by turn, with filters and likes, and keeps a transcript.
#
# ## What to take along
#
# - Say what is counted: whose turns, new or repeated, and split by dialogue.
# - Set copying and counting beside every model: they are hard to beat, and take seconds.
# - [Dialogues](../dialogues.md): the protocol, published cuts of ReDial and the form of the files.
#
# ## Now on your data
#
# <!-- not run: chats.jsonl and items.csv stand for your own files -->
# ```bash
# python -m recsys.fit experiment=lora_two_tower architecture.user=text data.source=dialogues \
#   data.source.path=chats.jsonl data.source.items=items.csv "data.source.recommender=[agent]"
# ```
