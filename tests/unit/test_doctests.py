"""The examples in the docstrings of the selection's kernels are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from mig_spark.kernels import selection

MODULES = [found.name for found in pkgutil.iter_modules(selection.__path__, f"{selection.__name__}.")]
#: Examples there are, at least: a change of the finder must not leave this test without any.
LEAST = 15


@pytest.mark.parametrize("name", MODULES)
def test_every_example_is_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= LEAST
