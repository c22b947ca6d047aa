"""What the router takes for facts, against a real primary and its streaming standby: that what the classifier calls a read
runs on the standby, and what the queries of catalogue and prober answer."""

import contextlib
import os
import subprocess

import psycopg
import pytest

from harness import BINARY, PG15_BIN, ROOT, run, wait_until
from postgres import Cluster, Standby

CORPUS = ROOT / "tests/corpus"
CLASSIFY = BINARY.parent / "tests/router_cli/classify"
if not CLASSIFY.exists():
    CLASSIFY = ROOT / "build/release/tests/router_cli/classify"

# What a standby says when it is asked for what only a primary does. 55000 is also used for other things, 0A000 too, so
# the text must speak of it.
READ_ONLY = "25006"
RECOVERY_WORDS = ("recovery", "read-only", "replica", "hot standby")


def unescape(text):
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\\t", "\t").replace("\0", "\\")


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def corpus():
    """(line number, expected class, what a standby does, text) of each statement."""
    for number, line in enumerate((CORPUS / "statements.txt").read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            expected, standby, text = line.split(" ", 2)
            yield number, expected, standby, unescape(text)


@pytest.fixture(scope="module")
def pair(base):
    """A primary with the objects of the corpus, and a standby that has replayed them."""
    primary = Cluster(base, PG15_BIN)
    with primary.connect("app") as connection:
        for statement in (CORPUS / "schema.sql").read_text().split(";\n"):
            if statement.strip():
                connection.execute(statement)
    standby = Standby(base, primary)
    standby.catch_up()
    yield primary, standby
    standby.stop("immediate")
    primary.stop("immediate")


def ask_classifier(base, rows, lines):
    """Verdicts of the classifier, by line number, with the catalogue of a live server."""
    catalog = base / "catalog.tsv"
    catalog.write_text("".join("\t".join((kind, name, *("t" if flag else "f" for flag in flags), escape(text or ""))) + "\n"
                               for kind, name, *flags, text in rows))
    done = subprocess.run([CLASSIFY, catalog], input=lines, capture_output=True, text=True, check=True, timeout=60)
    return {int(number): (verdict, reason) for number, verdict, reason in map(str.split, done.stdout.splitlines())}


def query_text(which):
    return subprocess.run([CLASSIFY, which], capture_output=True, text=True, check=True, timeout=20).stdout


@pytest.fixture(scope="module")
def verdicts(pair, tmp_path_factory):
    query = query_text("query")
    with pair[1].connect("app") as connection:
        rows = connection.execute(query).fetchall()
    return ask_classifier(tmp_path_factory.mktemp("catalog"), rows, (CORPUS / "statements.txt").read_text())


def outcome(connection, text):
    """None, or the first error of running `text` as a simple query; data copied out is dropped, none is copied in."""
    status = psycopg.pq.ExecStatus
    error = None
    connection.pgconn.send_query(text.encode())
    while (result := connection.pgconn.get_result()) is not None:
        if result.status == status.COPY_IN:
            connection.pgconn.put_copy_end(None)
        elif result.status == status.COPY_OUT:
            while connection.pgconn.get_copy_data(0)[0] > 0:
                pass
        elif result.status == status.FATAL_ERROR and error is None:
            field = psycopg.pq.DiagnosticField
            error = (result.error_field(field.SQLSTATE).decode(),
                     result.error_field(field.MESSAGE_PRIMARY).decode("utf-8", "replace"))
    return error


def on_standby(standby, text, block=False):
    with contextlib.closing(standby.connect("app")) as connection:
        if block:
            assert outcome(connection, "BEGIN READ ONLY") is None
        return outcome(connection, text)


def is_refused(error):
    return error is not None and (error[0] == READ_ONLY or any(word in error[1] for word in RECOVERY_WORDS))


def test_every_statement_has_its_class_with_a_live_catalogue(verdicts):
    wrong = [(number, text, expected, verdicts[number]) for number, expected, _, text in corpus()
             if verdicts[number][0] != expected]
    assert not wrong


def test_what_is_called_a_read_runs_on_a_standby(pair, verdicts):
    reads = [(number, standby, text) for number, _, standby, text in corpus()
             if verdicts[number][0] in ("read", "begin_read_only")]
    assert len(reads) > 200
    wrong = [(number, text, error) for number, standby, text in reads
             if (error := on_standby(pair[1], text, block=standby == "block")) is not None]
    assert not wrong


def test_reads_say_the_same_on_both(pair, verdicts):
    """Plain queries whose answer depends on neither time nor chance."""
    primary, standby = pair
    moving = ("random", "clock", "now(", "current_", "statement_", "timeofday", "gen_random", "localtime", "TABLESAMPLE")
    different = []
    with primary.connect("app") as left, standby.connect("app") as right:
        for number, _, expected, text in corpus():
            if verdicts[number] != ("read", "select") or expected != "ok" or ";" in text or "%" in text:
                continue
            if any(word in text for word in moving):
                continue
            rows = []
            for connection in (left, right):
                cursor = connection.execute(text.encode())
                rows.append(sorted(map(repr, cursor.fetchall())) if cursor.description else [])
            if rows[0] != rows[1]:
                different.append((number, text))
    assert not different


def test_the_corpus_is_true_about_the_standby(pair):
    """What it says is refused there is refused, what it says runs does."""
    wrong = []
    for number, _, standby, text in corpus():
        if standby in ("refused", "ok", "block"):
            error = on_standby(pair[1], text, block=standby == "block")
            if is_refused(error) != (standby == "refused") or (standby != "refused" and error):
                wrong.append((number, text, error))
    assert not wrong


def test_refused_statements_are_good_ones_on_the_primary(pair):
    """Else their refusal would say nothing about the standby: each is run on the primary and rolled back."""
    wrong = []
    for number, expected, standby, text in corpus():
        if standby != "refused" or ";" in text or expected.startswith(("begin", "end")):
            continue
        with contextlib.closing(pair[0].connect("app")) as connection:
            outcome(connection, "BEGIN")
            error = outcome(connection, text)
            outcome(connection, "ROLLBACK")
            if is_refused(error):
                wrong.append((number, text, error))
    assert not wrong


def test_the_knowledge_query_runs_for_an_ordinary_user(pair):
    query = query_text("query")
    with pair[0].connect("app", user="alice") as connection:
        rows = connection.execute(query).fetchall()
    assert {row[0] for row in rows} == {"function", "operator", "type", "relation", "implicit"}
    assert os.environ.get("PGWEIR_WRITE_CATALOG") is None or write_snapshot(rows)


def write_snapshot(rows):
    """Renews catalog.tsv, which the unit tests use: without what no statement of the corpus can name."""
    mentioned = (CORPUS / "statements.txt").read_text() + (CORPUS / "schema.sql").read_text()
    lines, named = [], {}
    for kind, name, builtin, safe, attribute, definition in rows:
        flags = ["t" if flag else "f" for flag in (builtin, safe, attribute)]
        if definition or kind == "implicit" or " " in name:
            if not definition or name in mentioned:
                lines.append("\t".join((kind, name, *flags, escape(definition or ""))))
        elif not name.startswith(("pg_toast", "binary_upgrade")):
            named.setdefault((kind + "s", *flags), set()).add(name)
    lines += ["\t".join((kind, " ".join(sorted(names)), *flags, "")) for (kind, *flags), names in named.items()]
    (CORPUS / "catalog.tsv").write_text("\n".join(sorted(lines)) + "\n")
    return True


def test_the_probe_tells_role_timeline_and_positions(pair):
    """Last in this file: the standby ends as a primary."""
    primary, standby = pair
    probe = query_text("probe")

    def ask(cluster, user="postgres"):
        with cluster.connect("app", user=user) as connection:
            return connection.execute(probe).fetchone()

    standby.catch_up()
    for user in ("postgres", "alice"):
        in_recovery, timeline, insert, receive, replay, age, system, *sizes = ask(primary, user)
        assert (in_recovery, timeline, receive, replay, age) == (False, 1, None, None, None) and "/" in insert
        assert sizes == ["8192", 16 << 20]
        assert system == ask(standby, user)[6] != 0
        in_recovery, timeline, insert, receive, replay, age, *_ = ask(standby, user)
        assert (in_recovery, timeline, insert) == (True, 1, None) and "/" in receive and "/" in replay and age >= 0
    primary.stop("immediate")
    run(PG15_BIN / "pg_ctl", "promote", "-D", standby.data, "-w", "-t", "30")
    wait_until(lambda: not ask(standby)[0], 10, "promotion")
    # No checkpoint has been waited for: the control file may still tell the old timeline, the probe must not.
    assert ask(standby)[:2] == (False, 2)
    assert ask(standby, "alice")[:2] == (False, 2)
