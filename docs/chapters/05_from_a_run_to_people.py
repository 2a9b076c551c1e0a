# %% [markdown]
# # From a run to people
#
# A comparison that ends in a table helps nobody. This chapter takes a finished run to people who
# were not in the data: it recommends, says why, leaves the lab as a folder, answers over HTTP,
# keeps what people say, learns from what came since, and forgets someone who asks for it. It runs
# in a minute or two on one core, needs no network but this machine's own, and asserts what it
# claims: `python docs/chapters/05_from_a_run_to_people.py`.
#
# The shop is that of the chapters before. Its last day is kept aside: it has not come yet.

# %%
import csv
import json
from pathlib import Path

import shop

shop.write(Path(), users=300, skew=1.0)
with Path("events.csv").open() as file:
    rows = sorted(csv.DictReader(file), key=lambda row: int(row["time"]))
DAY = 1_700_000_000 + 86_400 * 7
for name, kept in (("events.csv", lambda t: t < DAY), ("newer.csv", lambda t: t >= DAY)):
    with Path(name).open("w", newline="") as file:
        out = csv.DictWriter(file, ["customer", "product", "time"])
        out.writeheader()
        out.writerows(row for row in rows if kept(int(row["time"])))
SHOP = (
    "data.source=tables data.source.interactions=events.csv data.source.items=items.csv"
    " data.source.user=customer data.source.item=product data.source.items_id=id"
)
print(f"{shop.fit(f'experiment=frozen_two_tower {SHOP}'):.1f} nDCG@10, in percent")

# %% [markdown]
# ## Recommend
#
# From a shell, for a customer, for someone who had some products, or for a text:

# %%
shop.run("python -m recsys.recommend run=last user=c007 k=3")
shop.run("python -m recsys.recommend run=last history=p001,p005 k=3")
shop.run('python -m recsys.recommend run=last text="something of walnut for the garden" k=3')

# %% [markdown]
# In Python the answer is a Polars frame. `where` is an expression over the columns of the items.

# %%
import recsys

run = recsys.load("last")
dishes = run.recommend(users=["c007", "c008"], k=3, where="text contains 'kitchen'")
print(dishes)
assert all("kitchen" in title for title in dishes["title"])

# %% [markdown]
# ## Why?
#
# The user's vector is a mean of what they had, so that a score is a sum, and each product's part in
# it is exact.

# %%
best = run.recommend(users=["c007"], k=1)["item"][0]
shop.run(f"python -m recsys.explain run=last user=c007 item={best} most=3")
why = run.explain(best, user="c007")
parts = sum(each.value for each in why.history)
print(f"score {why.score:.4f}, of which the history's products give {parts:.4f}")
assert abs(parts - why.score) < 1e-4 * max(1, abs(why.score))

# %% [markdown]
# ## Out of the lab
#
# A bundle holds all that answers need: no training data, no code, a checksum a file. It gives the
# run's lists and scores.

# %%
shop.run("python -m recsys.export run=last to=bundle format=bundle")
bundle = recsys.open_bundle("bundle")
ours, theirs = (each.recommend(users=["c007"], k=10) for each in (run, bundle))
assert ours["item"].to_list() == theirs["item"].to_list()
assert (ours["score"] - theirs["score"]).abs().max() < 1e-4

# %% [markdown]
# ## Over HTTP
#
# `python -m recsys.serve folder=bundle` serves it, with a page at <http://127.0.0.1:8000>. Here it
# is started, asked, told that someone liked something, and stopped.

# %%
with shop.serve("bundle") as address:
    answer = shop.ask(f"{address}/recommend", {"user": "c007", "k": 3})
    print(*(f"{row['rank']} {row['title']}" for row in answer["items"]), sep="\n")
    assert [row["item"] for row in answer["items"]] == ours["item"].to_list()[:3]
    liked = answer["items"][0]["item"]
    event = {"user": "c007", "item": liked, "event": "like"}
    shop.ask(f"{address}/feedback", {"events": [event]})
    again = shop.ask(f"{address}/recommend", {"user": "c007", "k": 3})
assert liked not in [row["item"] for row in again["items"]]

# %% [markdown]
# What someone liked is on the disk before the service says so, and is not recommended to them
# again.
#
# ## The next day
#
# The day that was kept aside has come. `refresh` trains on from the run's weights, tests the old
# and the new model on what came since, and puts the new one to use only where it is shown to be
# no worse than the margin allows.

# %%
shop.run("python -m recsys.refresh run=last events=newer.csv user=customer item=product time=time")
verdict = json.loads((recsys.load("last").folder / "refresh.json").read_text())
assert not verdict["promoted"]
assert verdict["low"] < -verdict["margin"] < verdict["difference"]

# %% [markdown]
# One day of a small shop is sixty cases: too few to show that a new model is no worse by half a
# point, whatever the means say. Then what is in use stays, and the next night has more to go by.
# Where the new one is taken, `rollback=true` takes it back.

# %% [markdown]
# ## Forget me
#
# Someone asks to be deleted: from prepared data, feedback, bundles and kept test cases, by one
# command. It also says what it cannot change.

# %%
from recsys.errors import DataError

shop.run("python -m recsys.forget user=c007 in=runs,bundle yes=true")
assert recsys.open_bundle("bundle").recommend(users=["c008"], k=1).height == 1
try:
    recsys.open_bundle("bundle").recommend(users=["c007"])
except DataError as error:
    print(error)
else:
    raise AssertionError("c007 is still there")

# %% [markdown]
# ## What to take along
#
# - A run, a bundle and the service give the same lists: compare them once on your data, as above.
# - Look at the reasons of some lists before people do.
# - Refresh by what came since; keep the old run until the new one has shown to be no worse.
#
# ## Now on your data
#
# <!-- not run: it serves until it is stopped -->
# ```bash
# python -m recsys.fit experiment=lora_two_tower
# python -m recsys.export run=last to=bundle format=bundle
# python -m recsys.serve folder=bundle
# ```
