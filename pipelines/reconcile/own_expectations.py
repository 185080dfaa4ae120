"""Expectations under names that say what they are for; importing this registers them with Great Expectations."""

import great_expectations.expectations as gxe
from great_expectations.core.suite_parameters import SuiteParameterDict


class ExpectNoneOf(gxe.ExpectColumnValuesToBeBetween):
    """A count that has to be 0."""

    min_value: float | SuiteParameterDict | None = 0
    max_value: float | SuiteParameterDict | None = 0
    description: str | None = "What this column counts must not be."


class ExpectEquallyFullSides(gxe.ExpectColumnValuesToBeBetween):
    """The smaller side of an hour has at least a share of the rows of the greater one."""

    column: str = "fullness"
    description: str | None = "Neither batch nor the table is half empty in any hour."
