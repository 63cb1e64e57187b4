"""Without llvmlite nothing is compiled, and there is nothing to test here."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("llvmlite") else ["test_*.py"]
