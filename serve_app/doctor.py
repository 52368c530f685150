"""Checks a configuration file strictly, before anything starts.

Ray ignores keys of a Serve file that it does not know: a misspelt one does nothing, silently. Here it is an error.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from serve_app.config import AppConfig, load_config, reason, require_safe_exposure
from serve_app.errors import ConfigError

IMPORT_PATH = "serve_app.app:build"
GRPC_SERVICER = "serve_app.grpc.llm_service_pb2_grpc.add_LLMServiceServicer_to_server"
MAX_PORT = 65535


class _Loader(yaml.SafeLoader):
    """Of a key that stands twice, YAML would silently take the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def check_file(path: Path) -> list[str]:
    """What is wrong with the file, a line each; empty when nothing is."""
    try:
        content = yaml.load(path.read_text(), _Loader)  # noqa: S506  # a safe one
    except OSError as error:
        return [f"{path}: cannot be read ({error.strerror})"]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [f"{path}: is not YAML that can be used: {' '.join(str(error).split())}"]
    if not isinstance(content, dict):
        return [f"{path}: must be a mapping with the keys http_options and applications"]
    return [*_check_serve(content), *_check_grpc(content), *_check_applications(content)]


def _check_serve(content: dict[str, Any]) -> Iterator[str]:
    from ray.serve.schema import ServeDeploySchema

    yield from _unknown_keys(content, ServeDeploySchema, "")
    try:
        ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        for each in error.errors():
            yield f"{'.'.join(map(str, each['loc']))}: {reason(each)}"
    except Exception as error:  # Ray's own checks stumble over values of types that they did not expect
        yield f"applications: Ray cannot read the file ({type(error).__name__}: {error}); look for an empty or misplaced list item"


def _check_grpc(content: dict[str, Any]) -> Iterator[str]:
    """A servicer that cannot be imported ends replicas as they start, again and again."""
    options = content["grpc_options"] if isinstance(content.get("grpc_options"), dict) else {}
    named = options.get("grpc_servicer_functions")
    for index, name in enumerate(named if isinstance(named, list) else ()):
        if not isinstance(name, str) or not callable(_imported(name)):
            yield f"grpc_options.grpc_servicer_functions[{index}]: got {name!r}; no such function; the application's is {GRPC_SERVICER}"


def _imported(name: str) -> Any:
    from ray._common.utils import import_attr

    try:
        return import_attr(name)
    except (ImportError, AttributeError, ValueError):
        return None


def _unknown_keys(value: Any, schema: Any, path: str) -> Iterator[str]:
    """Walks the file beside Ray's own schema. Free-form objects, such as `args`, end the walk."""
    model = _model_of(schema)
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _unknown_keys(each, schema, f"{path}[{index}]")
    elif isinstance(value, dict) and model:
        for key, each in value.items():
            here = f"{path}.{key}".lstrip(".")
            field = model.model_fields.get(key)
            if field is None:
                yield f"{here}: unknown key{_did_you_mean(str(key), list(model.model_fields))}"
            else:
                yield from _unknown_keys(each, field.annotation, here)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The one model in an annotation such as `list[Model] | None`; None when there is none, or a choice."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    models = {model for part in getattr(annotation, "__args__", ()) if (model := _model_of(part))}
    return models.pop() if len(models) == 1 else None


def _did_you_mean(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; allowed here: {', '.join(sorted(known))}"


def _check_applications(content: dict[str, Any]) -> Iterator[str]:
    applications = content.get("applications")
    if not isinstance(applications, list) or not applications:
        yield f"applications: must be a list with one application whose import_path is {IMPORT_PATH}"
        return
    options = content["http_options"] if isinstance(content.get("http_options"), dict) else {}
    host, port = options.get("host", "0.0.0.0"), options.get("port", 8000)  # noqa: S104  # Ray's own defaults
    if isinstance(port, int) and not 1 <= port <= MAX_PORT:
        yield f"http_options.port: got {port}; allowed: 1 to {MAX_PORT}"
    ours = [index for index, each in enumerate(applications) if isinstance(each, dict) and each.get("import_path") == IMPORT_PATH]
    if not ours:
        yield f"applications: none has the import_path {IMPORT_PATH}{_instead(applications)}"
    for index in ours:
        yield from _check_application(applications[index].get("args") or {}, host, f"applications[{index}].args.")


def _instead(applications: list[Any]) -> str:
    found = [str(each["import_path"]) for each in applications if isinstance(each, dict) and "import_path" in each]
    return f"; got {', '.join(found)}" if found else ""


def _check_application(args: dict[str, Any], host: str, prefix: str) -> Iterator[str]:
    try:
        config = load_config(args)
    except ConfigError as error:
        yield from (prefix + line for line in str(error).splitlines())
        return
    try:
        require_safe_exposure(config, host)
    except ConfigError as error:
        yield str(error)
    yield from (prefix + line for line in _check_model(config))


def _check_model(config: AppConfig) -> Iterator[str]:
    source = config.llm.model.source
    looks_like_a_path = source.startswith((".", "/", "~"))
    if looks_like_a_path and not (Path(source).expanduser() / "config.json").is_file():
        yield f"llm.model.source: {source} is not a directory with a config.json; give one, a hub id, or demo"
