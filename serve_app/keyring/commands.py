"""`mygo keys` and `mygo tenants`: the keyring's database, without the application.

What is to be piped goes to stdout: a new key's text alone, tables, with `--json` JSON. All else goes to stderr.
"""

import argparse
import getpass
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from serve_app.config_file import read_config
from serve_app.errors import ApiError, ConfigError, KeyringError
from serve_app.keyring.settings import KeyInfo, KeySettings, Limits, Named, TenantSettings, changed, shown
from serve_app.keyring.store import KeyStore, keyring_url, open_keyring
from serve_app.openai.requests import check

T = TypeVar("T")
LIMITS = Limits.__struct_fields__
PAGE = 500
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def main(arguments: Sequence[str]) -> int:
    """`arguments`: of `mygo`, which begin with `keys` or `tenants`. Returns the exit code: 1 when the command could not be carried out."""
    parser = argparse.ArgumentParser(prog="mygo")
    commands = parser.add_subparsers(required=True)
    keys = commands.add_parser("keys", description="Keys: who may use the application.").add_subparsers(required=True, metavar="ACTION")
    create = _command(keys, "create", _create, "make a key; its text, on stdout, is shown this once")
    create.add_argument("--tenant", required=True, help="whose it is: tenants share nothing")
    _add_settings(create)
    listing = _command(keys, "list", _list, "list keys, revoked ones too")
    listing.add_argument("--tenant", help="of this one only")
    _with_id(_command(keys, "show", _show, "show a key, but for its text"))
    _add_settings(_with_id(_command(keys, "change", _change, "change what is given, and nothing else")))
    rotate = _with_id(_command(keys, "rotate", _rotate, "give a key a new text, which is shown this once, on stdout"))
    rotate.add_argument("--keep-old", type=_seconds, default=0.0, metavar="TIME", help="how long the old text is good, for example 1h")
    _with_id(_command(keys, "revoke", _revoke, "end a key for good, within seconds"))
    audit = _command(keys, "audit", _audit, "what was done to keys and tenants, the newest first")
    audit.add_argument("--limit", type=int, default=50)
    tenants = commands.add_parser("tenants", description="What the keys of a tenant have together.").add_subparsers(
        required=True, metavar="ACTION"
    )
    _command(tenants, "list", _list_tenants, "list the tenants of which something was said")
    change = _command(tenants, "change", _change_tenant, "change what is given, and nothing else")
    change.add_argument("name", help="the tenant's")
    change.add_argument(
        "--weight", type=float, default=argparse.SUPPRESS, help="its share of the engines, in relation to the others' (1 unless it is said)"
    )
    change.add_argument(
        "--context-tokens",
        type=int,
        default=argparse.SUPPRESS,
        help="that it may have kept of chats' beginnings (unless it is said: contexts.tokens of the configuration)",
    )
    change.add_argument(
        "--groups",
        type=_names,
        default=argparse.SUPPRESS,
        metavar="A,B",
        help="access groups that it is in, with the configuration's; '' for none",
    )
    _add_limits(change)
    return _run(parser.parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        config = read_config(options.config)
        if config.auth.mode == "none":
            _say("note: auth.mode is none in this configuration, so keys are not asked for yet; set it to keys")
        store = open_keyring(keyring_url(config))
        try:
            options.command_of(store, options)
        finally:
            store.close()
    except (ApiError, ConfigError, KeyringError) as error:
        _say(f"error: {error}")
        return 1
    return 0


def _command(parsers: Any, name: str, work: Callable[[KeyStore, argparse.Namespace], None], help_: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.")
    parser.add_argument("config", type=Path, help="a Ray Serve configuration file, for example config.production.yaml")
    parser.add_argument("--json", action="store_true", help="JSON instead of words")
    parser.set_defaults(command_of=work)
    return parser


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("key_id", metavar="ID", help="the 12 characters after mygo_ in the key's text")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """In brackets: what holds unless something is said."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--name", help="for people")
    add("--role", choices=("user", "admin"), help="admin: may also use /v1/admin (user)")
    add("--model", action="append", dest="models", metavar="NAME", help="that it may ask for; several times (all)")
    add("--groups", type=_groups, metavar="A,B", help="those of its tenant's access groups that it may reach; '' for none (*, all)")
    add("--cache", choices=("on", "exact", "off"), help="the most that it may have of the answer cache (on)")
    add("--expires-in", type=_seconds, metavar="TIME", help="for example 12h or 30d (never)")
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name in LIMITS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=_count, default=argparse.SUPPRESS, metavar="N", help="or none (none)")


def _count(text: str) -> int | None:
    return None if text == "none" else int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _groups(text: str) -> list[str] | None:
    """As `KeySettings.groups` has them."""
    return None if text == "*" else _names(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError("must be a whole number and one of s, m, h, d, for example 30d")
    return float(found[1]) * _UNITS[found[2]]


def _said(options: argparse.Namespace, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What was given on the command line, as the admin API has it."""
    given = vars(options)
    said = {name: given[name] for name in kind.__struct_fields__ if name in given}
    limits = {name: given[name] for name in LIMITS if name in given}
    if "expires_in" in given:
        said["expires_at"] = int(time.time() + given["expires_in"])
    return said | ({"limits": limits} if limits else {})


def _create(store: KeyStore, options: argparse.Namespace) -> None:
    info, text = store.create(check(_said(options, KeySettings), KeySettings), _actor(), time.time())
    _note_groups(store, options, info.settings)
    _told(options, info, text)


def _change(store: KeyStore, options: argparse.Namespace) -> None:
    def change(now: KeySettings) -> KeySettings:
        return check(changed(now, _said(options, KeySettings)), KeySettings)

    info = store.change(options.key_id, change, _actor(), time.time())
    _note_groups(store, options, info.settings)
    _print_key(options, info)


def _note_groups(store: KeyStore, options: argparse.Namespace, settings: KeySettings) -> None:
    """A key reaches no group that its tenant is not in: who names one should know."""
    configured = {name for name, members in read_config(options.config).retrieval.groups.items() if settings.tenant in members}
    if missing := sorted({*(settings.groups or ())} - configured - {*store.tenant(settings.tenant).groups}):
        _say(f"note: the tenant {settings.tenant} is not in {', '.join(missing)}, so neither is the key (mygo tenants change)")


def _rotate(store: KeyStore, options: argparse.Namespace) -> None:
    info, text = store.rotate(options.key_id, options.keep_old, _actor(), time.time())
    _told(options, info, text)


def _revoke(store: KeyStore, options: argparse.Namespace) -> None:
    _print_key(options, store.revoke(options.key_id, _actor(), time.time()))


def _show(store: KeyStore, options: argparse.Namespace) -> None:
    _print_key(options, store.get(options.key_id))


def _list(store: KeyStore, options: argparse.Namespace) -> None:
    found = [shown(info, time.time()) for info in _all(lambda after: store.keys(options.tenant, after, PAGE), lambda info: info.id)]
    _table(options, found, ("id", "tenant", "name", "role", "state", "last_used_at"))


def _audit(store: KeyStore, options: argparse.Namespace) -> None:
    records = [msgspec.to_builtins(record) for record in store.audit(None, options.limit)]
    _table(options, records, ("seq", "at", "actor", "action", "target", "details"))


def _list_tenants(store: KeyStore, options: argparse.Namespace) -> None:
    found = _all(lambda after: store.tenants(after, PAGE), lambda each: each[0])
    rows = [{"name": name, **msgspec.to_builtins(settings)} for name, settings in found]
    _table(options, rows, ("name", "weight", "limits", "groups", "context_tokens"))


def _change_tenant(store: KeyStore, options: argparse.Namespace) -> None:
    def change(now: TenantSettings) -> TenantSettings:
        return check(changed(now, _said(options, TenantSettings)), TenantSettings)

    name = check({"name": options.name}, Named).name
    _print(options, {"name": name, **msgspec.to_builtins(store.change_tenant(name, change, _actor(), time.time()))})


def _all(page: Callable[[str], list[T]], name: Callable[[T], str]) -> list[T]:
    found: list[T] = []
    while part := page(name(found[-1]) if found else ""):
        found += part
    return found


def _actor() -> str:
    try:
        return f"shell:{getpass.getuser()}"
    except (KeyError, OSError):  # a container's user may have no name
        return "shell:unknown"


def _told(options: argparse.Namespace, info: KeyInfo, text: str) -> None:
    """The text of a new key."""
    if options.json:
        _write({**shown(info, time.time()), "key": text})
        return
    _say(f"key {info.id} of the tenant {info.settings.tenant}; its text is not shown again:")
    sys.stdout.write(f"{text}\n")


def _print_key(options: argparse.Namespace, info: KeyInfo) -> None:
    _print(options, shown(info, time.time()))


def _print(options: argparse.Namespace, value: dict[str, Any]) -> None:
    if options.json:
        _write(value)
        return
    sys.stdout.write("".join(f"{name + ':':15}{_words(name, each)}\n" for name, each in value.items() if name != "object"))


def _table(options: argparse.Namespace, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    if options.json:
        _write(rows)
        return
    cells = [columns, *([_words(name, row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    for line in cells:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _words(name: str, value: Any) -> str:
    if value is None or value in ("", {}):
        return "-"
    if value in ([], ()):
        return "none"
    if name == "at" or name.endswith("_at"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(key, each)}" for key, each in value.items() if each is not None) or "-"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _write(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
