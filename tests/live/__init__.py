"""Tests on the real kernel."""

import pytest

# A failure there is to say which numbers differ, as in the tests themselves.
pytest.register_assert_rewrite("tests.live.family_sums")
