"""The process: command line, exit codes, pidfile, signals, sockets, and the shape of the log."""

import os
import re
import signal
import subprocess

import pytest

import harness
from both import End, both, probe
from harness import as_run_user, listening, wait_until, write_file
from wire import Wire, bind, execute, parse, query, startup_packet

LOGIN = startup_packet({"user": "postgres", "database": "app"})


def run_program(pooler, *arguments, user=None):
    """Exit code and output of the program with these arguments, which must not make it stay."""
    done = subprocess.run(
        [str(pooler.binary), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=pooler.home,
        check=False,
        stdin=subprocess.DEVNULL,
        **(as_run_user() if user is None else user),
    )
    return done


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-V"],
        ["--version"],
        ["-h"],
        ["--help"],
        ["-x"],
        ["--nothing"],
        ["a", "b"],
        ["no/such/file.ini"],
        ["-u"],
        ["-q", "no/such/file.ini"],
        ["-d"],
        ["--daemon", "x"],
        ["-u", "nobody-at-all", "pooler.ini"],
        ["-qv", "no/such"],
        ["-V", "no/such"],
    ],
    ids=lambda arguments: " ".join(arguments) or "none",
)
@both(fresh=True, start=False)
def test_command_line(pooler, seen, arguments):
    pooler.write_config()
    done = run_program(pooler, *arguments)
    seen("exit code", done.returncode)
    seen("says something on stdout", bool(done.stdout))
    seen("says something on stderr", bool(done.stderr))
    if arguments in (["-h"], ["--help"]):
        seen("options", sorted(set(re.findall(r"--[a-z]+", done.stdout))))
    if arguments in (["-V"], ["--version"]):
        seen("shape", [re.sub(r"[\d.]+.*", "N", line) for line in done.stdout.splitlines()])


@pytest.mark.parametrize(
    "what",
    [
        "listen_addr nobody has",
        "port in use",
        "logfile in no folder",
        "pidfile in no folder",
        "socket folder missing",
        "nowhere to listen on",
        "daemon without pidfile",
        "auth_file missing",
        "pidfile of a living process",
        "pidfile that is stale",
        "pidfile with garbage",
        "empty pidfile",
    ],
)
@both(fresh=True, start=False)
def test_trouble_at_the_start(pooler, seen, what):
    settings = pooler.settings
    if what == "listen_addr nobody has":
        settings["listen_addr"] = "192.0.2.1"
    elif what == "port in use":
        settings["listen_port"] = pooler.cluster.port
    elif what == "logfile in no folder":
        settings["logfile"] = "/no/such/folder/log"
    elif what == "pidfile in no folder":
        settings["pidfile"] = "/no/such/folder/pid"
    elif what == "socket folder missing":
        settings["unix_socket_dir"] = "/no/such/folder"
    elif what == "nowhere to listen on":
        settings.update(listen_addr="", unix_socket_dir="")
    elif what == "daemon without pidfile":
        settings["pidfile"] = ""
        pooler.arguments.append("-d")
    elif what == "auth_file missing":
        settings["auth_file"] = "/no/such/file"
    elif what.startswith(("pidfile", "empty")):
        write_file(
            pooler.pidfile,
            {
                "pidfile of a living process": f"{os.getpid()}\n",
                "pidfile that is stale": "4194300\n",
                "pidfile with garbage": "x\n",
                "empty pidfile": "",
            }[what],
        )
    pooler.spawn()
    wait_until(lambda: pooler.process.poll() is not None or "process up" in pooler.log(), 10, "it runs or ends")
    code = pooler.process.poll()
    seen("exit code", code)
    seen(
        "pidfile", pooler.pidfile.read_text() == f"{pooler.pid}\n" if pooler.pidfile.exists() and code is None else None
    )
    seen.log("log", "FATAL|cannot|could not|in use|exists|stale|nowhere|Failed|failed|bind", count=0)
    if code is not None:
        pooler.process = None


@both(fresh=True)
def test_second_process(pooler, seen):
    done = run_program(pooler, pooler.ini)
    seen("exit code", done.returncode)
    seen.log("log", "in use|exists", count=0)
    with pooler.wire() as client:
        seen.answer("the first lives", client, query("SELECT 1"))


@both(fresh=True)
def test_lines_of_the_start(pooler, seen):
    seen.log("log", "^(listening|process up|kernel)", count=4)


@both(fresh=True, start=False)
def test_daemon(pooler, seen):
    pooler.arguments = ["-d"]
    pooler.spawn()
    code = pooler.process.wait(10)
    seen("exit code of the parent", code)
    wait_until(lambda: listening(pooler.port) and pooler.pidfile.exists(), 10, "the daemon listens")
    pid = int(pooler.pidfile.read_text())
    try:
        with pooler.wire() as client:
            seen.answer("it serves", client, query("SELECT 1"))
        seen("session leader", os.getsid(pid) != os.getsid(0))
        seen("standard streams", [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)])
        seen("working directory", os.readlink(f"/proc/{pid}/cwd"))
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not listening(pooler.port), 10, "the daemon ends")
        pooler.process = None


@both(fresh=True)
def test_files_while_it_runs_and_after(pooler, seen):
    socket = pooler.home / f".s.PGSQL.{pooler.port}"
    seen("pidfile", pooler.pidfile.read_text() == f"{pooler.pid}\n")
    seen("mode of the pidfile", oct(pooler.pidfile.stat().st_mode))
    seen("mode of the socket", oct(socket.stat().st_mode))
    seen(
        "lock files",
        sorted(path.name.replace(str(pooler.port), "PORT") for path in pooler.home.iterdir() if "PGSQL" in path.name),
    )
    pooler.signal(signal.SIGTERM)
    pooler.process.wait(10)
    seen("exit code", pooler.process.returncode)
    seen("files after the end", sorted(path.name for path in pooler.home.iterdir() if path.name not in ("stderr",)))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGQUIT"])
@both(fresh=True)
def test_signal_that_ends(pooler, seen, name):
    """Without clients: whether waiting or at once, it ends."""
    pooler.signal(getattr(signal, name))
    pooler.process.wait(10)
    seen("exit code", pooler.process.returncode)
    seen.log("log", "got SIG|shutting", count=0)


@both(fresh=True)
def test_sigint_with_a_client_in_a_transaction(pooler, seen):
    client = pooler.wire()
    client.query("BEGIN")
    pooler.signal(signal.SIGINT)
    wait_until(lambda: "SIGINT" in pooler.log(), what="the signal was taken")
    seen.answer("the client goes on", client, query("SELECT 1"))
    client.query("COMMIT")
    pooler.process.wait(10)
    seen("exit code", pooler.process.returncode)
    seen.messages("the client at the end", [*client.expect_closed(), End()])


@both(fresh=True)
def test_sighup(pooler, seen):
    client = pooler.wire()
    client.query("BEGIN")
    pooler.settings["default_pool_size"] = "9"
    pooler.write_config()
    pooler.signal(signal.SIGHUP)
    wait_until(
        lambda: [row["value"] for row in pooler.admin("SHOW CONFIG") if row["key"] == "default_pool_size"] == ["9"]
    )
    seen.answer("the client", client, query("COMMIT"))
    seen.log("log", "SIGHUP|[Rr]eload|re-read")


@both(fresh=True)
def test_sigusr1_and_sigusr2(pooler, seen):
    client = pooler.wire()
    client.query("SELECT 1")
    pooler.signal(signal.SIGUSR1)
    seen.log("log of SIGUSR1", "SIGUSR1|[Pp]ause")
    with pooler.console() as console:
        wait_until(lambda: console.query("PAUSE").error is not None, what="it is paused")
        seen.answer("PAUSE", console, query("PAUSE"))
        seen.answer("RESUME app", console, query("RESUME app"))
    start = len(pooler.log())
    pooler.signal(signal.SIGUSR1)
    seen.log("log of SIGUSR1 again", "SIGUSR1", start)
    for moment in ("", " again"):
        start = len(pooler.log())
        pooler.signal(signal.SIGUSR2)
        seen.log(f"log of SIGUSR2{moment}", "SIGUSR2|[Rr]esum", start)
    seen.answer("then", client, query("SELECT 1"))
    with pooler.console() as console:
        console.query("SUSPEND")
        start = len(pooler.log())
        pooler.signal(signal.SIGUSR1)
        seen.log("log of SIGUSR1 while suspended", "SIGUSR1", start)
        start = len(pooler.log())
        pooler.signal(signal.SIGUSR2)
        seen.log("log of SIGUSR2 while suspended", "SIGUSR2", start)
        seen.answer("then again", client, query("SELECT 1"))


@both(fresh=True)
def test_logfile_is_opened_again(pooler, seen):
    pooler.log_file.rename(pooler.home / "log.1")
    pooler.signal(signal.SIGHUP)
    with pooler.console() as console:
        # PgBouncer opens it with the next line that it writes.
        wait_until(lambda: console.query("SHOW NOTHING").error and pooler.log_file.exists(), what="a new log file")
    seen("it is written to", wait_until(lambda: "SHOW NOTHING" in pooler.log_file.read_text(), what="a line"))


@both(fresh=True, settings={"log_stats": "1", "stats_period": "1"})
def test_stats_line(pooler, seen):
    """The line that log scrapers read: PgBouncer 1.18 has fewer numbers in it, in the same places."""
    with pooler.wire() as client:
        client.query("SELECT 1")
    wait_until(lambda: "stats:" in pooler.log(), 5, "a line of statistics")
    line = next(line for line in pooler.log().splitlines() if "stats:" in line)
    seen("line", re.sub(r"\d+", "N", line[line.index("stats:") :]))
    seen(
        "whole line",
        bool(
            re.fullmatch(
                r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \S+ \[\d+\] LOG stats: \d+ xacts/s, \d+ queries/s, .*"
                r"in \d+ B/s, out \d+ B/s, xact \d+ us, query \d+ us, wait \d+ us",
                line,
            )
        ),
    )


@both(fresh=True)
def test_log_of_a_client(pooler, seen):
    with Wire(pooler.port) as client:
        client.login("postgres", "app")
        client.query("SELECT 1")
    seen.log("a client over TCP", "app/postgres@127", count=4)
    with Wire(pooler.port, path=pooler.home) as client:
        client.login("postgres", "other")
    seen.log("a client over the Unix socket", "other/postgres@unix", count=2)
    start = len(pooler.log())
    seen.messages("unknown database", probe(pooler, startup_packet({"user": "postgres", "database": "nowhere"})))
    seen.log("log of the unknown database", "nowhere", start, 2)


@both(fresh=True, settings={"log_connections": "0", "log_disconnections": "0", "log_pooler_errors": "0"})
def test_log_of_a_quiet_pooler(pooler, seen):
    with pooler.wire() as client:
        client.query("SELECT 1")
    probe(pooler, startup_packet({"user": "postgres", "database": "nowhere"}))
    seen.log("log", "app/postgres|nowhere", count=0)


# What somebody who asks for more wants to see; PgBouncer's other lines are about its own functions.
DEBUG = "got var|logged in|pause_client|activate_client|S: auth ok|S: param|server login ok|(query|transaction) time|got admin"


@pytest.mark.parametrize("how", ["-v", "-vv", "verbose = 1", "-v, verbose = 0"])
@both(fresh=True, start=False, userlist={"postgres": "x", "admin": "y"}, settings={"auth_type": "md5"})
def test_verbose(pooler, seen, how):
    """The file goes before the command line. No line has a secret in it."""
    pooler.arguments = [one for one in how.split(", ") if one.startswith("-")]
    if "verbose" in how:
        pooler.settings["verbose"] = how[-1]
    pooler.start()
    with pooler.wire(password="x") as client:
        client.query("SELECT 1; SELECT 2")
        client.query("BEGIN")
        client.query("COMMIT")
        client.extended(parse("", "SELECT 1"), bind(), execute())
    with pooler.console_login("y") as console:
        console.query("SHOW VERSION")
        seen("setting", [row["value"] for row in console.rows("SHOW CONFIG") if row["key"] == "verbose"])
    level = 2 if how == "-vv" else int(how[-1]) if "verbose" in how else 1
    for name, pattern, at in (
        ("client", f"^C-.*/postgres@.*({DEBUG})", 1),
        ("server", f"^S-.*({DEBUG})", 1),
        ("console", "^got admin", 1),
        ("messages of the client", "^C-.*app/postgres@.*read pkt='[QPBESX]'", 2),
        ("messages of the server", "^S-.*read pkt='[^SRKN]'", 2),
    ):
        seen.log(name, pattern, count=1 if level >= at else 0)
    seen("secrets", [word for word in ("correct horse", "md5", "SCRAM") if word in pooler.log()])


@both(fresh=True)
def test_verbose_by_set(pooler, seen):
    with pooler.wire() as client, pooler.console() as console:
        for value in ("0", "1", "2", "0"):
            console.query(f"SET verbose = {value}")
            start = len(pooler.log())
            client.query("SELECT 1")
            lines = [re.sub(r"time: \d+", "time: N", line) for line in pooler.log()[start:].splitlines()]
            told = sorted(line.partition("app/postgres@")[2].partition(" ")[2] for line in lines
                          if "app/postgres@" in line and ("time: " in line or "read pkt" in line))
            assert bool(told) == (value != "0")
            seen(f"{len(seen.values)} with {value}", told)


@both(fresh=True)
def test_health_probe_is_not_logged(pooler, seen):
    start = len(pooler.log())
    Wire(pooler.port).socket.close()
    with Wire(pooler.port) as client:
        client.login("postgres", "app")
    seen.log("log", "nodb|login attempt", start)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root")
@pytest.mark.parametrize("how", ["as root", "-u", "user in the file", "user nobody knows"])
@both(fresh=True, start=False)
def test_root(pooler, seen, how):
    """Root is refused, or left behind."""
    if how.startswith("user"):
        pooler.settings["user"] = harness.RUN_USER if how == "user in the file" else "nobody-at-all"
    pooler.write_config()
    arguments = ["-u", harness.RUN_USER] if how == "-u" else []
    with open(pooler.stderr_file, "ab") as stderr:
        pooler.process = subprocess.Popen(
            [str(pooler.binary), *arguments, str(pooler.ini)],
            cwd=pooler.home,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    wait_until(lambda: pooler.process.poll() is not None or listening(pooler.port), 10, "it runs or ends")
    code = pooler.process.poll()
    seen("exit code", code)
    if code is None:
        seen("user", os.stat(f"/proc/{pooler.pid}").st_uid)
    else:
        pooler.process = None
        seen("log", [line.partition("] ")[2] or line for line in pooler.stderr_file.read_text().splitlines()])
