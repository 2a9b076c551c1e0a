# %% [markdown]
# # Counting and reading, together
#
# What counts events knows what people who had this also had, and nothing of a new product. What
# reads titles knows new products, and little of taste. Neither has to be chosen: this chapter
# pulls one closed form towards the other, lets a tuned encoder into it, and fuses finished runs. It
# runs in a minute or two on one core, needs no network, and asserts what it claims:
# `python docs/chapters/04_counts_and_texts.py`.
#
# The shop is that of the chapter before: forty of 160 products were launched on the last day, and
# a fifth of the events, the latest, is held out.

# %%
from pathlib import Path

import shop

shop.write(Path(), users=600, late=40, skew=1.0)
SHOP = (
    "data.source=tables data.source.interactions=events.csv data.source.items=items.csv"
    " data.source.user=customer data.source.item=product data.source.items_id=id"
    " evaluation.monitor=balanced/ndcg@10"
)
results = {}


def measure(name, words):
    """Fits a method, tests it and prints its row: nDCG@10 in percent."""
    results[name] = shop.measure(f"{words} {SHOP} output=runs/{name.replace(' ', '_')}")
    cells = (f"{part} {value:5.1f}" for part, value in results[name].items())
    print(f"{name:<24}", *cells)


def folder(name):
    """The folder of a run that `measure` has made."""
    (run,) = Path("runs", name.replace(" ", "_")).iterdir()
    return run


# %% [markdown]
# ## One closed form, pulled towards another
#
# EASE fits weights between items to events. The same closed form can be fitted to item vectors in
# place of users, and tells which items read alike. `architecture.vectors=encoder` pulls the one
# towards the other (after Moon et al., L3AE, CIKM 2025), so that a launch has weights as well. How
# strongly, how much a penalty holds back and how fast a history fades is chosen on validation cases
# within the run.

# %%
measure("popularity", "experiment=popularity")
measure("EASE", "experiment=ease architecture.recency=null")
measure("zero-shot", "experiment=zero_shot")
measure("EASE with texts", "experiment=ease_text")

# %%
counted, read, both = (results[name] for name in ("EASE", "zero-shot", "EASE with texts"))
assert counted["cold"] == 0
assert both["cold"] > 10
assert both["all"] > max(counted["all"], read["all"])

# %% [markdown]
# It took no step of training and names what it chose:

# %%
import recsys

print(*recsys.load(folder("EASE with texts")).result["notes"], sep="\n")

# %% [markdown]
# ## What does tuning add?
#
# The vectors may come from any finished run of two towers: tuning times hybrid is one word.

# %%
measure("LoRA", "experiment=lora_two_tower trainer.epochs=10")
measure("EASE with LoRA", f"experiment=ease_text architecture.vectors={folder('LoRA')}")

# %% [markdown]
# In this shop titles tell all there is to know of a product, and a model that was trained to read
# them is hard to beat: the hybrid gains by its vectors. How much a tuned encoder adds to it,
# and not to the encoder as it is, is the question to ask of your own data.

# %%
for name in ("LoRA", "EASE with LoRA", "EASE with texts"):
    print(f"{name:<24} all {results[name]['all']:5.1f}  cold {results[name]['cold']:5.1f}")
assert results["EASE with LoRA"]["all"] > results["EASE with texts"]["all"]

# %% [markdown]
# ## Or both, side by side
#
# An ensemble asks finished runs and weighs their scores, by validation cases alone. Beside it
# belongs its best member: what an ensemble does not add, it costs. On this shop and on those drawn
# with the seeds 1 and 2 it was from one point worse to four points better than that.

# %%
members = ",".join(str(folder(name)) for name in ("EASE with texts", "LoRA"))
measure("ensemble", f"architecture=ensemble architecture.members=[{members}]")
best = max(results["EASE with texts"]["all"], results["LoRA"]["all"])
print(f"ensemble minus its best member: {results['ensemble']['all'] - best:+.1f}")
assert results["ensemble"]["all"] > best - 2

# %% [markdown]
# ## What to take along
#
# - Set EASE with texts beside every model that you train. It takes seconds, and finds new items.
# - Choose by `balanced/ndcg@10` where new items matter; look at warm and cold apart.
# - A tuned encoder is worth what it adds to *that*, and not to the encoder as it is.
#
# ## Now on your data
#
# ```bash
# python -m recsys.fit experiment=ease_text data.source=tables \
#   data.source.interactions=events.csv data.source.user=who data.source.item=what \
#   data.source.time=when data.source.items=items.csv "data.source.item_text='{title}'"
# ```
