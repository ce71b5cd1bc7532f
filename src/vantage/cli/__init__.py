"""The `vantage` command: one file a command, imported when it is called."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

COMMANDS = (
    "train", "eval", "play", "rlhf", "chat", "doctor", "report", "compare", "plot", "tune", "check", "export", "bench",
    "demo", "explain", "verify", "info",
)  # fmt: skip
FILES = {name: f"{name}_" if name == "eval" else name for name in COMMANDS}

FIELDS = dict.fromkeys(("train", "compare", "tune"), "plan") | dict.fromkeys(("rlhf", "chat"), "rlhf_options")
"""Who knows which option sets the field that an error names."""


class UsageError(Exception):
    """What was asked for is not possible; the message is one sentence that names the remedy."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 misunderstood, 130 interrupted.

    Errors are one sentence on stderr; with VANTAGE_DEBUG=1 they are tracebacks.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name in ("-V", "--version"):
        from importlib import metadata

        print(f"vantage {metadata.version('vantage')}")
        return 0
    if name not in COMMANDS:
        from vantage.explain.choices import nearest

        return _fail("vantage", f"there is no command {name!r}: {nearest(name, COMMANDS)}", 2)
    try:
        with _ending_at_once(name):
            return import_module(f"vantage.cli.{FILES[name]}").main(arguments[1:]) or 0
    except KeyboardInterrupt:
        return _fail(f"vantage {name}", "interrupted", 130)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UsageError, OSError, ValueError, TypeError, ArithmeticError, RuntimeError, ModuleNotFoundError) as error:
        if os.environ.get("VANTAGE_DEBUG"):
            raise
        told = sentence(error)
        if name in FIELDS and isinstance(error, ValueError):
            told = import_module(f"vantage.cli.{FIELDS[name]}").in_flags(told)
        return _fail(f"vantage {name}", told, 2 if isinstance(error, UsageError) else 1)


@contextmanager
def _ending_at_once(name: str) -> Iterator[None]:
    """End the process at the first Ctrl-C wherever no training runs, which has its own handler and something to save.

    A KeyboardInterrupt may be raised inside a callback of a library that drops it, or inside compiled code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        os.write(2, f"vantage {name}: interrupted\n".encode())
        os._exit(130)

    old = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def sentence(error: BaseException) -> str:
    """An error as text, without the number that an OSError puts in front."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _fail(who: str, text: str, status: int) -> int:
    print(f"{who}: {text}", file=sys.stderr)
    return status


def overview() -> str:
    """What `vantage --help` prints, with the first line of each command's docstring, read without importing it."""
    lines = [f"  {name:<9}{summary(name)}" for name in COMMANDS]
    return "\n".join(
        [
            "Policy optimisation that can be checked.",
            "",
            "usage: vantage COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "vantage COMMAND --help lists a command's options.",
        ]
    )


def summary(name: str) -> str:
    """The one-line description of a command."""
    import ast

    path = Path(__file__).with_name(f"{FILES[name]}.py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
    return (text or "").split("\n")[0].rstrip(".")
