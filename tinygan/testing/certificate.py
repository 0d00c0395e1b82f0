"""The certificate: every primitive, function, layer, loss and penalty is checked, and so are bugs
planted into them.

``main`` prints the table (``tinygan check``); ``python -m tinygan.testing.certificate >
docs/gradients.md`` writes the page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import backend
from ..tensor import PRIMITIVES
from .compositions import COMPOSITIONS
from .mutants import KINDS, cases_of, gradients, planted, slots, verdict
from .orders import gradcheck
from .report import GradcheckError, Inconclusive
from .samplers import SAMPLERS, Case, Picker

CASES = {"primitive": 12, "composition": 4}
IN_PARTS = ("times 1.000001", "both frozen")  # bugs for the primitives that a composition uses
HEAD = (f"{'name':44} {'orders':6} {'cases':>5} {'open':>4} {'worst error':>11} {'mutants':>11} "
        "dtype    backend")

PAGE = """# Gradients: the certificate

Every primitive, function, layer, loss and penalty of tinygan, checked by
`tinygan.testing.gradcheck`. Written by `python -m tinygan.testing.certificate > docs/gradients.md`;
a test fails when this page is out of date.

- *orders*: the derivatives that were checked. 1-2 where the function is piecewise linear, so that
  order 3 is zero.
- *cases*: seeded inputs, among them exact kinks, ties, empty and 0-d arrays, scales 1e-3 to 1e3;
  *open*: how many of them the checker left undecided (everything at a kink).
- *worst error*: the largest difference between a rule and the measured slope, as a share of its
  tolerance: 1 would fail.
- *mutants*: bugs killed / planted. Into each primitive {kinds} kinds of bugs, into the primitives
  that a composition uses two kinds, to order 2. Mutants that change nothing (a constant captured in
  a linear rule) are not counted.

```text
{table}
```
"""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    order: int
    cases: int
    undecided: int
    worst: float
    killed: int
    live: int
    backend: str
    fault: str

    def __str__(self) -> str:
        orders = f"1-{self.order}" if self.order > 1 else "1"
        mutants = f"{self.killed} / {self.live}"
        mark = f"  FAILED: {self.fault}" if self.fault else ""
        return (f"{self.name:44} {orders:6} {self.cases:5} {self.undecided:4} {self.worst:11.0e} "
                f"{mutants:>11} float64  {self.backend}{mark}")


def placed_case(case: Case, device: str) -> Case:
    """A case with its inputs on a device."""
    return case._replace(inputs=[backend.to_device(x, device) for x in case.inputs])


def certify(name: str, order: int = 3, device: str = "cpu", mutants: bool = True) -> Row:
    """Check one primitive or composition. KeyError for a name that has no sampler."""
    primitive = name in SAMPLERS
    if primitive:
        cases = cases_of(name, CASES["primitive"])
    else:
        rng = np.random.default_rng(list(name.encode()))
        cases = [COMPOSITIONS[name](Picker(rng, device)) for _ in range(CASES["composition"])]
    cases = [placed_case(case, device) for case in cases]
    order = min(order, *(case.order for case in cases))
    worst, undecided, fault = 0.0, 0, ""
    for seed, case in enumerate(cases):
        try:
            worst = max(worst, gradcheck(case.f, case.inputs, order=order, seed=seed).max_ratio)
        except Inconclusive:
            undecided += 1
        except GradcheckError as error:
            fault = fault or str(error).splitlines()[0]
    verdicts = Counter(mutant_verdicts(name, cases, order)) if mutants and not fault else Counter()
    live = verdicts["killed"] + verdicts["survived"]
    if not fault and (verdicts["survived"] or undecided == len(cases)):
        fault = "a mutant survived" if verdicts["survived"] else "nothing was decided"
    return Row(name, order, len(cases), undecided, worst, verdicts["killed"], live,
               "NumPy" if device == "cpu" else device, fault)


def mutant_verdicts(name: str, cases: list[Case], order: int) -> Iterator[str]:
    """The verdicts on all mutants that are planted for a row."""
    if name in SAMPLERS:
        places, kinds = {(name, slot) for slot in slots(PRIMITIVES[name])}, tuple(KINDS)
    else:
        cases, order, kinds = cases[:2], min(order, 2), IN_PARTS
        places = rules_used(cases[0], order)
    known = [(case, gradients(case, order)) for case in cases]
    for target, slot in sorted(places):
        for kind in kinds:
            yield verdict(known, order, PRIMITIVES[target], slot, KINDS[kind])


def rules_used(case: Case, order: int) -> set[tuple[str, int]]:
    """(primitive, argument) of every rule that the gradients of a case run through."""
    used = set()

    def noted(rule: Any, place: tuple[str, int]) -> Any:
        def wrapped(*arguments: Any, **statics: Any) -> Any:
            used.add(place)
            return rule(*arguments, **statics)
        return wrapped

    with ExitStack() as stack:
        for target, primitive in PRIMITIVES.items():
            for slot in slots(primitive):
                watch = partial(noted, place=(target, slot))
                stack.enter_context(planted(primitive, slot, watch))
        gradients(case, order)
    return used


def names_of(names: Sequence[str] | None) -> list[str]:
    """The rows asked for; all by default. ValueError for a name that is not one."""
    every = [*PRIMITIVES, *COMPOSITIONS]
    unknown = [name for name in names or () if name not in every]
    if unknown:
        raise ValueError(f"unknown name {unknown[0]!r}; choose from: {', '.join(every)}")
    return list(names or every)


def main(names: Sequence[str] | None = None, order: int = 3, device: str = "cpu") -> int:
    """Print the table, row by row; 1 if a row fails, else 0. ValueError for an unknown name."""
    chosen = names_of(names)
    print(HEAD)
    failed = 0
    for name in chosen:
        row = certify(name, order, device)
        failed += bool(row.fault)
        print(row, flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} passed")
    return int(failed > 0)


def page() -> str:
    """The text of docs/gradients.md."""
    table = [HEAD, *(str(certify(name)) for name in names_of(None))]
    return PAGE.format(kinds=len(KINDS), table="\n".join(table))


if __name__ == "__main__":
    print(page(), end="")
