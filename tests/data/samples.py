"""Small made-up files in the original layout of every source, with a trap or two each."""

import dataclasses
import gzip
import json
from collections.abc import Mapping
from datetime import datetime, timedelta

from recsys.data.sources import (
    amazon,
    dialogues,
    goodreads,
    jsonl,
    mind,
    movielens,
    movietweetings,
    online_retail,
    quickstart,
    redial,
    rows,
    sequences,
    tables,
)

DAY = 86_400
USERS, ITEMS, EACH = 6, 9, 6


def events():
    """Six users with six events each, a day apart, over nine items: (user, item, day)."""
    return [
        (u, (2 * u + 2 * n + n * n) % ITEMS, 5 * n + u) for u in range(USERS) for n in range(EACH)
    ]


@dataclasses.dataclass(frozen=True)
class Story:
    """What the files tell. Before its turn, a user's past is the same in every story.

    Attributes:
        turns: The day from which on a user is held out.
        how: What is told of held-out days: the "same", "other" items, reviews, descriptions and
            countries, "fewer" (nothing), or "more" (further events, later than all others).
        by_time: Whether files of events are in their order of time, instead of user by user.
    """

    turns: Mapping[int, int] = dataclasses.field(default_factory=dict)
    how: str = "same"
    by_time: bool = False

    def held(self, user, day):
        return day >= self.turns.get(user, 1000)

    def told(self, user, item, day):
        """The item, and what is written beside it; None where nothing is told."""
        if not self.held(user, day) or self.how in ("same", "more"):
            return item, ""
        return None if self.how == "fewer" else ((item + 1) % ITEMS, " held out")

    def events(self):
        """User, item, day and a remark."""
        past = sorted(events(), key=lambda e: e[2]) if self.by_time else events()
        out = []
        for user, item, day in past:
            told = self.told(user, item, day)
            out += [(user, told[0], day, told[1])] if told else []
        if self.how == "more":
            out += [(u, (u + n) % ITEMS, 40 + u, " held out") for n in (1, 3) for u in range(USERS)]
        return out

    def of(self, user):
        """The items of a user."""
        return [i for u, i, _, _ in self.events() if u == user]


PAST = Story()


def date(year, month, day):
    """The day of that number after the first of a month."""
    return f"{datetime(year, month, 1) + timedelta(days=day):%Y-%m-%d}"


def packed(path, text):
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def lines(path, rows):
    packed(path, "".join(json.dumps(row) + "\n" for row in rows))


def make_mind(folder, story=PAST):
    news = "".join(f"N{i}\tnews\tus\tTitle {i}\tAbout {i}.\tu\t[]\t[]\n" for i in range(ITEMS))
    last = 9 if story.how == "more" else 7
    days = {"MINDsmall_train": range(1, 5), "MINDsmall_dev": range(5, last)}
    for name, span in days.items():
        part = folder / name
        part.mkdir()
        packed(part / "news.tsv", news)
        rows = []
        for number, (day, user) in enumerate(((d, u) for d in span for u in range(USERS)), 1):
            told = story.told(user, (day + user) % ITEMS, day)
            if told is None:
                continue
            clicked, other = told[0], (told[0] + 4) % ITEMS
            past = f"N{(user + 7) % ITEMS} N{(user + 8) % ITEMS}"
            moment = f"11/{day}/2019 {user + 1}:00:0{user} PM"
            rows.append(f"{number}\tU{user}\t{moment}\t{past}\tN{clicked}-1 N{other}-0\n")
        packed(part / "behaviors.tsv", "".join(rows))
    return mind, mind.Config(str(folder))


def make_amazon_2018(folder, story=PAST):
    rows = [
        {
            "reviewerID": f"A{u}",
            "asin": f"000{i}",
            "overall": 4.0,
            "unixReviewTime": 1_400_000_000 + DAY * day,
            "reviewText": f"review {u} {day}{told}",
        }
        for u, i, day, told in story.events()
    ]
    meta = [
        {
            "asin": f"000{i}",
            "title": f"Thing {i} &amp; more",
            "brand": "Acme",
            "category": ["A", "B", "A"],
            "description": ["<b>Good</b>", "cheap"],
            "feature": [],
        }
        for i in range(ITEMS)
    ]
    lines(folder / "Things_5.json.gz", rows)
    lines(folder / "meta_Things.json.gz", meta)
    return amazon, amazon.Config(str(folder), keep_reviews=True)


def make_amazon_2014(folder, story=PAST):
    """Products as Python literals, categories as lists of lists."""
    make_amazon_2018(folder, story)
    (folder / "meta_Things.json.gz").unlink()
    meta = [
        {
            "asin": f"000{i}",
            "title": f"Thing {i} &amp; more",
            "brand": "Acme",
            "categories": [["A", "B"]],
            "description": "Good, cheap",
        }
        for i in range(ITEMS)
    ]
    packed(folder / "meta_Things.json.gz", "".join(f"{row!r}\n" for row in meta))
    return amazon, amazon.Config(str(folder), keep_reviews=True)


def make_amazon_2023(folder, story=PAST):
    rows = [
        {
            "user_id": f"A{u}",
            "asin": "variant",
            "parent_asin": f"000{i}",
            "rating": 4,
            "timestamp": 1000 * (1_400_000_000 + DAY * day),
            "title": "Nice",
            "text": f"review {u} {day}{told}",
        }
        for u, i, day, told in story.events()
    ]
    meta = [
        {
            "parent_asin": f"000{i}",
            "title": f"Thing {i} &amp; more",
            "store": "Acme",
            "main_category": "All",
            "categories": ["A", "B"],
            "description": ["Good", "cheap"],
            "features": [],
        }
        for i in range(ITEMS)
    ]
    lines(folder / "Things.jsonl", rows)
    lines(folder / "meta_Things.jsonl", meta)
    return amazon, amazon.Config(str(folder), keep_reviews=True)


def make_movietweetings(folder, story=PAST):
    rows = [
        f"{u}::00{i}::{(u + i) % 11}::{1_400_000_000 + DAY * d}\n" for u, i, d, _ in story.events()
    ]
    packed(folder / "ratings.dat", "".join(rows))
    films = [f"00{i}::Film à {i} (200{i})::Drama|War\n" for i in range(ITEMS)]
    packed(folder / "movies.dat", "".join(films))
    return movietweetings, movietweetings.Config(str(folder))


def make_online_retail(folder, story=PAST):
    head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    rows = [
        f'{50 + d}{u},1000{i},"THING, {i}{t}",2,{date(2011, 1, d)} 08:26:00,2.55,{u}.0,France{t}\n'
        for u, i, d, t in story.events()
    ]
    dirty = [
        "5999,10001,damaged,-3,2011-01-02 08:00:00,0.0,1.0,France\n",
        'C599,10001,"THING, 1",-1,2011-01-02 08:00:00,2.55,1.0,France\n',
        'C600,10001,"THING, 1",1,2011-01-02 08:00:00,2.55,1.0,France\n',
        '5998,10001,"THING, 1",1,2011-01-02 08:00:00,2.55,,France\n',
        "5997,POST,POSTAGE,1,2011-01-02 08:00:00,18.0,1.0,France\n",
    ]
    packed(folder / "online_retail.csv.gz", head + "".join(rows[:1] + dirty + rows[1:]))
    return online_retail, online_retail.Config(str(folder))


def make_goodreads(folder, story=PAST):
    months = ["Jan", "Feb", "Mar"]
    rows = [
        {
            "user_id": f"u{u}",
            "book_id": f"{i}",
            "is_read": d % 2 == 0,
            "rating": 5,
            "date_added": f"Sun {months[d // 20]} {d % 20 + 1:02d} 07:44:10 -0700 2017",
        }
        for u, i, d, _ in story.events()
    ]
    books = [{"book_id": f"{i}", "title": f"Book {i}", "description": "x"} for i in range(ITEMS)]
    lines(folder / "goodreads_interactions_poetry.json.gz", rows)
    lines(folder / "goodreads_books_poetry.json.gz", books)
    return goodreads, goodreads.Config(str(folder))


def make_goodreads_once(folder, story=PAST):
    rows = [{"uid": u, "history": [str(i) for i in story.of(u)]} for u in range(USERS)]
    lines(folder / "users.jsonl.gz", rows)
    books = "".join(f"{i}\tBook {i}\tmade up\n" for i in range(ITEMS))
    packed(folder / "items.tsv.gz", "bid\ttitle\tdesc\n" + books)
    return goodreads, goodreads.Config(str(folder))


def make_yelp(folder, story=PAST):
    rows = [
        {
            "review_id": "x",
            "user_id": f"u{u}",
            "business_id": f"b{i}",
            "stars": 4.0,
            "text": f"review {u} {d}{told}",
            "date": f"{date(2016, 3, d)} 10:00:00",
        }
        for u, i, d, told in story.events()
    ]
    places = [
        {"business_id": f"b{i}", "name": f"Cafe {i}", "categories": "Tea, Cake", "city": "Ulm"}
        for i in range(ITEMS)
    ]
    lines(folder / "yelp_academic_dataset_review.json", rows)
    lines(folder / "yelp_academic_dataset_business.json.gz", places)
    return jsonl, jsonl.Config(str(folder))


def make_steam(folder, story=PAST):
    rows = [
        {"username": f"u{u}", "product_id": f"{i}", "date": date(2018, 3, d), "hours": d}
        for u, i, d, _ in story.events()
    ]
    games = [
        {"id": f"{i}", "app_name": f"Game {i}", "genres": ["Indie", "RPG"]} for i in range(ITEMS)
    ]
    packed(folder / "steam_reviews.json.gz", "".join(f"{row!r}\n" for row in rows))
    packed(folder / "steam_games.json.gz", "".join(f"{row!r}\n" for row in games))
    config = jsonl.Config(
        str(folder),
        "steam_reviews.json",
        "steam_games.json",
        user="username",
        item="product_id",
        items_id="id",
        time="date",
        rating="",
        review="",
        further=["hours"],
        item_text="{app_name}. {genres}",
    )
    return jsonl, config


def make_movielens(folder, story=PAST):
    head = "userId,movieId,rating,timestamp\n"
    rows = [f"{u},{i},4.5,{1_400_000_000 + DAY * d}\n" for u, i, d, _ in story.events()]
    packed(folder / "ratings.csv", head + "".join(rows))
    films = [f"{i},Film {i} (200{i}),Drama|War\n" for i in range(ITEMS)]
    packed(folder / "movies.csv", "movieId,title,genres\n" + "".join(films))
    return movielens, movielens.Config(str(folder))


def make_quickstart(folder, story=PAST):
    """The files of MovieLens."""
    make_movielens(folder, story)
    return quickstart, quickstart.Config(str(folder))


def make_sequences(folder, story=PAST):
    packed(folder / "items.tsv", "".join(f"{i}\tThing {i}\n" for i in range(ITEMS)))
    rows = (" ".join(map(str, story.of(u))) for u in range(USERS))
    packed(folder / "users.tsv", "".join(f"u{u}\t{row}\n" for u, row in enumerate(rows)))
    return sequences, sequences.Config(str(folder))


def make_rows(folder, story=PAST):
    """Histories cut to four items; the third target of a user validates, the fifth tests.

    Of the fourth only the history of the fifth tells: it is of the part reached, validation.
    """
    packed(
        folder / "items.json.gz",
        json.dumps({i: {"title": f"Thing {i}", "description": "['Good']"} for i in range(ITEMS)}),
    )
    out = []
    for u in range(USERS):
        own = story.of(u)
        parts = {1: "train", 2: "train", 3: "valid", 5: "test"}
        parts |= dict.fromkeys(range(EACH, len(own)), "test")
        for n, split in parts.items():
            if n < len(own):
                out.append(
                    {"user_id": f"u{u}", "history": own[:n][-4:], "target": own[n], "split": split}
                )
    lines(folder / "rows.jsonl.gz", out)
    return rows, rows.Config(str(folder))


def make_redial(folder, story=PAST):
    """A dialogue a user, five films each, two of them in one turn; two dialogues are held out."""
    for part, users in (("train", range(4)), ("valid", [4]), ("test", [5])):
        out = []
        for u in users:
            told = [story.told(u, (2 * u + n) % ITEMS, n) or (2 * u, "") for n in range(5)]
            own, also = [f"10{item}" for item, _ in told], [remark for _, remark in told]
            said = ["Hello!", f"Something fun{also[0]}.", f"@{own[0]}"]
            said += [f"No{also[1]}. @{own[1]} or @{own[2]}?"]
            said += [f"After @{own[2]}{also[3]}, @{own[3]}", f"Fine{also[4]}.", f"And @{own[4]}"]
            said += ["Bye."]
            if story.how == "more" and story.held(u, 4):
                own, also = [*own, "108"], [*also, " held out"]
                said.append("One more: @108")
            out.append(
                {
                    "conversationId": str(u),
                    "initiatorWorkerId": 7,
                    "respondentWorkerId": 8,
                    "messages": [
                        {"text": text, "senderWorkerId": 7 + n % 2} for n, text in enumerate(said)
                    ],
                    "movieMentions": {
                        film: f"Film {film}{remark} (2001)"
                        for film, remark in zip(own, also, strict=True)
                    },
                    "initiatorQuestions": {
                        film: {"suggested": n % 2, "seen": 2, "liked": n % 3}
                        for n, film in enumerate(own)
                    },
                    "respondentQuestions": [],
                }
            )
        lines(folder / f"{part}.jsonl.gz", out)
    return redial, redial.Config(str(folder), cut="mentions")


def make_dialogues(folder, story=PAST):
    """A dialogue a user, five items each, of which the recommender names those at odd places."""
    out = []
    for u in range(USERS):
        turns = []
        more = (5,) if story.how == "more" and story.held(u, 4) else ()
        for n in (*range(5), *more):
            told = story.told(u, (2 * u + n) % ITEMS, n)
            if told is not None:
                item, remark = told
                speaker = ("Seeker", "Recommender")[n % 2]
                turns.append({"speaker": speaker, "text": f"No. {n}{remark}", "items": [item]})
        part = {4: "valid", 5: "test"}.get(u, "train")
        out.append({"dialogue": u, "split": part, "turns": turns or [{"speaker": "Seeker"}]})
    lines(folder / "dialogues.jsonl.gz", out)
    packed(folder / "i.csv", "item,title\n" + "".join(f"{i},Thing {i}\n" for i in range(ITEMS)))
    own = (str(folder / "dialogues.jsonl.gz"), str(folder / "i.csv"))
    return dialogues, dialogues.Config(*own)


def make_tables(folder, story=PAST):
    rows = [f"{u},{i},{1_400_000_000 + DAY * d}\n" for u, i, d, _ in story.events()]
    packed(folder / "e.csv", "user,item,time\n" + "".join(rows))
    packed(folder / "i.csv", "item,title\n" + "".join(f"{i},Thing {i}\n" for i in range(ITEMS)))
    return tables, tables.Config(interactions=str(folder / "e.csv"), items=str(folder / "i.csv"))


MAKERS = {
    name.removeprefix("make_"): make for name, make in list(globals().items()) if "make_" in name
}


def make(name, folder, story=PAST):
    """Makes the files of a source in a new folder there: its module and its configuration."""
    (folder / name).mkdir(parents=True)
    return MAKERS[name](folder / name, story)
