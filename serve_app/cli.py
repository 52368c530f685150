"""The command `mygo`."""

import argparse
import sys
from pathlib import Path

from serve_app.launch import run

_KEYRING = {"keys": "make, list, change, rotate and revoke keys", "tenants": "list and change what the keys of a tenant have together"}
"""Commands of `serve_app.keyring.commands`."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 when all is well, 1 when something was found, 2 for wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] and arguments[0] in _KEYRING:
        from serve_app.keyring import commands  # slow to import, and `serve` does without

        return commands.main(arguments)
    options = _parser().parse_args(arguments)
    if options.command == "doctor":
        return _doctor(options.config)
    return run(options.config, dashboard=options.dashboard, verbose=options.verbose, drain_limit_s=options.drain_limit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mygo", description="Tools for MyGO Serve.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = subparsers.add_parser("doctor", help="check a configuration file strictly, before anything starts")
    serve = subparsers.add_parser("serve", help="`serve run CONFIG`, with a stop (Ctrl-C) that finishes running streams")
    for command in (doctor, serve):
        command.add_argument("config", type=Path, help="a Ray Serve configuration file, for example config.yaml")
    serve.add_argument(
        "--dashboard",
        action="store_true",
        help="also start Ray's dashboard, which `serve status` and `serve deploy` need (with RAY_AUTH_MODE=token)",
    )
    serve.add_argument("--verbose", action="store_true", help="show what every process logs, not only the start and the end")
    serve.add_argument("--drain-limit", type=float, default=120, metavar="S", help="seconds that streams may take to finish on a stop")
    for name, help_ in _KEYRING.items():
        subparsers.add_parser(name, help=help_)
    return parser


def _doctor(path: Path) -> int:
    from serve_app.doctor import check_file  # slow to import, and `serve` does without

    problems = check_file(path)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{path}: {f'{len(problems)} problem(s)' if problems else 'ok'}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
