#!/usr/bin/env python3
"""Checks what the compiler does not: who may include whom, what pure code may not touch, and the form of the files.

    check.py layering     includes and tokens of protocol, pool, router and proxy/core; file openings and lengths
    check.py formatting   clang-format, all sources
    check.py self         the checker's own rules, on snippets that must and must not pass

Header-only Boost is on everybody's include path, so that the link lists of the targets cannot enforce the layers.
"""

import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77

# A layer may include its own folder and these.
LAYERS = {
    "protocol": (),
    "pool": (),
    "router": (),
    "proxy/core": ("protocol", "pool", "router"),
    "proxy/io": ("protocol", "pool", "router", "proxy/core"),
}
PURE = ("protocol", "pool", "router", "proxy/core")
PURE_LIBRARIES = ("boost/intrusive/", "boost/system/result.hpp", "boost/smart_ptr/intrusive_")
GENERATED = "pgweir_version.hpp"
# libpg_query is PostgreSQL's parser: text in, tree out.
LAYER_LIBRARIES = {"proxy/core": ("fmt/",), "router": ("pg_query.h",)}

# Standard headers that mean threads, files, streams or the environment.
BANNED_STANDARD = {
    "atomic", "barrier", "condition_variable", "csignal", "cstdio", "ctime", "filesystem", "fstream", "future",
    "iostream", "latch", "mutex", "semaphore", "shared_mutex", "stop_token", "syncstream", "thread",
}
BANNED_TOKENS = {
    r"_clock\s*::\s*now\b": "reads a clock",
    r"\brandom_device\b": "asks for real randomness",
    r"\b(std\s*::\s*)?getenv\b": "reads the environment",
    r"\bstd\s*::\s*(thread|jthread|mutex|shared_mutex|atomic\w*|condition_variable\w*|async|cout|cerr|clog|cin)\b":
        "uses threads, locks or streams",
    r"\bthread_(local|safe_counter)\b": "keeps state per thread or counts atomically",
    r"\b(fopen|fprintf|printf|fputs|puts|ofstream|ifstream|fstream)\b": "does input or output",
    r"\bfmt\s*::\s*print\b": "prints",
    r"\b(asio|PQexec|PQconnect\w*|SSL_\w+|EVP_\w+)\b": "uses a library of the I/O layer",
    r"::\s*(time|clock_gettime|gettimeofday|rand|srand|usleep|sleep|nanosleep)\s*\(": "uses time or randomness",
}
# The one place where pure code is written by one thread and read by others.
SHARED = {"pool/lease_board.hpp": ("#include of atomic", "std::atomic")}
MAX_LINES = 600
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL)


def sources(*folders):
    for folder in folders:
        base = ROOT / folder
        if base.is_dir():
            yield from sorted(p for p in base.rglob("*") if p.suffix in (".hpp", ".cpp", ".h", ".cc"))


def without_comments_and_strings(text):
    return NOISE.sub(lambda match: "\n" * match.group().count("\n") + '""', text)


def include_problem(layer, bracket, name):
    """Why a file of `layer` may not include `name`, or None."""
    if bracket == '"':
        if any(name.startswith(f"{folder}/") and "/" not in name[len(folder) + 1:]
               for folder in (layer, *LAYERS[layer])):
            return None
        if layer in ("proxy/core", "proxy/io") and name == GENERATED:
            return None
        return "is not the layer's own folder nor one below it (write includes from the root)"
    if layer not in PURE:
        return None
    if name in BANNED_STANDARD:
        return "brings threads, files, streams or the clock"
    if "/" not in name and "." not in name:
        return None
    libraries = PURE_LIBRARIES + LAYER_LIBRARIES.get(layer, ())
    return None if name.startswith(libraries) else "is neither standard C++ nor a library this layer may use"


def layer_problems(layer, text):
    """(line, message) for each breach in one file of `layer`."""
    for match in INCLUDE.finditer(text):
        reason = include_problem(layer, *match.groups())
        if reason:
            yield text.count("\n", 0, match.start(2)) + 1, f"#include of {match.group(2)}: {reason}"
    if layer in PURE:
        code = without_comments_and_strings(text)
        for pattern, reason in BANNED_TOKENS.items():
            for match in re.finditer(pattern, code):
                yield code.count("\n", 0, match.start()) + 1, f"{match.group().strip()} {reason}"


def form_problems(path, text):
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        yield len(lines), f"{len(lines)} lines, {MAX_LINES} at most: split it"
    opening = [line for line in lines if line.strip() and line.strip() != "#pragma once"]
    described_by_header = path.suffix == ".cpp" and path.with_suffix(".hpp").exists()
    if not described_by_header and not (opening and opening[0].startswith("//")):
        yield 1, "does not open with a paragraph that says what the file decides"
    if path.suffix == ".hpp" and "#pragma once" not in lines:
        yield 1, "no #pragma once"


def check_layering():
    found = 0
    for layer in LAYERS:
        for path in sources(layer):
            if path.parent != ROOT / layer:
                print(f"{path.relative_to(ROOT)}:1: lies in a folder of its own; a layer is one folder")
                found += 1
                continue
            text = path.read_text()
            allowed = SHARED.get(str(path.relative_to(ROOT)), ())
            for line, problem in sorted([*layer_problems(layer, text), *form_problems(path, text)]):
                if allowed and problem.startswith(allowed):
                    continue
                print(f"{path.relative_to(ROOT)}:{line}: {problem}")
                found += 1
    return 1 if found else 0


def check_formatting():
    program = shutil.which("clang-format-14")
    if program is None:
        print("skipped: no clang-format-14")
        return SKIPPED
    files = [str(path) for path in sources(*LAYERS, "tests", "bench")]
    return subprocess.run([program, "--dry-run", "--Werror", *files], check=False).returncode if files else 0


def check_self():
    """Each rule must fire on what it forbids and keep still on what is allowed."""
    forbidden = [
        ("protocol", '#include "pool/ids.hpp"'), ("pool", '#include "protocol/wire.hpp"'),
        ("router", '#include "proxy/core/config.hpp"'), ("proxy/core", '#include "proxy/io/clock.hpp"'),
        ("protocol", "#include <mutex>"), ("pool", "#include <sys/socket.h>"), ("pool", "#include <boost/asio.hpp>"),
        ("router", "#include <openssl/evp.h>"), ("protocol", "#include <fmt/format.h>"),
        ("pool", "#include <pg_query.h>"),
        ("proxy/core", "#include <boost/asio/ip/tcp.hpp>"), ("proxy/core", "auto t = std::chrono::steady_clock::now();"),
        ("pool", "std::random_device seed;"), ("router", 'auto x = std::getenv("A");'), ("pool", "std::mutex m;"),
        ("proxy/core", 'fmt::print("x");'), ("protocol", "std::atomic<int> n;"), ("proxy/io", '#include "tests/x.hpp"'),
        ("protocol", '#include "wire.hpp"'),
    ]
    allowed = [
        ("protocol", '#include "protocol/wire.hpp"'), ("protocol", "#include <string_view>"),
        ("pool", "#include <boost/intrusive/list.hpp>"), ("router", "#include <boost/system/result.hpp>"),
        ("router", "#include <pg_query.h>"),
        ("proxy/core", '#include "pool/pool.hpp"'), ("proxy/core", "#include <fmt/format.h>"),
        ("pool", "#include <chrono>"), ("proxy/io", "#include <boost/asio.hpp>"), ("proxy/io", "std::mutex m;"),
        ("protocol", "// std::mutex is not used, nor steady_clock::now\n"), ("pool", 'auto s = "std::thread";'),
        ("proxy/io", "#include <sys/epoll.h>"),
    ]
    wrong = [f"not found: {layer}: {text}" for layer, text in forbidden if not list(layer_problems(layer, text))]
    wrong += [f"wrongly found: {layer}: {text}" for layer, text in allowed if list(layer_problems(layer, text))]
    if not list(form_problems(pathlib.Path("a.hpp"), "int x;\n")):
        wrong.append("not found: a header without opening and #pragma once")
    if list(form_problems(pathlib.Path("a.hpp"), "// Decides nothing.\n#pragma once\n")):
        wrong.append("wrongly found: a well-formed header")
    print("\n".join(wrong), end="")
    return 1 if wrong else 0


if __name__ == "__main__":
    CHECKS = {"layering": check_layering, "formatting": check_formatting, "self": check_self}
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(__doc__)
    sys.exit(CHECKS[sys.argv[1]]())
