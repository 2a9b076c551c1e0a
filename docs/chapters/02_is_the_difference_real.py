# %% [markdown]
# # Is the difference real?
#
# Two methods, two numbers, and one of them is larger. Does the method deserve that, or did the
# seed and the users? This chapter trains small models on a made-up shop and asks
# `recsys.compare`. It runs in about a minute on one core, needs no network, and asserts what it
# claims: `python docs/chapters/02_is_the_difference_real.py`.
#
# The shop has 160 products and 300 customers. A customer likes one material and stays in a room
# for a while; both can be read from titles.

# %%
import json
from pathlib import Path
from statistics import mean, stdev

import shop

shop.write(Path())
print(*Path("items.csv").read_text().splitlines()[:4], sep="\n")
print(*Path("events.csv").read_text().splitlines()[:4], sep="\n")

# %% [markdown]
# What all runs share: the files and what their columns mean. Events are split by time. The
# encoder is all-MiniLM-L6-v2.

# %%
SHOP = (
    "data.source=tables data.source.interactions=events.csv data.source.items=items.csv"
    " data.source.user=customer data.source.item=product data.source.items_id=id"
    " trainer.epochs=4"
)

# %% [markdown]
# ## One method, ten seeds
#
# Heads on the frozen encoder, trained ten times. A seed decides initial weights and the order of
# training; data, split and test cases are the same in all runs.

# %%
FROZEN = f"experiment=lora_two_tower tuning=frozen optimizer.head_lr=1e-3 {SHOP}"

frozen = [shop.fit(f"{FROZEN} seed={seed} output=runs/frozen") for seed in range(5)]
again = [
    shop.fit(f"{FROZEN} trainer.patience=50 seed={seed} output=runs/again") for seed in range(5, 10)
]
print("test nDCG@10:", *(f"{value:.1f}" for value in frozen + again))
print(f"mean {mean(frozen + again):.1f}, standard deviation {stdev(frozen + again):.2f}")

# %% [markdown]
# The same method, and its luckiest seed is well above its unluckiest. Whoever trains two methods
# once each will find such a difference between them, and publish it.

# %%
assert max(frozen + again) - min(frozen + again) > 0.5

# %% [markdown]
# ## The same method twice
#
# Seeds 0 to 4 and seeds 5 to 9 are the same method: the patience changes nothing. We give them
# two names and ask for the difference. A test that finds one here at a level of 5 % is wrong; a
# sound one is so in at most one of twenty such comparisons.

# %%
Path("same.yaml").write_text("frozen: [runs/frozen/*]\nfrozen again: [runs/again/*]\n")
shop.run("python -m recsys.compare names=same.yaml baseline=frozen output=same")


# %%
def contrast(folder, label):
    """The difference of a method to the baseline, as comparison.json has it."""
    found = json.loads((Path(folder) / "comparison.json").read_text())
    return next(each for each in found["differences"] if each["label"] == label)


same = contrast("same", "frozen again")
assert same["p_holm"] > 0.05

# %% [markdown]
# ## A difference that is real
#
# The encoder without training, beside the five runs of heads on it. It has no seeds: one run is
# all there is.

# %%
shop.fit(f"experiment=zero_shot {SHOP} output=runs/zero_shot")
Path("start.yaml").write_text("zero-shot: [runs/zero_shot/*]\nfrozen: [runs/frozen/*]\n")
shop.run("python -m recsys.compare names=start.yaml baseline=zero-shot output=start")

# %%
start = contrast("start", "frozen")
assert start["p_holm"] < 0.05
assert start["found"]["low"] > 0

# %% [markdown]
# The interval leaves out 0: training the heads helps, for other seeds and other customers of this
# shop too.
#
# ## A difference that is not shown
#
# LoRA in the last layer trains more parameters and costs several times the CPU seconds. Five
# seeds of it, at a rate that suits it:

# %%
LORA = f"experiment=lora_two_tower tuning.layers=1 optimizer.lr=1e-3 {SHOP}"

lora = [shop.fit(f"{LORA} seed={seed} output=runs/lora") for seed in range(5)]
Path("lora.yaml").write_text("frozen: [runs/frozen/*]\nLoRA: [runs/lora/*]\n")
shop.run("python -m recsys.compare names=lora.yaml baseline=frozen margin=0.5 output=lora")

# %%
tuned = contrast("lora", "LoRA")
print("luckiest LoRA minus unluckiest frozen:", round(max(lora) - min(frozen), 2))
print("unluckiest LoRA minus luckiest frozen:", round(min(lora) - max(frozen), 2))
print("smallest difference found:", round(100 * tuned["found"]["smallest"], 2))

assert tuned["p_holm"] > 0.05
assert min(lora) < max(frozen)
assert max(lora) > min(frozen)

# %% [markdown]
# With one seed each, either method could have come out ahead. With five, they are not told apart.
# That does not say that they are equal: the *smallest difference found* says what these 240
# customers and five seeds would find in about 80 % of repetitions. A difference of half a point
# is far below it. To show or to exclude that takes more customers.

# %%
assert 100 * tuned["found"]["smallest"] > 0.5
assert tuned["equivalent_holm"] > 0.05

# %% [markdown]
# ## What to take along
#
# - Train every method with at least three seeds, the baseline too; five where you have many
#   contrasts.
# - Read the interval and the smallest difference found, not only which mean is larger.
# - "Not told apart" and "equivalent" are different findings. The second needs `margin=` and
#   enough data.
# - How the test works and how often it is wrong: [statistics](../statistics.md).
#
# ## Now on your data
#
# ```bash
# python -m recsys.data source=tables interactions=events.csv items=items.csv \
#   user=who item=what time=when "item_text='{title}'" output=shop
# python -m recsys.fit experiment=frozen_two_tower data.source=tables data.source.path=shop seeds=5
# python -m recsys.fit experiment=lora_two_tower data.source=tables data.source.path=shop seeds=5
# python -m recsys.compare 'runs/*/*' baseline=frozen_two_tower margin=0.5
# ```
