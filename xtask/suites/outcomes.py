"""Writes what became of each test, for pytest (-p outcomes) and for Django's runner.

A line for each: outcome, name, what it said, divided by tabs, in the file that OUTCOMES names.
"""

import os

RANK = {"passed": 0, "skipped": 1, "failed": 2}
seen = {}


def note(name, outcome, said=""):
    """The worst of a test's phases is its outcome."""
    if name not in seen or RANK[outcome] > RANK[seen[name][0]]:
        seen[name] = (outcome, said)


def write():
    with open(os.environ["OUTCOMES"], "w", encoding="utf-8") as file:
        for name, (outcome, said) in seen.items():
            said = said[-600:].encode("utf-8", "replace").decode()
            clean = lambda text: " ".join(text.split())
            file.write(f"{outcome}\t{clean(name)}\t{clean(said)}\n")


def pytest_runtest_logreport(report):
    said = "" if report.outcome == "passed" else str(report.longrepr)
    note(report.nodeid, report.outcome, said)


def pytest_collectreport(report):
    if report.failed:
        note(report.nodeid, "failed", str(report.longrepr))


def pytest_sessionfinish():
    write()


def django():
    """Runs Django's own tests with the arguments of runtests.py."""
    import runpy
    import sys
    import unittest

    def patch(method, outcome):
        before = getattr(unittest.TextTestResult, method)

        def after(self, test, *rest):
            name = test.id() if hasattr(test, "id") else str(test)
            said = self._exc_info_to_string(rest[0], test) if outcome == "failed" and rest else ""
            note(name, outcome, said)
            return before(self, test, *rest)

        setattr(unittest.TextTestResult, method, after)

    patch("addSuccess", "passed")
    patch("addSkip", "skipped")
    patch("addExpectedFailure", "passed")
    patch("addUnexpectedSuccess", "failed")
    patch("addFailure", "failed")
    patch("addError", "failed")
    sys.argv[0] = "runtests.py"
    sys.path.insert(0, os.getcwd())
    try:
        runpy.run_path("runtests.py", run_name="__main__")
    finally:
        write()


if __name__ == "__main__":
    django()
