"""The long form, about 20 minutes on two cores: ``python -m tests.robustness [-k kill] [PYTEST ARGUMENTS]``."""

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    options = ["--hypothesis-profile", "torture", "-n", "2", "-rs", *sys.argv[1:]]
    sys.exit(pytest.main([str(Path(__file__).parent), *options]))
