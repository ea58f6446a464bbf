"""Constraints that several settings share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Union, get_args

from annotated_types import Ge, Lt
from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from reasontrain.plugins import READER, Component, component_of, is_plugin_kind, json_schema

Count = Annotated[int, Ge(0)]
Seed = Annotated[int, Ge(0), Lt(2**62)]
Decay = Annotated[float, Ge(0), Lt(1)]
KIND = Field(discriminator="kind")
BUILT_IN: dict[str, dict[str, type]] = {}
"""Classes of this package for a component, by its key and their kind."""
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class PluginOrKind:
    """Chooses the class of a section by its `kind`, in a union with a member for plug-ins."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        component = plugin_component(source)
        built_in = tuple(m for m in get_args(source) if component_of(m) is None)
        kinds = BUILT_IN[component.key] = {cls.kind: cls for cls in built_in}
        schema = handler.generate_schema(Annotated[Union[built_in], KIND])  # noqa: UP007

        def read(value: object, read_built_in: Callable[[object], object]) -> object:
            kind = value.get("kind") if isinstance(value, Mapping) else None
            if isinstance(kind, str) and kind not in kinds and is_plugin_kind(component, kind):
                return READER.get().build(component, value)
            return read_built_in(value)

        return core_schema.no_info_wrap_validator_function(
            read, schema, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, object]:
        return {"anyOf": [handler(schema), json_schema()]}


def plugin_component(union: object) -> Component:
    """The component whose plug-ins a union takes."""
    (component,) = filter(None, map(component_of, get_args(union)))
    return component


KIND_OR_PLUGIN = PluginOrKind()
