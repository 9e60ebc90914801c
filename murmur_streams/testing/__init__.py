"""The contract of a store as tests that other stores can run; never anything that a run needs.

Needs pytest and pytest-asyncio. In a test module of yours::

    from murmur_streams.testing import StoreContract, StoreFactory

    class TestMyStore(StoreContract):
        @pytest.fixture
        def factory(self, tmp_path: Path) -> StoreFactory:
            return lambda **options: MyStore(tmp_path / "runs", **options)
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"murmur_streams.testing.{name}"
        for name in (
            "cursors",
            "events",
            "expiry",
            "lifecycle",
            "listing",
            "refusals",
            "results",
            "seals",
            "streams",
            "workbench",
        )
    )
)

from murmur_streams.testing.contract import StoreContract  # noqa: E402  # after the rewrite
from murmur_streams.testing.workbench import (  # noqa: E402  # after the rewrite
    StoreFactory,
    Subscriber,
    Workbench,
    wait_until,
)

__all__ = ["StoreContract", "StoreFactory", "Subscriber", "Workbench", "wait_until"]
