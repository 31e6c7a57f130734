"""Old name of several modules, until all use the new ones."""

from .chains import make_records, stages_on
from .orders import ORDERS, Order, parse_order
from .values import any_integer, column, integer, named, plain, refuse_masked

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
STAGES = tuple(OFF)
__all__ = [
    "OFF",
    "ORDERS",
    "STAGES",
    "Order",
    "any_integer",
    "column",
    "integer",
    "make_records",
    "named",
    "parse_order",
    "plain",
    "refuse_masked",
    "stages_on",
]
