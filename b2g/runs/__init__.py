"""Runs: what one is (`spec`), what it leaves (`record`), where that is kept (`store`), which are wanted
(`plan`), and who carries them out (`work`, `engine`).

A run is a pure function of its specification, so runs are independent, and a record is never made twice.
"""

from b2g.runs.engine import sweep
from b2g.runs.plan import Plan, read_plan
from b2g.runs.record import Record
from b2g.runs.spec import Run, specify
from b2g.runs.store import Store

__all__ = ["Plan", "Record", "Run", "Store", "read_plan", "specify", "sweep"]
