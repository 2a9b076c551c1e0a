"""Lists of many users are those of each, and a file of them is there whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

import recsys
from recsys.errors import ConfigError, DataError, DiskFullError
from recsys.fit.__main__ import main as fit
from recsys.recommend.__main__ import main as recommend
from recsys.testing.vectors import write_vector_bundle
from recsys.trained.bulk import output as output_files
from recsys.trained.bulk import queries as query_source
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.manifest import USERS
from tests.trained.equal_lists import assert_equal_lists

USERS_IN_IT, MANY = 37, 131_072
"""Users of the small bundle, and a k of which a part holds four of them."""
TEXTS = {"query": pl.String, "item": pl.String}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vector_bundle(tmp_path_factory.mktemp("made") / "bundle", USERS_IN_IT, 300, 8)


def read(path):
    if path.suffix == ".csv":
        return pl.read_csv(path, schema_overrides=TEXTS)
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_each_kind_of_file_has_the_lists_of_every_user(ending, folder, tmp_path, capsys):
    bundle, path = open_bundle(folder), tmp_path / f"lists{ending}"
    words = [f"folder={folder}", "users=all", f"output={path}", "k=7", "where=item != '11'"]
    assert recommend([*words, "exclude_seen=false"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: lists of {USERS_IN_IT} users\n"
    assert "\r" not in said.err
    ids = [f"u{n}" for n in range(USERS_IN_IT)]
    want = bundle.recommend(users=ids, k=7, where="item != '11'", exclude_seen=False)
    assert_equal_lists(read(path), want)
    assert sorted(each.name for each in tmp_path.iterdir()) == [f".{path.name}.json", path.name]


def test_shards_are_the_whole_one_after_the_other(folder, tmp_path, capsys):
    words = [f"folder={folder}", "users=all", f"output={tmp_path}/lists.parquet", "k=5"]
    assert recommend(words) == 0
    for number in range(1, 12):
        assert recommend([*words, f"shard={number}/11"]) == 0
    whole = pl.read_parquet(tmp_path / "lists.parquet")
    assert_equal_lists(pl.read_parquet(tmp_path / "lists-*-of-11.parquet"), whole)
    assert (tmp_path / "lists-03-of-11.parquet").is_file()
    bundle = open_bundle(folder)
    (tmp_path / "two.csv").write_text("user\nu4\nu2\n")
    few = [
        bundle.write_lists(tmp_path / "few.csv", users=tmp_path / "two.csv", shard=f"{n}/3")
        for n in (1, 2, 3)
    ]
    assert [path.name for path in few] == [f"few-{n}-of-3.csv" for n in (1, 2, 3)]
    assert [len(read(path)) for path in few] == [0, 10, 10]  # an empty one has its header


def test_people_who_are_not_in_the_data_have_lists_by_their_histories(folder, tmp_path):
    bundle = open_bundle(folder)
    histories = [["3", "5"], [], ["17"], ["5", "3", "5"]]
    names = ["ann", "bob", "u3", "ann"]
    people = pl.DataFrame({"user": names, "history": histories})
    people.write_parquet(tmp_path / "people.parquet")
    people.write_ndjson(tmp_path / "people.jsonl")
    people.with_columns(pl.col("history").list.join(", ")).write_csv(tmp_path / "people.csv")
    want = [bundle.recommend(histories=[had], k=4) for had in histories]
    named = pl.concat(
        [of.with_columns(query=pl.lit(name)) for of, name in zip(want, names, strict=True)]
    )
    for ending in (".parquet", ".jsonl", ".csv"):
        path = bundle.write_lists(tmp_path / f"to{ending}", users=tmp_path / f"people{ending}", k=4)
        assert_equal_lists(read(path), named)
    people.drop("user").write_parquet(tmp_path / "none.parquet")
    path = bundle.write_lists(tmp_path / "none.csv", users=tmp_path / "none.parquet", k=4)
    assert_equal_lists(read(path).with_columns(pl.col("query").fill_null("")), pl.concat(want))


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_who_is_stopped_goes_on_and_has_the_same_bytes(ending, folder, tmp_path, monkeypatch):
    bundle = open_bundle(folder)
    path, other = tmp_path / f"stopped{ending}", tmp_path / f"unbroken{ending}"
    bundle.write_lists(other, k=MANY)
    inner = output_files.ListFile.write_part
    for done in (3, 7):

        def stop(self, number, rows, last=done):
            if number == last:
                raise KeyboardInterrupt
            inner(self, number, rows)

        monkeypatch.setattr(output_files.ListFile, "write_part", stop)
        with pytest.raises(KeyboardInterrupt):
            bundle.write_lists(path, k=MANY)
        assert not path.exists()
        assert len(list((tmp_path / f"{path.name}.parts").glob(f"part-*{ending}"))) == done
    with pytest.raises(DataError, match=r"holds parts of other lists \(k was 131072 and is 65536"):
        bundle.write_lists(path, k=MANY // 2)
    monkeypatch.undo()
    bundle.write_lists(path, k=MANY)
    assert path.read_bytes() == other.read_bytes()
    assert not (tmp_path / f"{path.name}.parts").exists()


def test_a_killed_command_leaves_whole_parts_and_the_next_one_the_whole(tmp_path, capsys):
    made = write_vector_bundle(tmp_path / "bundle", 60, 3000, 8)
    words = [f"folder={made}", "users=all", "k=262144"]  # 30 parts, each of two long lists
    path, other = tmp_path / "killed.csv", tmp_path / "unbroken.csv"
    assert recommend([*words, f"output={other}"]) == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "recsys.recommend", *words, f"output={path}"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    parts, end = tmp_path / "killed.csv.parts", time.monotonic() + 120
    while len(list(parts.glob("part-*.csv"))) < 3 and time.monotonic() < end:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    whole = other.read_bytes()
    at = 0
    for part in sorted(parts.glob("part-*.csv")):
        content = part.read_bytes()
        assert whole[at : at + len(content)] == content
        at += len(content)
    capsys.readouterr()
    assert recommend([*words, f"output={path}"]) == 0
    assert "of 30 parts were there" in capsys.readouterr().out
    assert path.read_bytes() == whole


def test_a_file_that_is_there_is_not_made_again_but_with_other_words(folder, tmp_path, capsys):
    path = tmp_path / "lists.csv"
    words = [f"folder={folder}", "users=all", f"output={path}"]
    assert recommend([*words, "k=2"]) == 0
    before = path.stat().st_mtime_ns
    assert recommend([*words, "k=2"]) == 0
    assert path.stat().st_mtime_ns == before
    assert recommend([*words, "k=3"]) == 0
    assert len(read(path)) == 3 * USERS_IN_IT
    path.write_text("my own\n")  # it was changed since
    assert recommend([*words, "k=3"]) == 0
    assert len(read(path)) == 3 * USERS_IN_IT
    own = tmp_path / "own.csv"
    own.write_text("user\nu1\n")
    assert recommend([*words[:1], f"users={own}", f"output={own}"]) == 2
    assert "own.csv exists and was not written by this command" in capsys.readouterr().err
    assert own.read_text() == "user\nu1\n"
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "user\nu1\nu99\n", "a.csv, row 2: No user has the id 'u99'"),
        ("a.csv", 'user\nu1\n""\n', "a.csv, row 2: the user has no id"),
        ("a.csv", 'user,history\nann,"1,x"\n', "a.csv, row 1: No item has the id 'x'"),
        ("a.csv", "who\nu1\n", "has no column 'user' and no column 'history' (there are: who)"),
        ("a.csv", "user\n", "a.csv has no rows"),
        ("a.jsonl", '{"user": 1.5}\n', "ids in column 'user' are Float64"),
        ("a.jsonl", '{"history": [1.5]}\n', "ids in column 'history' are List(Float64)"),
        ("a.jsonl", '{"user": \n', "a.jsonl cannot be read"),
        (
            "a.jsonl",
            '{"history": ["1"]}\n{"history": "1,2"}\n',
            "a.jsonl, row 1: this history is a",
        ),
        (
            "a.jsonl",
            '{"history": "1,2"}\n{"history": [1, 2]}\n',
            "a.jsonl, row 2: this history is a",
        ),
        ("a.txt", "user\n", "is no .csv, .tsv, .jsonl (.gz) or .parquet file"),
        ("b.csv", None, "b.csv cannot be read (No such file or directory)"),
    ],
)
def test_a_file_of_users_that_does_not_do_says_so_at_once(
    name, text, said, folder, tmp_path, capsys
):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    words = [f"folder={folder}", f"users={path}", f"output={tmp_path / 'lists.csv'}"]
    assert recommend(words) == 2
    assert said in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ([name] if text is not None else [])


def test_what_is_unknown_can_be_left_out(folder, tmp_path, capsys):
    bundle, path = open_bundle(folder), tmp_path / "lists.csv"
    (tmp_path / "a.csv").write_text("user\nx\nu2\ny\nu1\n")
    words = [f"folder={folder}", f"users={tmp_path}/a.csv", f"output={path}", "unknown=skip"]
    assert recommend(words) == 0
    said = capsys.readouterr()
    assert "2 rows name no user of the data and are left out, the first is 'x' in row 1" in said.err
    assert said.out == f"{path}: lists of 2 users\n"
    assert_equal_lists(read(path), bundle.recommend(users=["u2", "u1"]))
    (tmp_path / "b.csv").write_text('user,history\nann,"1,x,2"\nbob,x\n')
    bundle.write_lists(path, users=tmp_path / "b.csv", unknown="skip")
    assert "2 ids name no item of the data" in capsys.readouterr().err
    want = bundle.recommend(histories=[["1", "2"], []])
    names = pl.Series("query", ["ann"] * 10 + ["bob"] * 10)
    assert_equal_lists(read(path), want.with_columns(names))


def test_who_is_named_twice_has_one_list(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(query_source, "_PIECE", 2)
    bundle, path, users = open_bundle(folder), tmp_path / "lists.csv", tmp_path / "a.csv"
    users.write_text("user\nu2\nu2\nu1\nu2\n")
    words = [f"folder={folder}", f"users={users}", f"output={path}"]
    assert recommend(words) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: lists of 2 users\n"
    assert f"note: {users}: 2 rows name a user again and are left out, the first is" in said.err
    assert "'u2' in row 2" in said.err
    assert_equal_lists(read(path), bundle.recommend(users=["u2", "u1"]))
    users.write_text("user\nx\nu1\nu1\n")
    assert recommend([*words, "unknown=skip"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: lists of 1 user\n"
    assert "1 row names no user of the data and is left out, 'x' in row 1" in said.err
    assert "1 row names a user again and is left out, 'u1' in row 3" in said.err
    shards = [bundle.write_lists(path, users=users, unknown="skip", shard=f"{n}/3") for n in (1, 2)]
    assert [len(read(shard)) for shard in shards] == [0, 10]
    assert read(bundle.write_lists(tmp_path / "all.csv", users="all"))["query"].n_unique() == 37
    (tmp_path / "b.csv").write_text("user,history\nann,x\n")
    bundle.write_lists(path, users=tmp_path / "b.csv", unknown="skip")
    assert "1 id names no item of the data and is left out, 'x'" in capsys.readouterr().err
    nobody = write_vector_bundle(tmp_path / "bundle", 0, 40, 8)
    users.write_text("user\nx\n")
    words = [f"folder={nobody}", f"users={users}", f"output={path}", "unknown=skip"]
    assert recommend(words) == 0
    assert len(read(path)) == 0


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_part_that_is_not_as_it_was_written_is_made_again(
    ending, folder, tmp_path, monkeypatch, capsys
):
    path, other = tmp_path / f"damaged{ending}", tmp_path / f"whole{ending}"
    open_bundle(folder).write_lists(other, k=MANY)
    with monkeypatch.context() as patch:
        patch.setattr(output_files, "_join", _raise_interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_bundle(folder).write_lists(path, k=MANY)
    parts = sorted((tmp_path / f"{path.name}.parts").glob(f"part-*{ending}"))
    parts[1].write_bytes(b"")
    parts[2].write_bytes(parts[2].read_bytes()[:-20])
    for more in ("", ".sha256"):  # whole, but of others
        shutil.copy(f"{parts[4]}{more}", f"{parts[3]}{more}")
    shutil.copy(parts[4], parts[5])
    parts[6].unlink()
    parts[7].with_name(f"{parts[7].name}.sha256").unlink()
    assert recommend([f"folder={folder}", "users=all", f"output={path}", f"k={MANY}"]) == 0
    said = capsys.readouterr()
    assert "5 parts are incomplete or damaged and made again" in said.err
    assert said.out == f"{path}: lists of {USERS_IN_IT} users, 4 of 10 parts were there\n"
    assert path.read_bytes() == other.read_bytes()


def _raise_interrupt(*_):
    raise KeyboardInterrupt


def test_where_nothing_fits_a_note_says_so(folder, tmp_path, capsys):
    for ask in ("user=u1", "history=1,2"):
        assert recommend([f"folder={folder}", ask, "where=item = 'none'"]) == 0
        said = capsys.readouterr()
        assert said.out == ""
        assert "note: no item that may be recommended fits where=item = 'none'.\n" in said.err
    had = open_bundle(folder).recommend(users=["u1"], k=300, exclude_seen=False)["item"]
    assert len(had) == 300
    assert recommend([f"folder={folder}", f"history={','.join(had)}"]) == 0
    assert "no item is left to recommend; exclude_seen=false gives" in capsys.readouterr().err
    words = [f"folder={folder}", "users=all", f"output={tmp_path}/a.csv", "where=item = 'none'"]
    assert recommend(words) == 0
    assert "fits where=item = 'none', so that all lists are empty" in capsys.readouterr().err
    assert len(read(tmp_path / "a.csv")) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["users=all"], "output= names no file for the lists"),
        (["users=all", "output=runs"], "output=runs: lists are written as .parquet, .csv or"),
        (["users=", "output=a.csv"], "users= names no file"),
        (["users=all", "output=a.csv", "user=7"], "give one of users= and user="),
        (["users=all", "output=a.csv", "shard=17/16"], "shard is '17/16'; give its number from 1"),
        (["users=all", "output=a.csv", "shard=0/16"], "shard is '0/16'"),
        (["users=all", "output=a.csv", "shard=3"], "shard is '3'"),
        (["users=all", "output=a.csv", "unknown=yes"], "unknown is 'yes'; set it to error or skip"),
        (["users=all", "output=a.csv", "k=0"], "k is '0'; give a whole number from 1"),
        (["users=all", "output=a.csv", "shrad=1/2"], "'shrad=1/2' is not understood. Did you mean"),
        (["users=all", "output=a.csv", "where=nam = 'x'"], "the items have no column 'nam'"),
        (["users=all", "output=a.csv", "columns=price"], "no further column 'price'"),
        (["users=all", "output=a.csv", "run=last"], "give run= or folder="),
        (["users=all", "users=b.csv", "output=a.csv"], "users is there twice; keep one."),
        (["users=all", "output=a.csv", "output=b.csv"], "output is there twice; keep one."),
        (["users=all", "output=a.csv", f"k={10**12}"], "a whole number from 1 to 2147483647."),
        (["user=u1", "user=u2"], "user is there twice; keep one."),
        (["user=u1", "k=5", "k=6"], "k is there twice; keep one."),
        (["user=u1", "context.a=5", "context.a=6"], "context.a is there twice; keep one."),
        (["user=u1", f"k={10**12}"], "give a whole number from 1 to 2147483647."),
        (["user=u1", f"k={'9' * 30}"], "give a whole number from 1 to 2147483647."),
        (["user=u1", "k=0"], "k is '0'; give a whole number from 1."),
    ],
)
def test_words_that_do_not_fit_raise_one_clear_error(words, said, folder, tmp_path, capsys):
    placed = [word.replace("a.csv", str(tmp_path / "a.csv")) for word in words]
    assert recommend([f"folder={folder}", *placed]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_lists_in_a_column_go_into_any_file_but_csv(tmp_path):
    tags = {"tags": pl.Series([["a"], ["a", "b"]] * 20)}
    folder = write_vector_bundle(tmp_path / "bundle", 5, 40, 8, columns=tags)
    bundle = open_bundle(folder)
    with pytest.raises(ConfigError, match="column 'tags' holds lists, for which CSV has no place"):
        bundle.write_lists(tmp_path / "a.csv", columns=["tags"])
    for name in ("a.parquet", "a.jsonl"):
        rows = read(
            bundle.write_lists(tmp_path / name, columns=["tags"], where="tags contains 'b'")
        )
        assert rows["tags"].to_list() == [["a", "b"]] * len(rows)
        assert len(rows) == 50


def test_nobody_is_written_of_a_bundle_without_users(tmp_path, folder):
    copy = write_vector_bundle(tmp_path / "bundle", 0, 40, 8)
    assert (copy / USERS).is_file()
    with pytest.raises(DataError, match="there are no users to ask for"):
        open_bundle(copy).write_lists(tmp_path / "a.csv")


def test_who_goes_on_has_the_moment_of_the_first_start(tmp_path, monkeypatch):
    """Items go one by one, one an hour: later lists would lack some."""
    begin = round(time.time() * 1000)
    until = {"available_until": pl.Series([begin + 3_600_000 * n for n in range(1, 301)])}
    folder = write_vector_bundle(tmp_path / "bundle", USERS_IN_IT, 300, 8, columns=until)
    bundle, path = open_bundle(folder), tmp_path / "lists.csv"
    inner = output_files.ListFile.write_part

    def stop(self, number, rows):
        if number == 2:
            raise KeyboardInterrupt
        inner(self, number, rows)

    def set_clock(hours):
        monkeypatch.setattr(time, "time", lambda: begin / 1000 + 3600 * hours + 60)

    set_clock(50)
    unbroken = bundle.write_lists(tmp_path / "unbroken.csv", k=MANY).read_bytes()
    monkeypatch.setattr(output_files.ListFile, "write_part", stop)
    with pytest.raises(KeyboardInterrupt):
        bundle.write_lists(path, k=MANY)
    monkeypatch.setattr(output_files.ListFile, "write_part", inner)
    set_clock(100)
    assert bundle.write_lists(path, k=MANY).read_bytes() == unbroken
    assert read(path)["item"].cast(int).min() == 50
    bundle.write_lists(path, k=MANY)  # anew: what can be had now is less
    assert read(path)["item"].cast(int).min() == 100
    moment = "2100-01-01T00:00"
    with pytest.raises(DataError, match=f"no item can be had at={moment}"):
        bundle.write_lists(path, k=MANY, at=moment)
    past = str(begin // 1000 + 200 * 3600 + 60)
    assert_equal_lists(
        read(bundle.write_lists(tmp_path / "at.csv", at=past)),
        bundle.recommend(users=[f"u{n}" for n in range(USERS_IN_IT)], at=past),
    )


MEASURE = """
import resource, sys
from recsys.recommend.__main__ import main
assert main(sys.argv[1:]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_number_of_users(ending, tmp_path):
    peaks = []
    for users in (20_480, 81_920):
        made = write_vector_bundle(tmp_path / f"of{users}", users, 2000, 16)
        path = tmp_path / f"of{users}.{ending}"
        words = [f"folder={made}", "users=all", f"output={path}", "k=50"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = [sys.executable, "-c", MEASURE, *words]
        out = subprocess.run(run, env=environment, capture_output=True, text=True, check=True)
        peaks.append(float(out.stdout.splitlines()[-1]))
    # three million rows more, which would take some 200 MB
    assert peaks[1] - peaks[0] < 60


def test_what_is_chosen_for_each_alone_and_new_items_are_in_the_lists_too(
    shop_words, tmp_path, monkeypatch
):
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    own = [word for word in shop_words if not word.startswith(("output", "optimizer", "tuning"))]
    texts = ["architecture=ease", "architecture.vectors=encoder", "architecture.rho=30"]
    assert fit([*own, *texts, f"output={tmp_path}/ease"]) == 0
    assert fit([*own, "architecture=popularity", f"output={tmp_path}/popular"]) == 0
    run, popular = (recsys.load("last", tmp_path / name) for name in ("ease", "popular"))
    users, path = [f"u{n}" for n in range(40)], tmp_path / "lists.parquet"
    (tmp_path / "new.csv").write_text("item,name\n030,red lamp\n031,green blue table\n")
    for words in (
        {"diversity": 0.7},
        {"retriever": popular, "candidates": 9},
        {"columns": ["name"], "where": "item > 10"},
    ):
        for model in (
            run,
            *([] if "retriever" in words else [run.add_items(tmp_path / "new.csv")]),
        ):
            rows = pl.read_parquet(model.write_lists(path, k=6, **words))
            assert_equal_lists(rows, model.recommend(users=users, k=6, **words))
    assert "031" in rows["item"]
    words = [f"run={tmp_path}/ease/*", "users=all", "k=6", f"items={tmp_path}/new.csv"]
    assert recommend([*words, f"output={tmp_path}/new.csv.csv", "diversity=0.2"]) == 0
    want = model.recommend(users=users, k=6, diversity=0.2)
    assert_equal_lists(read(tmp_path / "new.csv.csv"), want)


def test_a_full_disk_is_one_clear_error_and_the_parts_stay(folder, tmp_path, monkeypatch):
    bundle, path = open_bundle(folder), tmp_path / "lists.parquet"

    def fail(parts, whole):
        whole.write_bytes(b"half")
        raise pl.exceptions.ComputeError("underlying IO error: No space left (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(output_files, "_join", fail)
        with pytest.raises(DiskFullError, match=r"lists\.parquet could not be written because"):
            bundle.write_lists(path, k=MANY)
    names = sorted(each.name for each in (tmp_path / "lists.parquet.parts").iterdir())
    parts = [f"part-{n:06d}.parquet{more}" for n in range(10) for more in ("", ".sha256")]
    assert names == ["lock", *parts, "plan.json"]
    assert len(read(bundle.write_lists(path, k=MANY))) > 0
