"""Studies that several drivers share and that survive each of them."""

import json
import os
import re
import subprocess
import sys
import warnings

import optuna
import pytest
from optuna.trial import TrialState

from recsys.errors import ConfigError
from recsys.sweep.running.leases import LOSSES, LOST, TrialLeases, get_trial_index
from recsys.sweep.running.storage import JOURNAL, open_storage

SPACE = {"x": optuna.distributions.FloatDistribution(0, 1)}

# Drivers as processes of their own. The words are the parts of those that begin together, for one
# group after the other; each tells what it did in a line.
OTHERS = """
import json, os, signal, sys
from pathlib import Path
import optuna
from recsys.sweep.running.leases import TrialLeases
from recsys.sweep.running.storage import open_storage
optuna.logging.set_verbosity(optuna.logging.WARNING)
folder, url, name, *groups = sys.argv[1:]

def drive(part, ready, go):
    opened = open_storage(Path(folder), url or None)
    study = optuna.create_study(study_name=name, storage=opened.storage, load_if_exists=True)
    with TrialLeases(opened) as leases:
        os.write(ready, b".")
        os.read(go, 1)
        done = []
        if part == "recover":
            done = leases.recover(study, lambda index: 0.0)
        for _ in range({"ask": 6, "die": 3, "recover": 0}[part]):
            trial = leases.ask(study)
            done.append([trial.number, trial.suggest_float("x", 0, 1)])
            if part == "ask":
                assert leases.tell(study, trial.number, [0.0])
        os.write(1, json.dumps(done).encode() + b"\\n")
        if part == "die":
            os.kill(os.getpid(), signal.SIGKILL)

for parts in groups:
    (ready, say_ready), (go, say_go) = os.pipe(), os.pipe()
    children = []
    for part in parts.split(","):
        children.append(os.fork())
        if not children[-1]:
            drive(part, say_ready, go)
            os._exit(0)
    for _ in children:
        os.read(ready, 1)
    os.write(say_go, b"." * len(children))
    for child in children:
        os.waitpid(child, 0)
"""

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["journal", "postgresql"])
def place(request, tmp_path):
    """A folder, a URL and a name of a study that is new."""
    url = None if request.param == "journal" else request.getfixturevalue("postgres")
    return tmp_path / "sweep", url, f"study of {tmp_path.name}"


@pytest.fixture
def opened(place):
    return open_storage(place[0], place[1])


@pytest.fixture
def study(place, opened):
    return optuna.create_study(study_name=place[2], storage=opened.storage, direction="maximize")


def drivers(place, *groups):
    """What drivers did that were processes of their own."""
    words = [sys.executable, "-c", OTHERS, str(place[0]), place[1] or "", place[2], *groups]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == sum(len(parts.split(",")) for parts in groups), done.stderr
    return found


def repetitions(study):
    return [t for t in study.trials if "retry_of" in t.user_attrs]


def test_two_drivers_that_ask_at_once_never_run_the_same_trial(place, study):
    for number in range(8):
        study.enqueue_trial({"x": number / 100})
    done = [each for part in drivers(place, "ask,ask") for each in part]
    numbers = [number for number, _ in done]
    assert sorted(numbers) == list(range(12))
    assert {round(x, 9) for number, x in done if number < 8} == {n / 100 for n in range(8)}
    assert [t.user_attrs["index"] for t in study.trials] == list(range(12))
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert len({t.user_attrs["driver"] for t in study.trials}) == 2


def test_a_lost_trial_is_repeated_once_though_two_recover_at_once(place, opened, study):
    died, *recovered = drivers(place, "die", "recover,recover")
    assert sorted(number for part in recovered for number in part) == [0, 1, 2]
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert [t.user_attrs["reason"] for t in failed] == [LOST] * 3
    again = repetitions(study)
    assert [t.user_attrs["retry_of"] for t in again] == [0, 1, 2]
    assert [t.user_attrs["index"] for t in again] == [0, 1, 2]
    with TrialLeases(opened) as leases:
        for before in failed:
            trial = leases.ask(study)
            assert trial.suggest_float("x", 0, 1) == dict(died)[before.number]
            assert get_trial_index(study, trial) == before.number
        assert leases.ask(study).user_attrs["index"] == 3


def nowhere(index):
    """A trial that never came further."""
    return 0.0


def left(opened, study, count=1):
    """Trials whose driver has ended without a word."""
    with TrialLeases(opened) as leases:
        trials = [leases.ask(study) for _ in range(count)]
        for trial in trials:
            trial.suggest_float("x", 0, 1)
    return trials


def test_a_trial_is_not_to_blame_for_the_death_of_its_driver(opened, study):
    """Machines that are taken away may do that often; what never comes further is given up."""
    left(opened, study)
    for step in range(1, 2 * LOSSES):  # each driver brings it further
        with TrialLeases(opened) as leases:
            assert leases.recover(study, lambda index, step=step: float(step)) == [step - 1]
            assert leases.ask(study).user_attrs["index"] == 0
    reached = 2.0 * LOSSES
    for number in range(2 * LOSSES - 1, 3 * LOSSES - 1):
        with TrialLeases(opened) as leases:
            assert leases.recover(study, lambda index: reached) == [number]
            trial = leases.ask(study)
            last = number == 3 * LOSSES - 2
            assert trial.user_attrs["index"] == (1 if last else 0)
    given_up = study.trials[3 * LOSSES - 2]
    assert given_up.user_attrs["reason"].startswith(f"lost: its driver ended {LOSSES} times, and")
    assert [t.user_attrs["retry_of"] for t in repetitions(study)][-1] == 3 * LOSSES - 3


def test_locks_of_dead_drivers_go_and_those_of_living_ones_stay(opened, study):
    left(opened, study)
    assert len(list((opened.folder / "drivers").iterdir())) == 1
    with TrialLeases(opened) as one, TrialLeases(opened) as two:
        assert one.recover(study, nowhere) == [0]
        one.delete_dead_locks()
        there = {path.stem for path in (opened.folder / "drivers").iterdir()}
        assert there == {one.id, two.id}


def test_a_queued_trial_that_is_lost_before_it_asked_for_its_values_keeps_them(opened, study):
    study.enqueue_trial({"x": 0.25})
    with TrialLeases(opened) as leases:
        leases.ask(study)
    with TrialLeases(opened) as leases:
        assert leases.recover(study, nowhere) == [0]
        assert leases.ask(study).suggest_float("x", 0, 1) == 0.25


def test_a_stopped_trial_goes_on_each_time_and_may_still_be_lost_once(opened, study):
    with TrialLeases(opened) as leases:
        for number in range(2):
            assert leases.ask(study).number == number
            assert leases.fail(study, number, "stopped", retry=True, blameless=True) is True
        for number, repeated in ((2, True), (3, False)):
            assert leases.ask(study).user_attrs["index"] == 0
            assert leases.fail(study, number, "killed", retry=True) is repeated
        assert leases.ask(study).user_attrs["index"] == 1


def test_a_full_budget_starts_nothing(opened, study):
    with TrialLeases(opened) as leases:
        assert leases.ask(study, room=lambda: False) is None
        assert not study.trials
        assert leases.ask(study, room=lambda: True).number == 0


def test_a_driver_killed_between_failing_and_repeating_loses_nothing(opened, study, monkeypatch):
    left(opened, study, 2)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with TrialLeases(opened) as leases:
        with monkeypatch.context() as patch:
            patch.setattr(study, "enqueue_trial", killed)
            with pytest.raises(KeyboardInterrupt):
                leases.recover(study, nowhere)
        assert [t.state for t in study.trials] == [TrialState.FAIL, TrialState.RUNNING]
        assert leases.recover(study, nowhere) == [1]
        assert leases.recover(study, nowhere) == []
    assert sorted(t.user_attrs["retry_of"] for t in repetitions(study)) == [0, 1]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_of_a_driver_killed_while_it_asked_is_lost(opened, study):
    study.ask(SPACE)
    with TrialLeases(opened) as leases:
        assert leases.recover(study, nowhere) == [0]
        trial = leases.ask(study)
    assert trial.user_attrs["index"] == study.trials[0].user_attrs["index"] == 0


def test_a_living_driver_keeps_its_trials(opened, study):
    with TrialLeases(opened) as one, TrialLeases(opened) as two:
        mine, yours = one.ask(study).number, two.ask(study).number
        assert one.recover(study, nowhere) == two.recover(study, nowhere) == []
        assert one.tell(study, mine, [0.5]) is two.tell(study, yours, None) is True
    assert [t.state for t in study.trials] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert not list((opened.folder / "drivers").iterdir())


def test_a_crash_is_repeated_once_and_a_bad_value_never(opened, study):
    with TrialLeases(opened) as leases:
        bad, crashed = (leases.ask(study).number for _ in range(2))
        assert leases.fail(study, bad, "diverged", retry=False) is False
        assert leases.fail(study, crashed, "killed", retry=True) is True
        again = leases.ask(study)
        assert (again.user_attrs["retry_of"], again.user_attrs["index"]) == (crashed, 1)
        assert leases.fail(study, again.number, "killed", retry=True) is False
        assert leases.recover(study, nowhere) == []
    assert [t.user_attrs["reason"] for t in study.trials] == ["diverged", "killed", "killed"]


def test_a_driver_taken_for_dead_is_told_that_its_trial_does_not_count(opened, study):
    (trial,) = left(opened, study)
    with TrialLeases(opened) as late, TrialLeases(opened) as leases:
        leases.recover(study, nowhere)
        assert late.tell(study, trial.number, [1.0]) is False
        assert late.fail(study, trial.number, "killed", retry=True) is False
    assert len(repetitions(study)) == 1


def test_another_machine_is_known_by_its_signs_of_life(postgres, tmp_path):
    from sqlalchemy import text

    here, there = (open_storage(tmp_path / name, postgres) for name in ("here", "there"))
    study = optuna.create_study(study_name=tmp_path.name, storage=here.storage)
    with TrialLeases(there) as far, TrialLeases(here) as near:
        far.ask(study)
        assert near.recover(study, nowhere) == []
        with here.server.begin() as connection:
            old = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '{} seconds'"
            connection.execute(text(old.format(60)))
            assert near.recover(study, nowhere) == []
        with here.server.begin() as connection:
            connection.execute(text(old.format(60)))
        assert near.recover(study, nowhere) == [0]


def test_signs_of_life_are_written_while_a_trial_runs(postgres, tmp_path, monkeypatch):
    from sqlalchemy import text

    monkeypatch.setattr("recsys.sweep.running.leases.BEAT", 0.05)
    opened = open_storage(tmp_path, postgres)
    study = optuna.create_study(study_name=tmp_path.name, storage=opened.storage)
    with TrialLeases(opened) as leases, opened.server.connect() as connection:
        trial = leases.ask(study)
        ours = {"id": study.trials[0]._trial_id}

        def sign():
            connection.rollback()
            found = "SELECT heartbeat FROM trial_heartbeats WHERE trial_id = :id"
            return connection.execute(text(found), ours).scalar()

        first = sign()
        for _ in range(200):
            if (last := sign()) > first:
                break
            connection.execute(text("SELECT pg_sleep(0.02)"))
        assert last > first
        assert leases.tell(study, trial.number, [0.0])


def test_no_warning_of_optuna_reaches_the_user(opened, study):
    with warnings.catch_warnings(), TrialLeases(opened) as leases:
        warnings.simplefilter("error")
        assert leases.tell(study, leases.ask(study).number, [0.0])


def test_a_torn_line_is_cut_also_while_others_go_on(tmp_path):
    opened = open_storage(tmp_path, None)
    study = optuna.create_study(study_name="a", storage=opened.storage)
    study.tell(study.ask(SPACE), 1.0)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(whole.splitlines()[-1][:17])  # the machine died here
    again = optuna.load_study(study_name="a", storage=open_storage(tmp_path, None).storage)
    assert path.read_bytes() == whole
    assert len(again.trials) == 1
    with path.open("ab") as file:
        file.write(b'{"op_code": 4, "worker')  # a driver died beside one that lives
    study.tell(study.ask(SPACE), 2.0)
    plain = optuna.load_study(study_name="a", storage=as_others_see_it(tmp_path))
    for each in (study, again, plain):
        assert [t.value for t in each.trials] == [1.0, 2.0]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def as_others_see_it(folder):
    """The journal as any other program opens it."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    return optuna.storages.JournalStorage(backend)


def test_a_damaged_journal_is_told_in_a_sentence(tmp_path):
    opened = open_storage(tmp_path, None)
    optuna.create_study(study_name="a", storage=opened.storage).ask(SPACE)
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    (tmp_path / JOURNAL).write_bytes(b"".join([lines[0], b"no json\n", *lines[1:]]))
    with pytest.raises(ConfigError, match=r"journal\.log is damaged"):
        open_storage(tmp_path, None)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("no url with secret", "storage is not the URL of a database"),
        ("postgresql://a:secret@host:port/x", "storage is not the URL of a database"),
        ("redis://a:secret@127.0.0.1/x", "redis is not known; it is one of postgresql, mysql"),
        ("mysql+none_such://a:secret@127.0.0.1/x", "install it with pip install 'none_such'"),
        (
            "postgresql://a:secret@127.0.0.1:1/x?passfile=secret",
            r"storage: postgresql\+psycopg://a:\*\*\*@127.0.0.1:1/x cannot be used \(.*refused",
        ),
        ("sqlite:///no/such/folder/a.db", "cannot be used .*unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_without_its_password(tmp_path, url, sentence):
    with pytest.raises(ConfigError) as error:
        open_storage(tmp_path, url)
    assert re.search(sentence, str(error.value)), error.value
    assert "secret" not in str(error.value)
    assert str(error.value).count("\n") == 0


def test_a_missing_database_is_told_and_a_password_lies_nowhere(postgres, tmp_path):
    with pytest.raises(ConfigError, match='database "none" does not exist') as error:
        open_storage(tmp_path, postgres.replace("/optuna", "/none"))
    opened = open_storage(tmp_path, postgres)
    study = optuna.create_study(study_name=tmp_path.name, storage=opened.storage)
    left(opened, study)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    for text in [*kept, str(error.value).encode(), opened.shown.encode(), repr(opened).encode()]:
        assert b"cret" not in text
    assert opened.shown.startswith("postgresql+psycopg://recsys:***@127.0.0.1:")


def test_a_sqlite_file_serves_the_drivers_of_one_machine(tmp_path):
    opened = open_storage(tmp_path, f"sqlite:///{tmp_path / 'a.db'}")
    study = optuna.create_study(study_name="a", storage=opened.storage)
    left(opened, study)
    with TrialLeases(opened) as leases:
        assert leases.recover(study, nowhere) == [0]
        assert leases.ask(study).user_attrs["retry_of"] == 0
    assert os.listdir(tmp_path / "drivers")


@pytest.mark.parametrize("line", ["{garbage", "", "[" * 100_000, "\ud83d{"])
def test_a_last_line_that_is_no_json_is_cut_and_what_follows_is_read(tmp_path, line):
    storage = open_storage(tmp_path, None).storage
    optuna.create_study(study_name="a", storage=storage).ask()
    with (tmp_path / "journal.log").open("ab") as journal:
        journal.write(line.encode(errors="surrogatepass") + b"\n")
    for count in (2, 3):
        again = optuna.load_study(study_name="a", storage=open_storage(tmp_path, None).storage)
        again.ask()
        assert len(again.trials) == count
