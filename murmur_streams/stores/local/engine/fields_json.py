"""The fields of a run or of an entry as JSON, which rows hold."""

from __future__ import annotations

from pydantic_core import SchemaValidator, core_schema

FIELDS = SchemaValidator(
    core_schema.dict_schema(core_schema.str_schema(), core_schema.str_schema(), strict=True)
)
"""Its ``validate_json`` reads and checks in one step, which costs no more than reading alone."""
